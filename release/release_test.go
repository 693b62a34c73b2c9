// Package release is how Serval is shipped: images, chart, client, checksums and
// what is in each (dry-run.sh). The tests build the images as the Dockerfile says,
// with the build image's name substituted, and look into them.
package release

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stage skips a test outside of its stage, make test-release, which has what it
// needs.
func stage(t *testing.T) {
	t.Helper()
	if os.Getenv("TEST_RELEASE") == "" {
		t.Skip("this builds what is shipped: run make test-release")
	}
	for _, name := range []string{"buildah", "busybox", "go"} {
		path, err := exec.LookPath(name)
		if err == nil && (name != "busybox" || isStatic(path)) {
			continue
		}
		why := fmt.Sprintf("there is no %s here that runs in an image: Debian packages buildah and busybox-static", name)
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	if os.Geteuid() != 0 {
		t.Skip("buildah builds here as root only")
	}
}

// isStatic reports whether a program needs no libraries beside it.
func isStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	return err == nil && len(libraries) == 0
}

const version = "0.0.0-test"

// mostSize is what one image may be.
const mostSize = 40 << 20

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = ".."
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, out.String(), said.String())
	}
	return out.String()
}

func env(t *testing.T, name string) string { return strings.TrimSpace(run(t, "go", "env", name)) }

// A builder is a buildah of its own, with a build image that holds no more than
// the Dockerfile asks of one: a shell, a few commands and the public authorities.
// Go and its caches are the machine's.
type builder struct{ dir string }

