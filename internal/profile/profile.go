// Package profile writes profiles into the AWS configuration file, between two
// lines of its own, and leaves everything else as it is, to the byte.
//
// Parse takes a file apart into what is before the block, the profiles in it, and
// what is behind; Text puts it together again. Both are pure. Save changes a file
// on disk: whole or not at all, with a copy of what was there before.
package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The lines that begin and end the block.
const (
	begin = "# >>> serval: written by \"serval configure\", which replaces what stands here"
	end   = "# <<< serval"
)

// A Profile is a named profile of the AWS configuration.
type Profile struct {
	Name    string
	Process string // the command that credential_process runs
	Region  string // may be empty
}

// A File is an AWS configuration file, taken apart.
type File struct {
	before, after string
	newline       string

	Profiles []Profile // those of the block, by name
	Others   []string  // names of profiles that stand outside of it
}

var (
	section = regexp.MustCompile(`^\s*\[\s*(?:profile\s+)?(?:"([^"]*)"|'([^']*)'|([^\]]*?))\s*\]`)
	setting = regexp.MustCompile(`^\s*([a-z_]+)\s*=\s*(.*?)\s*$`)

	// nameForm is what a profile can be called without quotes in any tool.
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$`)
	regionForm = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)
	unnamed    = regexp.MustCompile(`[^A-Za-z0-9._@+-]+`)
)

// Parse takes a file apart. One whose block has no end, or that has two, is
// refused: what is whose cannot be told.
func Parse(text string) (File, error) {
	f := File{before: text, newline: "\n"}
	if strings.Contains(text, "\r\n") || strings.HasSuffix(text, "\r") {
		f.newline = "\r\n"
	}
	from, to, offset, number := -1, -1, 0, 0
	for line := range strings.Lines(text) {
		number++
		bare := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(bare, "# >>> serval"):
			if from >= 0 {
				return File{}, damaged(number, "a second block of serval's begins")
			}
			from = offset
		case strings.HasPrefix(bare, end):
			if from < 0 || to >= 0 {
				return File{}, damaged(number, "a block of serval's ends that has not begun")
			}
			to = offset + len(line)
		case from >= 0 && to < 0:
			f.inside(line)
		default:
			if m := section.FindStringSubmatch(line); m != nil {
				f.Others = append(f.Others, m[1]+m[2]+m[3])
			}
		}
		offset += len(line)
	}
	if from >= 0 && to < 0 {
		return File{}, damaged(number, "serval's block has no end")
	}
	if from >= 0 {
		f.before, f.after = text[:from], text[to:]
	}
	return f, nil
}

func damaged(line int, what string) error {
	return serval.Refuse(serval.FailedPrecondition, "Line %d of the AWS configuration: %s. Take out the lines that begin with \"# >>> serval\" and \"# <<< serval\" and what is between them, and run this again.", line, what)
}

// inside reads a line of the block.
func (f *File) inside(line string) {
	if m := section.FindStringSubmatch(line); m != nil {
		f.Profiles = append(f.Profiles, Profile{Name: m[1] + m[2] + m[3]})
		return
	}
	m := setting.FindStringSubmatch(line)
	if m == nil || len(f.Profiles) == 0 {
		return
	}
	p := &f.Profiles[len(f.Profiles)-1]
	switch m[1] {
	case "credential_process":
		p.Process = m[2]
	case "region":
		p.Region = m[2]
	}
}

// Put adds a profile to the block, or replaces the one of its name. One that
// somebody wrote outside of the block is refused, and so is a name or a region
// that could be read as something else.
func (f *File) Put(p Profile) error {
	if err := CheckName(p.Name); err != nil {
		return err
	}
	if p.Region != "" {
		if err := CheckRegion(p.Region); err != nil {
			return err
		}
	}
	switch {
	case p.Process == "" || strings.ContainsAny(p.Process, "\r\n"):
		return serval.Refuse(serval.Invalid, "The command of profile %s is not one line.", p.Name)
	case slices.Contains(f.Others, p.Name):
		return serval.Refuse(serval.Conflict, "There is a profile %s already that serval has not written. It was left as it is; give the role an alias: --alias NAME=ROLE.", p.Name)
	}
	f.Drop(p.Name)
	f.Profiles = append(f.Profiles, p)
	slices.SortFunc(f.Profiles, func(a, b Profile) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// CheckName refuses what cannot be the name of a profile.
func CheckName(name string) error {
	if !nameForm.MatchString(name) || name == "default" {
		return serval.Refuse(serval.Invalid, "%q cannot be the name of a profile: letters, digits and ._@+- , and not default.", serval.Clip(name, 60))
	}
	return nil
}

// CheckRegion refuses what is no region of AWS's.
func CheckRegion(region string) error {
	if !regionForm.MatchString(region) {
		return serval.Refuse(serval.Invalid, "%q is not an AWS region, such as eu-central-1.", serval.Clip(region, 40))
	}
	return nil
}

// Drop takes a profile out of the block, if it is there.
func (f *File) Drop(name string) {
	f.Profiles = slices.DeleteFunc(f.Profiles, func(p Profile) bool { return p.Name == name })
}

// Text returns the file. Without profiles it has no block.
func (f File) Text() string {
	if len(f.Profiles) == 0 {
		return f.before + f.after
	}
	var b strings.Builder
	b.WriteString(f.before)
	if f.before != "" && !strings.HasSuffix(f.before, "\n") {
		b.WriteString(f.newline)
	}
	b.WriteString(begin + f.newline)
	for _, p := range f.Profiles {
		b.WriteString("[profile " + p.Name + "]" + f.newline + "credential_process = " + p.Process + f.newline)
		if p.Region != "" {
			b.WriteString("region = " + p.Region + f.newline)
		}
	}
	b.WriteString(end + f.newline)
	b.WriteString(f.after)
	return b.String()
}

// DefaultTemplate names a profile for account and role, once.
const DefaultTemplate = "{name}"

// Name returns what a role's profile is called by a template: {account},
// {account_id}, {role}, and {name}, which is account and role without saying the
// account twice.
func Name(template, accountName, accountID, role string) string {
	account := cleaned(accountName)
	if account == "" {
		account = accountID
	}
	name := account + "-" + cleaned(role)
	if strings.HasPrefix(strings.ToLower(cleaned(role)), strings.ToLower(account)+"-") || strings.EqualFold(role, account) {
		name = cleaned(role)
	}
	text := strings.NewReplacer("{account}", account, "{account_id}", accountID, "{role}", cleaned(role), "{name}", name).Replace(template)
	return cleaned(text)
}

// cleaned returns text with what cannot be in a name replaced.
func cleaned(text string) string {
	return strings.Trim(unnamed.ReplaceAllString(text, "-"), "-._@+")
}

// BackupExt is put behind a file's name for the copy of what was there before.
const BackupExt = ".before-serval"

// Save changes the file at path by change, which is given what is there, and
// reports whether that made a difference. A link is followed. The file keeps its
// permissions, a new one is its owner's alone; before it changes it is copied.
func Save(path string, change func(text string) (string, error)) (changed bool, err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	old, err := os.ReadFile(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return false, fmt.Errorf("reading the AWS configuration: %w", err)
	}
	text, err := change(string(old))
	if err != nil || text == string(old) {
		return false, err
	}
	if missing {
		return true, Replace(path, []byte(text))
	}
	info, err := os.Stat(path)
	if err != nil {
		return false, fmt.Errorf("looking at the AWS configuration: %w", err)
	}
	mode := info.Mode().Perm()
	if err := put(path+BackupExt, old, mode); err != nil {
		return false, fmt.Errorf("copying the AWS configuration: %w", err)
	}
	if err := put(path, []byte(text), mode); err != nil {
		return false, fmt.Errorf("writing the AWS configuration: %w", err)
	}
	return true, nil
}

// Replace writes a file of its owner's alone, whole or not at all, and the folder
// around it.
func Replace(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the folder of %s: %w", path, err)
	}
	if err := put(path, text, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// put writes a file whole or not at all.
func put(path string, text []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Chmod(f.Name(), mode)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
