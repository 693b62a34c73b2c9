package profile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const process = "/usr/local/bin/serval creds arn:aws:iam::111122223333:role/dev"

func with(t *testing.T, text string, profiles ...Profile) string {
	t.Helper()
	f, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range profiles {
		if err := f.Put(p); err != nil {
			t.Fatal(err)
		}
	}
	return f.Text()
}

const theirs = "# mine\n[default]\nregion=us-east-1 \n\n[profile  \"old one\" ]\n\tsso_session = x\n"

func TestPut(t *testing.T) {
	b, a := Profile{Name: "b", Process: process, Region: "eu-central-1"}, Profile{Name: "a", Process: process}
	got := with(t, theirs, b, a)
	want := theirs + begin + "\n[profile a]\ncredential_process = " + process + "\n[profile b]\ncredential_process = " + process + "\nregion = eu-central-1\n" + end + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if again := with(t, got, b, a); again != got {
		t.Errorf("a second time it is another:\n%s", again)
	}
	// What stands behind the block stays behind it.
	behind := got + "[profile later]\nregion = x\n"
	if again := with(t, behind, b); again != behind {
		t.Errorf("what stands behind the block moved:\n%s", again)
	}
	f, err := Parse(behind)
	if err != nil || cmp.Diff([]Profile{a, b}, f.Profiles) != "" || cmp.Diff([]string{"default", "old one", "later"}, f.Others) != "" {
		t.Errorf("parsed %v, %v, %v", f.Profiles, f.Others, err)
	}
	if odd, err := Parse(begin + "\nregion = nowhere\n[profile a]\nno setting\n" + end + "\n"); err != nil || cmp.Diff([]Profile{{Name: "a"}}, odd.Profiles) != "" {
		t.Errorf("a block with lines that mean nothing: %v, %v", odd.Profiles, err)
	}
	f.Profiles = nil
	if f.Text() != theirs+"[profile later]\nregion = x\n" {
		t.Errorf("without profiles there is\n%s", f.Text())
	}
	// Lines end as they do in the file; one without its last newline gets it.
	if got := with(t, "[default]\r\n", a); strings.Count(got, "\r\n") != strings.Count(got, "\n") {
		t.Errorf("line ends are mixed: %q", got)
	}
	if got := with(t, "[default]", a); !strings.HasPrefix(got, "[default]\n"+begin) {
		t.Errorf("a last line without its end: %q", got)
	}
}

