package keep

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

var noon = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

var paper = Name{Of: "papers", Which: "first"}

// A clock is the laptop's.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func open(t *testing.T, dir string, ring Ring, c *clock) *Keep {
	t.Helper()
	k, err := Open(dir, ring, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *Keep) mustWrite(t *testing.T, name Name, text string, until time.Time) {
	t.Helper()
	if err := k.Write(name, text, until); err != nil {
		t.Fatal(err)
	}
}

// has reports what is read under name.
func (k *Keep) has(t *testing.T, name Name) string {
	t.Helper()
	var text string
	ok, err := k.Read(name, &text)
	if err != nil {
		t.Fatal(err)
	}
	if ok != (text != "") {
		t.Errorf("read %q and reported %v", text, ok)
	}
	return text
}

// files returns the names of the files in the folder that end so.
func files(t *testing.T, dir, ext string) (names []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+ext))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestKept(t *testing.T) {
	dir, c := filepath.Join(t.TempDir(), "kept"), &clock{noon}
	k := open(t, dir, nil, c)
	if got := k.has(t, paper); got != "" || k.KeyPlace() != "a file beside it" {
		t.Errorf("an empty folder has %q, its key in %s", got, k.KeyPlace())
	}
	k.mustWrite(t, paper, "a canary", noon.Add(time.Hour))
	other := Name{Of: "papers", Which: "second"}
	k.mustWrite(t, other, "another", noon.Add(2*time.Hour))
	if a, b := k.has(t, paper), k.has(t, other); a != "a canary" || b != "another" {
		t.Errorf("read %q and %q", a, b)
	}
	for _, file := range files(t, dir, "") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("canary")) || strings.Contains(file, "papers") {
			t.Errorf("%s shows what it holds", file)
		}
	}
	// One process after the other reads it.
	if got := open(t, dir, nil, c).has(t, paper); got != "a canary" {
		t.Errorf("the next process reads %q", got)
	}

	// S-64: never past its end, though the file is still there.
	c.at = noon.Add(time.Hour)
	if got := k.has(t, paper); got != "" {
		t.Errorf("at its end it is still read: %q", got)
	}
	// Not even where the file is made to look younger.
	if err := os.Chtimes(k.path(paper, sealedExt), time.Time{}, noon.Add(3*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir, nil, c).has(t, paper); got != "" {
		t.Errorf("a file that looks younger is read past its end: %q", got)
	}
	// Whoever opens the folder next removes it.
	c.at = noon.Add(2 * time.Hour)
	k = open(t, dir, nil, c)
	if left := files(t, dir, sealedExt); len(left) != 1 {
		t.Errorf("%v are left, want the one that looks younger", left)
	}

	k.mustWrite(t, paper, "a", noon.Add(9*time.Hour))
	k.mustWrite(t, other, "b", noon.Add(9*time.Hour))
	third := Name{Of: "letters", Which: "first"}
	k.mustWrite(t, third, "c", noon.Add(9*time.Hour))
	if err := k.Remove(paper); err != nil || k.has(t, paper) != "" || k.has(t, other) != "b" {
		t.Errorf("removing one: %v", err)
	}
	if err := k.RemoveAll("papers"); err != nil || k.has(t, other) != "" || k.has(t, third) != "c" {
		t.Errorf("removing all of one kind: %v", err)
	}
	if err := errors.Join(k.Remove(paper), k.RemoveAll("papers")); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "123"+newExt), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.Forget(); err != nil || len(files(t, dir, sealedExt))+len(files(t, dir, keyFile))+len(files(t, dir, newExt)) > 0 || k.has(t, third) != "" {
		t.Errorf("after Forget there are %v: %v", files(t, dir, ""), err)
	}
	// What cannot be removed is told of.
	if err := os.MkdirAll(filepath.Join(k.path(paper, sealedExt), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"one": k.Remove(paper), "all of one kind": k.RemoveAll("papers"), "everything": k.Forget()} {
		if err == nil {
			t.Errorf("removing %s, which cannot be removed, is no error", name)
		}
	}
}