func newBuilder(t *testing.T) *builder {
	b := &builder{t.TempDir()}
	t.Cleanup(func() {
		// Layers may hold what RemoveAll of the test's folder may not enter.
		_ = exec.Command("buildah", b.args("rm", "--all")...).Run()
		_ = exec.Command("buildah", b.args("rmi", "--all", "--force")...).Run()
	})
	base := filepath.Join(b.dir, "base")
	for _, dir := range []string{"bin", "tmp", "root", "etc/ssl/certs", "usr/local/go"} {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{busybox: "bin/busybox", "/etc/ssl/certs/ca-certificates.crt": "etc/ssl/certs/ca-certificates.crt"} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, to), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sh", "mkdir", "cp", "chown"} {
		if err := os.Symlink("busybox", filepath.Join(base, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(b.dir, "Dockerfile")
	text := "FROM scratch\nCOPY base/ /\nENV PATH=/usr/local/go/bin:/bin HOME=/root GOTOOLCHAIN=local GOPROXY=off GOMODCACHE=/go/mod GOCACHE=/go/cache\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "buildah", b.args("bud", "--isolation", "chroot", "-t", "localhost/go:1", "-f", file, b.dir)...)
	return b
}

func (b *builder) args(args ...string) []string {
	return append([]string{"--root", filepath.Join(b.dir, "root"), "--runroot", filepath.Join(b.dir, "run"), "--storage-driver", "vfs"}, args...)
}

// build builds a target of the Dockerfile and returns its archive, unpacked.
func (b *builder) build(t *testing.T, target string) string {
	dir := t.TempDir()
	tmp := filepath.Join(b.dir, "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "buildah", b.args("bud", "--isolation", "chroot", "--pull-never", "--no-cache", "--timestamp", "0",
		"--build-arg", "GO_IMAGE=localhost/go:1", "--build-arg", "VERSION="+version, "--build-arg", "REVISION=abc",
		"-v", env(t, "GOROOT")+":/usr/local/go:ro", "-v", env(t, "GOMODCACHE")+":/go/mod:ro", "-v", env(t, "GOCACHE")+":/go/cache", "-v", tmp+":/tmp",
		"--target", target, "-t", "localhost/"+target+":1", ".")...)
	run(t, "buildah", b.args("push", "localhost/"+target+":1", "oci:"+dir)...)
	return dir
}

// A blob is a part of an image's archive, by what refers to it.
type blob struct{ Digest string }

func (b blob) read(t *testing.T, dir string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "blobs", strings.Replace(b.Digest, ":", "/", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

// S-101, S-110: what is in each image, and that two builds of it are the same to
// the byte.
func TestImages(t *testing.T) {
	stage(t)
	b := newBuilder(t)
	for _, c := range []struct {
		target, says string
		command      []string
		files        []string
	}{
		{"serval-bridge", "serval-bridge " + version + " ", []string{"serve"}, []string{"LICENCES.txt", "etc", "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt", "serval-bridge", "var", "var/lib", "var/lib/serval"}},
		{"serval-worker", "serval-worker " + version + " ", []string{"run"}, []string{"LICENCES.txt", "etc", "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt", "serval-worker"}},
	} {
		t.Run(c.target, func(t *testing.T) {
			dir := b.build(t, c.target)
			var index struct{ Manifests []blob }
			text, err := os.ReadFile(filepath.Join(dir, "index.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &index); err != nil {
				t.Fatal(err)
			}
			var manifest struct {
				Config blob
				Layers []blob
			}
			index.Manifests[0].read(t, dir, &manifest)
			var image struct {
				Config struct {
					User            string
					Entrypoint, Cmd []string
					Env             []string
					Labels          map[string]string
					ExposedPorts    map[string]any
				}
			}
			manifest.Config.read(t, dir, &image)
			if image.Config.User != "65532:65532" || !slices.Equal(image.Config.Entrypoint, []string{"/" + c.target}) || !slices.Equal(image.Config.Cmd, c.command) {
				t.Errorf("it runs %v %v as %q", image.Config.Entrypoint, image.Config.Cmd, image.Config.User)
			}
			for label, want := range map[string]string{
				"title": c.target, "version": version, "revision": "abc", "licenses": "Apache-2.0", "source": "https://github.com/serval-bridge/serval-bridge",
			} {
				if got := image.Config.Labels["org.opencontainers.image."+label]; got != want {
					t.Errorf("label %s is %q, want %q", label, got, want)
				}
			}
			if len(manifest.Layers) != 1 {
				t.Fatalf("%d layers, want one", len(manifest.Layers))
			}

			root := t.TempDir()
			run(t, "tar", "-x", "-C", root, "-f", filepath.Join(dir, "blobs", strings.Replace(manifest.Layers[0].Digest, ":", "/", 1)))
			var files []string
			var size int64
			err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if path == root || err != nil {
					return err
				}
				info, err := d.Info()
				if err != nil {
					return err
				}
				owner := info.Sys().(*syscall.Stat_t).Uid
				name := strings.TrimPrefix(path, root+"/")
				if data := name == "var/lib/serval"; data != (owner == 65532) || info.Mode().Perm()&0o022 != 0 {
					t.Errorf("%s is of UID %d, with mode %v", name, owner, info.Mode())
				}
				files, size = append(files, name), size+info.Size()
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.files, files); diff != "" {
				t.Errorf("files, -want +got:\n%s", diff)
			}
			if size > mostSize {
				t.Errorf("the image is %d bytes, at most %d", size, mostSize)
			}
			t.Logf("%s: %.1f MB", c.target, float64(size)/1e6)

			program := filepath.Join(root, c.target)
			checkStatic(t, program)
			confined := exec.Command("/"+c.target, "version")
			confined.Env = []string{}
			confined.Dir = "/"
			confined.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
			if said, err := confined.CombinedOutput(); err != nil || !strings.HasPrefix(string(said), c.says) {
				t.Errorf("it says of its version %q, %v; want %q", said, err, c.says)
			}

			again := b.build(t, c.target)
			if one, two := sum(t, filepath.Join(dir, "index.json")), sum(t, filepath.Join(again, "index.json")); one != two {
				t.Error("two builds have different digests")
			}
		})
	}
}

// checkStatic fails the test unless the program needs no other file to run, and
// is built as the Dockerfile says.
func checkStatic(t *testing.T, program string) {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is linked dynamically", program)
		}
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range info.Settings {
		if s.Key == "CGO_ENABLED" && s.Value != "0" || s.Key == "-trimpath" && s.Value != "true" || strings.HasPrefix(s.Key, "vcs") {
			t.Errorf("built with %s=%s", s.Key, s.Value)
		}
	}
}

func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// What the Dockerfile says holds without an engine: nothing is built on a name
// that may be another image tomorrow but the build image, whose Go is the
// module's, and no secret is an argument.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var from []string
	for _, m := range regexp.MustCompile(`(?m)^FROM (.*)$`).FindAllStringSubmatch(string(text), -1) {
		from = append(from, m[1])
	}
	want := []string{"--platform=$BUILDPLATFORM ${GO_IMAGE} AS build", "scratch AS serval-bridge", "scratch AS serval-worker"}
	if diff := cmp.Diff(want, from); diff != "" {
		t.Errorf("stages, -want +got:\n%s", diff)
	}
	image := regexp.MustCompile(`(?m)^ARG GO_IMAGE=docker\.io/library/golang:([0-9.]+)-`).FindStringSubmatch(string(text))
	module, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	needs := regexp.MustCompile(`(?m)^go ([0-9]+\.[0-9]+)`).FindStringSubmatch(string(module))
	if image == nil || needs == nil || !strings.HasPrefix(image[1], needs[1]+".") {
		t.Errorf("the build image is %q, and the module needs Go %q", image, needs)
	}
	if strings.Contains(string(text), "USER root") || strings.Count(string(text), "USER 65532:65532") != 2 {
		t.Error("both images run as 65532")
	}
}