func TestRefused(t *testing.T) {
	good := Profile{Name: "good", Process: process}
	for name, c := range map[string]struct {
		change func(*Profile)
		kind   serval.Kind
	}{
		"one of theirs":      {func(p *Profile) { p.Name = "old one" }, serval.Invalid},
		"one without quotes": {func(p *Profile) { p.Name = "plain" }, serval.Conflict},
		"default":            {func(p *Profile) { p.Name = "default" }, serval.Invalid},
		"a section":          {func(p *Profile) { p.Name = "x]\n[default" }, serval.Invalid},
		"no name":            {func(p *Profile) { p.Name = "" }, serval.Invalid},
		"a second line":      {func(p *Profile) { p.Process = "x\naws_access_key_id = y" }, serval.Invalid},
		"no command":         {func(p *Profile) { p.Process = "" }, serval.Invalid},
		"a region's line":    {func(p *Profile) { p.Region = "eu-central-1\nx = y" }, serval.Invalid},
		"no region":          {func(p *Profile) { p.Region = "Frankfurt" }, serval.Invalid},
	} {
		f, err := Parse(theirs + "[profile plain]\n")
		if err != nil {
			t.Fatal(err)
		}
		p := good
		c.change(&p)
		if err := f.Put(p); !serval.IsRefusal(err, c.kind) || len(f.Profiles) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"no end":      begin + "\n[profile a]\n",
		"no begin":    "[default]\n" + end + "\n",
		"two blocks":  with(t, "", good) + with(t, "", good),
		"two ends":    with(t, "", good) + end + "\n",
		"two begins":  begin + "\n" + begin + "\n" + end + "\n",
		"end, begin ": end + "\n" + begin + "\n",
	} {
		if _, err := Parse(text); !serval.IsRefusal(err, serval.FailedPrecondition) || !strings.Contains(err.Error(), "Line ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestName(t *testing.T) {
	for _, c := range []struct{ template, account, role, want string }{
		{DefaultTemplate, "prod", "readonly", "prod-readonly"},
		{DefaultTemplate, "prod", "prod-readonly", "prod-readonly"},
		{DefaultTemplate, "prod", "production", "prod-production"},
		{DefaultTemplate, "Prod EU", "admin", "Prod-EU-admin"},
		{DefaultTemplate, "", "admin", "111122223333-admin"},
		{"{account}.{role}", "prod", "prod-admin", "prod.prod-admin"},
		{"aws-{account_id}-{role}", "prod", "admin", "aws-111122223333-admin"},
		{"{role}", "prod", "a,b=c", "a-b-c"},
		{"x]\n[{role}", "prod", "r", "x-r"},
	} {
		if got := Name(c.template, c.account, "111122223333", c.role); got != c.want {
			t.Errorf("%q of %q and %q is %q, want %q", c.template, c.account, c.role, got, c.want)
		}
	}
}

func TestSave(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "dotfiles"), filepath.Join(dir, ".aws", "config")
	change := func(text string) func(string) (string, error) {
		return func(string) (string, error) { return text, nil }
	}
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	// A new file is its owner's alone, as is its folder.
	if changed, err := Save(link, change("one\n")); err != nil || !changed || read(link) != "one\n" {
		t.Fatalf("a new file: %v, %v", changed, err)
	}
	for _, path := range []string{link, filepath.Dir(link)} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v, %v", path, info.Mode(), err)
		}
	}
	// One behind a link stays there, with its permissions and a copy of what it was.
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(real, []byte("mine\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Skip("no links here")
	}
	if changed, err := Save(link, change("two\n")); err != nil || !changed || read(real) != "two\n" || read(real+BackupExt) != "mine\n" {
		t.Errorf("behind a link: %v, %v", changed, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().IsRegular() {
		t.Errorf("the link is gone: %v", err)
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("its permissions are %v, want 0640: %v", info.Mode(), err)
	}
	// What changes nothing writes nothing, and what is refused neither.
	if changed, err := Save(link, change("two\n")); err != nil || changed || read(real+BackupExt) != "mine\n" {
		t.Errorf("no change: %v, %v", changed, err)
	}
	refused := serval.Refuse(serval.Invalid, "no")
	if changed, err := Save(link, func(string) (string, error) { return "three\n", refused }); err != refused || changed || read(real) != "two\n" {
		t.Errorf("refused: %v, %v", changed, err)
	}
	if _, err := Save(dir, func(string) (string, error) { t.Error("what cannot be read is changed"); return "", nil }); err == nil {
		t.Error("a folder was saved")
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.new-*")); err != nil || len(left) > 0 {
		t.Errorf("%v are left over", left)
	}
}

// Whatever is in the file stays there, to the byte, and twice is as once.
func FuzzParse(f *testing.F) {
	f.Add(theirs)
	f.Add("")
	f.Add("[default]\r\nregion = x\r\n")
	f.Add("region = x\r")
	f.Add(theirs + begin + "\n[profile a]\ncredential_process = x\n" + end + "\nrest")
	f.Add("[profile 'x]\n[[y]]\n[profile \"]\"]")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse(text)
		if err != nil {
			return
		}
		before, after := file.before, file.after
		if !strings.HasPrefix(text, before) || !strings.HasSuffix(text, after) {
			t.Fatal("what is theirs changed")
		}
		file.Profiles = nil
		if err := file.Put(Profile{Name: "fuzz-profile", Process: process}); err != nil {
			return // theirs has that name
		}
		once := file.Text()
		again, err := Parse(once)
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%q", err, once)
		}
		if !strings.HasPrefix(again.before, before) || again.after != after || again.Text() != once {
			t.Errorf("twice is not as once:\n%q\n%q", once, again.Text())
		}
	})
}
