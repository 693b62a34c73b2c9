// Package keep is what a laptop keeps from one run of the client to the next: a
// login, and credentials until they end.
//
// A Keep is one folder, open to its owner alone. Each Write is one file, sealed
// (AES-256-GCM) with a key that lies in the keychain of the operating system, or
// where there is none in a file of the folder, and bound to its name and to the
// instant at which it ends. Nothing is ever half written: a file is renamed into
// its place. Nothing is read after its end, and what has ended is removed by
// whoever opens the folder next. Forget takes the key away, and with it all that
// was sealed, also in copies.
//
// Processes agree by Lock, which the operating system lets go of when its holder
// dies.
package keep

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const (
	keyFile   = "key"
	sealedExt = ".sealed"
	lockExt   = ".lock"
	newExt    = ".new"

	maxFile  = 4 << 20
	lockPoll = 20 * time.Millisecond
	// leftover is how old a file must be that somebody was writing when they died.
	leftover = time.Hour
)

// A Keep is one folder. It is safe for concurrent use, also by processes.
type Keep struct {
	dir  string
	ring Ring
	now  func() time.Time
}

// Open opens the folder, makes it where it is missing, and removes what has
// ended. Ring is the keychain; nil where there is none to be used.
func Open(dir string, ring Ring, now func() time.Time) (*Keep, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of what serval keeps: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("looking at the folder of what serval keeps: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil { // fails where it is somebody else's
			return nil, fmt.Errorf("closing the folder of what serval keeps to others: %w", err)
		}
	}
	k := &Keep{dir: dir, ring: ring, now: now}
	k.sweep()
	return k, nil
}

// Dir returns the folder.
func (k *Keep) Dir() string { return k.dir }

// sweep removes what has ended, by the time that Write gave the file. What cannot
// be removed cannot be read either.
func (k *Keep) sweep() {
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return
	}
	now := k.now()
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if ended := strings.HasSuffix(e.Name(), sealedExt) && !now.Before(info.ModTime()); ended ||
			strings.HasSuffix(e.Name(), newExt) && now.Sub(info.ModTime()) > leftover {
			_ = os.Remove(filepath.Join(k.dir, e.Name()))
		}
	}
}

// A Name is what something is kept under: what it is of, and which of these it
// is. Both may hold anything; of their text nothing shows outside.
type Name struct{ Of, Which string }

// text is what the seal binds a file to.
func (n Name) text() []byte { return fmt.Appendf(nil, "%q %q", n.Of, n.Which) }

// digest returns what stands for text in the name of a file.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:12])
}

// path returns the file of a name.
func (k *Keep) path(n Name, ext string) string {
	return filepath.Join(k.dir, digest(n.Of)+"-"+digest(n.Which)+ext)
}

// A sealed is what is in a file.
type sealed struct {
	EndsAt time.Time       `json:"ends_at"`
	Value  json.RawMessage `json:"value"`
}

// Read reads what was written under name into the value that into points to. It
// reports whether there was anything: what has ended, what was damaged and what
// another key has sealed is as if it were not there.
func (k *Keep) Read(name Name, into any) (bool, error) {
	text, err := readFile(k.path(name, sealedExt))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading what serval keeps: %w", err)
	}
	key, err := k.key()
	if err != nil {
		return false, err
	}
	if key.Empty() {
		return false, nil
	}
	box, err := seal(key)
	if err != nil {
		return false, err
	}
	opened, err := box.Open(nil, nil, text, name.text())
	var s sealed
	if err != nil || json.Unmarshal(opened, &s) != nil || !k.now().Before(s.EndsAt) || json.Unmarshal(s.Value, into) != nil {
		return false, nil
	}
	return true, nil
}

// Write keeps value under name until it ends.
func (k *Keep) Write(name Name, value any, endsAt time.Time) error {
	inner, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("keeping something: %w", err)
	}
	text, err := json.Marshal(sealed{endsAt, inner})
	if err != nil {
		return fmt.Errorf("keeping something: %w", err)
	}
	key, err := k.newKey()
	if err != nil {
		return err
	}
	box, err := seal(key)
	if err != nil {
		return err
	}
	return k.put(k.path(name, sealedExt), box.Seal(nil, nil, text, name.text()), endsAt)
}