// What is not as it was written is as if it were not there.
func TestDamaged(t *testing.T) {
	c := &clock{noon}
	for name, damage := range map[string]func(t *testing.T, k *Keep, file string) error{
		"cut":   func(_ *testing.T, _ *Keep, file string) error { return os.Truncate(file, 20) },
		"empty": func(_ *testing.T, _ *Keep, file string) error { return os.Truncate(file, 0) },
		"a bit": func(t *testing.T, _ *Keep, file string) error {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text[len(text)/2] ^= 1
			return os.WriteFile(file, text, 0o600)
		},
		"under another name": func(_ *testing.T, k *Keep, file string) error {
			k.mustWrite(t, Name{Of: "other"}, "other", noon.Add(time.Hour))
			return os.Rename(k.path(Name{Of: "other"}, sealedExt), file)
		},
		"another key": func(_ *testing.T, k *Keep, _ string) error {
			return os.WriteFile(filepath.Join(k.dir, keyFile), []byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), 0o600)
		},
		"no key": func(_ *testing.T, k *Keep, _ string) error { return os.Remove(filepath.Join(k.dir, keyFile)) },
		"a short key": func(_ *testing.T, k *Keep, _ string) error {
			return os.WriteFile(filepath.Join(k.dir, keyFile), []byte("AAAAAAAAAAAAAAAAAAAAAA=="), 0o600)
		},
		"a wrong key": func(_ *testing.T, k *Keep, _ string) error { return os.Truncate(filepath.Join(k.dir, keyFile), 10) },
	} {
		k := open(t, t.TempDir(), nil, c)
		k.mustWrite(t, paper, "a canary", noon.Add(time.Hour))
		if err := damage(t, k, k.path(paper, sealedExt)); err != nil {
			t.Fatal(err)
		}
		if got := k.has(t, paper); got != "" {
			t.Errorf("%s: read %q", name, got)
		}
		k.mustWrite(t, paper, "anew", noon.Add(time.Hour))
		if got := k.has(t, paper); got != "anew" {
			t.Errorf("%s: written anew it is read as %q", name, got)
		}
		if key, err := k.key(); err != nil || len(key.Reveal()) != 44 {
			t.Errorf("%s: the key is none of 32 bytes now: %v", name, err)
		}
	}
	k := open(t, t.TempDir(), nil, c)
	k.mustWrite(t, paper, "a canary", noon.Add(time.Hour))
	file := k.path(paper, sealedExt)
	if err := errors.Join(os.Rename(file, file+"x"), os.Symlink(file+"x", file)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Read(paper, new(string)); err == nil {
		t.Error("a link was followed")
	}
	if err := errors.Join(os.Rename(file+"x", file), os.Truncate(file, maxFile+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Read(paper, new(string)); err == nil {
		t.Error("a file that is too long was read")
	}
	k.mustWrite(t, paper, "a canary", noon.Add(time.Hour))
	key := filepath.Join(k.dir, keyFile)
	if err := errors.Join(os.Rename(key, key+"x"), os.Symlink(key+"x", key)); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Read(paper, new(string)); err == nil {
		t.Error("a link to a key was followed")
	}
}

// What somebody was writing when they died goes after a while, and not before.
func TestLeftovers(t *testing.T) {
	dir, c := t.TempDir(), &clock{time.Now()}
	half := filepath.Join(dir, "123"+newExt)
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir, nil, c)
	if len(files(t, dir, newExt)) != 1 {
		t.Error("what somebody is writing now was removed")
	}
	c.at = c.at.Add(2 * leftover)
	open(t, dir, nil, c)
	if len(files(t, dir, newExt)) != 0 {
		t.Error("what somebody was writing when they died is still there")
	}
	// What is no leftover has no age: the key, a lock, and what has not ended.
	k := open(t, dir, nil, c)
	k.mustWrite(t, paper, "a canary", c.at.Add(9*leftover))
	unlock, err := k.Lock(t.Context(), paper)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	for _, file := range append(files(t, dir, keyFile), files(t, dir, lockExt)...) {
		if err := os.Chtimes(file, time.Time{}, noon.Add(-24*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	locks := len(files(t, dir, lockExt))
	c.at = c.at.Add(2 * leftover)
	if got := open(t, dir, nil, c).has(t, paper); got != "a canary" || len(files(t, dir, lockExt)) != locks {
		t.Errorf("after %s it reads %q, and of %d locks there are %v", 2*leftover, got, locks, files(t, dir, lockExt))
	}
}

// One holds a lock at a time, and its end lets the next one in.
func TestLock(t *testing.T) {
	k := open(t, t.TempDir(), nil, &clock{noon})
	unlock, err := k.Lock(t.Context(), paper)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := k.Lock(ctx, paper); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a lock that is held was got: %v", err)
	}
	other, err := k.Lock(t.Context(), Name{Of: "other"})
	if err != nil {
		t.Errorf("another name is locked too: %v", err)
	}
	other()
	unlock()
	again, err := k.Lock(t.Context(), paper)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// A ring is a keychain that can be made to fail.
type ring struct {
	entries map[string]serval.Secret
	fault   error
}

func (r *ring) Keep(account string, s serval.Secret) error {
	if r.fault == nil {
		r.entries[account] = s
	}
	return r.fault
}

func (r *ring) Find(account string) (serval.Secret, error) {
	s, ok := r.entries[account]
	if !ok && r.fault == nil {
		return s, ErrNoEntry
	}
	return s, r.fault
}

func (r *ring) Remove(account string) error {
	_, err := r.Find(account)
	delete(r.entries, account)
	return err
}

// The key lies in the keychain, and in a file where that takes none.
func TestRing(t *testing.T) {
	dir, c, r := t.TempDir(), &clock{noon}, &ring{entries: map[string]serval.Secret{}}
	k := open(t, dir, r, c)
	k.mustWrite(t, paper, "a canary", noon.Add(time.Hour))
	if _, err := os.Stat(filepath.Join(dir, keyFile)); !errors.Is(err, fs.ErrNotExist) || len(r.entries) != 1 || k.KeyPlace() != "the keychain" {
		t.Errorf("the key is not in the keychain alone: %v, %d entries", err, len(r.entries))
	}
	if got := k.has(t, paper); got != "a canary" {
		t.Errorf("read %q", got)
	}
	// Without the key it is as if nothing were there.
	had := maps.Clone(r.entries)
	clear(r.entries)
	if got := k.has(t, paper); got != "" {
		t.Errorf("without the key: %q", got)
	}
	maps.Copy(r.entries, had)
	// Another folder has another key.
	other := open(t, t.TempDir(), r, c)
	other.mustWrite(t, paper, "other", noon.Add(time.Hour))
	if len(r.entries) != 2 {
		t.Errorf("two folders have %d keys", len(r.entries))
	}
	// One that is locked is told of, and what is in it is not guessed.
	r.fault = errSilent
	if _, err := k.Read(paper, new(string)); !errors.Is(err, ErrKeychain) {
		t.Errorf("a keychain that does not answer: %v", err)
	}
	// With it closed a file takes its place, also when it opens again.
	k.mustWrite(t, paper, "in a file", noon.Add(time.Hour))
	if k.KeyPlace() != "a file beside it" {
		t.Errorf("the key is in %s", k.KeyPlace())
	}
	if err := k.Forget(); !errors.Is(err, errSilent) {
		t.Errorf("a key that the keychain keeps: %v", err)
	}
	k.mustWrite(t, paper, "in a file", noon.Add(time.Hour))
	r.fault = nil
	if got := k.has(t, paper); got != "in a file" {
		t.Errorf("read %q", got)
	}
	if err := k.Forget(); err != nil || len(r.entries) != 1 {
		t.Errorf("after Forget the keychain has %d entries, want the other folder's: %v", len(r.entries), err)
	}
	if err := k.Forget(); err != nil {
		t.Errorf("forgetting twice: %v", err)
	}
	// A keychain that forgets at once is no place.
	forgetful := open(t, t.TempDir(), forgets{}, c)
	forgetful.mustWrite(t, paper, "kept", noon.Add(time.Hour))
	if got := forgetful.has(t, paper); got != "kept" {
		t.Errorf("with a keychain that keeps nothing: %q", got)
	}
	// Nor is one that keeps something else: what it gives would open nothing.
	stubborn := open(t, t.TempDir(), keepsAnother{}, c)
	stubborn.mustWrite(t, paper, "kept", noon.Add(time.Hour))
	if got := stubborn.has(t, paper); got != "kept" || stubborn.KeyPlace() != "a file beside it" {
		t.Errorf("with a keychain that keeps something else: %q, its key in %s", got, stubborn.KeyPlace())
	}
}

// keepsAnother is a keychain that has what nobody gave it.
type keepsAnother struct{ forgets }

func (keepsAnother) Find(string) (serval.Secret, error) { return serval.NewSecret("another"), nil }

type forgets struct{}

func (forgets) Keep(string, serval.Secret) error   { return nil }
func (forgets) Find(string) (serval.Secret, error) { return serval.Secret{}, ErrNoEntry }
func (forgets) Remove(string) error                { return ErrNoEntry }

// The system's keychain, played by its library.
func TestSystem(t *testing.T) {
	keyring.MockInit()
	var r system
	if _, err := r.Find("x"); !errors.Is(err, ErrNoEntry) {
		t.Errorf("nothing is found with %v", err)
	}
	if err := r.Keep("x", serval.NewSecret("canary")); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Find("x"); err != nil || got.Reveal() != "canary" {
		t.Errorf("found %v", err)
	}
	if err := r.Remove("x"); err != nil {
		t.Error(err)
	}
	if err := r.Remove("x"); !errors.Is(err, ErrNoEntry) {
		t.Errorf("removing nothing: %v", err)
	}
	keyring.MockInitWithError(errors.New("locked"))
	if _, err := r.Find("x"); err == nil || errors.Is(err, ErrNoEntry) {
		t.Errorf("a locked keychain: %v", err)
	}
	hangs := make(chan struct{})
	defer close(hangs)
	if err := within(time.Millisecond, func() error { <-hangs; return nil }); !errors.Is(err, errSilent) {
		t.Errorf("a keychain that hangs: %v", err)
	}
}

// Off a desktop's session no keychain is asked: it would wait for somebody. On macOS and
// Windows whoever is logged in has one, and a Mac's root has none.
func TestNoRing(t *testing.T) {
	always := runtime.GOOS == "windows" || runtime.GOOS == "darwin" && os.Getuid() != 0
	never := runtime.GOOS == "darwin" && os.Getuid() == 0
	desktop := map[string]string{"DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus", "DISPLAY": ":0"}
	if (System(func(name string) string { return desktop[name] }) == nil) != never {
		t.Error("a desktop has no keychain, or root of a Mac has one")
	}
	wayland := map[string]string{"DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus", "WAYLAND_DISPLAY": "wayland-0"}
	if (System(func(name string) string { return wayland[name] }) == nil) != never {
		t.Error("a desktop of Wayland has no keychain, or root of a Mac has one")
	}
	for name, change := range map[string][2]string{"no bus": {"DBUS_SESSION_BUS_ADDRESS", ""}, "no display": {"DISPLAY", ""}, "over SSH": {"SSH_CONNECTION", "x"}} {
		if asked := System(func(name string) string {
			if name == change[0] {
				return change[1]
			}
			return desktop[name]
		}) != nil; asked != always {
			t.Errorf("%s: a keychain would be asked: %v, want %v", name, asked, always)
		}
	}
}