// put writes a file of the owner's alone, whole or not at all.
func (k *Keep) put(path string, text []byte, modified time.Time) (err error) {
	f, err := os.CreateTemp(k.dir, "*"+newExt) // 0600, whatever the umask
	if err != nil {
		return fmt.Errorf("keeping something: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("keeping something: %w", err)
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(text); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Chtimes(f.Name(), time.Time{}, modified); err != nil { // a zero time changes nothing
		return err
	}
	return os.Rename(f.Name(), path)
}

// Remove removes what was written under name, if there is anything.
func (k *Keep) Remove(name Name) error { return remove(k.path(name, sealedExt)) }

// RemoveAll removes everything that is of something.
func (k *Keep) RemoveAll(of string) error {
	files, err := filepath.Glob(filepath.Join(k.dir, digest(of)+"-*"+sealedExt))
	if err != nil {
		return fmt.Errorf("removing what serval keeps: %w", err)
	}
	var faults []error
	for _, file := range files {
		faults = append(faults, remove(file))
	}
	return errors.Join(faults...)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing what serval keeps: %w", err)
	}
	return nil
}

// Forget removes everything, the key before all.
func (k *Keep) Forget() error {
	var faults []error
	if k.ring != nil {
		if err := k.ring.Remove(k.account()); err != nil && !errors.Is(err, ErrNoEntry) {
			faults = append(faults, fmt.Errorf("removing serval's key from the keychain: %w", err))
		}
	}
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return errors.Join(append(faults, err)...)
	}
	for _, e := range entries {
		// A lock that is removed while somebody waits for it locks nothing.
		if e.Name() == keyFile || strings.HasSuffix(e.Name(), sealedExt) || strings.HasSuffix(e.Name(), newExt) {
			faults = append(faults, remove(filepath.Join(k.dir, e.Name())))
		}
	}
	return errors.Join(faults...)
}

// Lock waits until nobody else holds the lock of that name. The lock ends with
// unlock, and with the process.
func (k *Keep) Lock(ctx context.Context, name Name) (unlock func(), err error) {
	l := flock.New(k.path(name, lockExt), flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, lockPoll); err != nil {
		_ = l.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("locking the folder of what serval keeps: %w", err)
	}
	return func() { _ = l.Unlock() }, nil
}

// account is what the key is called in the keychain: each folder has its own.
func (k *Keep) account() string { return digest(k.dir) }

// key returns the key; empty where there is none yet.
func (k *Keep) key() (serval.Secret, error) {
	text, err := readFile(filepath.Join(k.dir, keyFile))
	if err == nil {
		return parseKey(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return serval.Secret{}, fmt.Errorf("reading serval's key: %w", err)
	}
	if k.ring == nil {
		return serval.Secret{}, nil
	}
	found, err := k.ring.Find(k.account())
	if errors.Is(err, ErrNoEntry) {
		return serval.Secret{}, nil
	}
	if err != nil {
		return serval.Secret{}, fmt.Errorf("%w: %w", ErrKeychain, err)
	}
	return parseKey(found.Reveal()), nil
}

// newKey returns the key, and makes one where there is none: in the keychain if
// it takes one, else in a file.
func (k *Keep) newKey() (serval.Secret, error) {
	if key, err := k.key(); err == nil && !key.Empty() {
		return key, nil
	}
	unlock, err := k.Lock(context.Background(), Name{Of: keyFile}) // held for as long as a keychain takes
	if err != nil {
		return serval.Secret{}, err
	}
	defer unlock()
	if key, err := k.key(); err == nil && !key.Empty() {
		return key, nil // whoever had the lock made it
	}
	var bits [32]byte
	rand.Read(bits[:])
	key := serval.NewSecret(base64.StdEncoding.EncodeToString(bits[:]))
	if k.ring != nil && k.ring.Keep(k.account(), key) == nil {
		if found, err := k.ring.Find(k.account()); err == nil && found.Equal(key) {
			return key, nil
		}
	}
	return key, k.put(filepath.Join(k.dir, keyFile), []byte(key.Reveal()), time.Time{})
}

// parseKey returns the key in a text; empty where there is none, as of a file
// that was damaged.
func parseKey(text string) serval.Secret {
	text = strings.TrimSpace(text)
	if bits, err := base64.StdEncoding.DecodeString(text); err != nil || len(bits) != 32 {
		return serval.Secret{}
	}
	return serval.NewSecret(text)
}

func seal(key serval.Secret) (cipher.AEAD, error) {
	bits, err := base64.StdEncoding.DecodeString(key.Reveal())
	if err != nil {
		return nil, errors.New("serval's key is damaged")
	}
	block, err := aes.NewCipher(bits)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// readFile reads a file of ours: a regular one, of bounded size.
func readFile(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is not a file of serval's", path)
	}
	return os.ReadFile(path)
}

// KeyPlace says where the key lies.
func (k *Keep) KeyPlace() string {
	if _, err := os.Lstat(filepath.Join(k.dir, keyFile)); err == nil || k.ring == nil {
		return "a file beside it"
	}
	return "the keychain"
}
