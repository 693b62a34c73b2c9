package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

type example struct {
	Listen   string        `env:"SERVAL_LISTEN" envDefault:":8080" usage:"address to listen on"`
	URL      string        `env:"SERVAL_PUBLIC_URL,required" usage:"own origin"`
	Secret   serval.Secret `env:"SERVAL_SECRET,required" usage:"root secret"`
	Expiry   time.Duration `env:"SERVAL_REQUEST_EXPIRY" envDefault:"168h" usage:"how long a request waits"`
	NoLease  bool          `env:"SERVAL_NO_LEASE" usage:"lead without a Lease"`
	CertFile string        `env:"SERVAL_TLS_CERT_FILE" usage:"certificate"`
}

func flagsOf(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Flags(flags, new(example))
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags
}

func TestReadTakesDefaultsEnvironmentFilesAndFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("from a file\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got example
	faults := Read(&got, []string{
		"SERVAL_PUBLIC_URL=https://a.example.com", "SERVAL_SECRET_FILE=" + file, "HOME=/",
		"SERVAL_TLS_CERT_FILE=/etc/cert.pem", // a path by itself, not a file that holds one
	}, flagsOf(t, "--request-expiry=2h", "--no-lease"))
	if faults != nil {
		t.Fatalf("faults: %q, want none", faults)
	}
	want := example{Listen: ":8080", URL: "https://a.example.com", Expiry: 2 * time.Hour, NoLease: true, CertFile: "/etc/cert.pem"}
	if secret := got.Secret.Reveal(); secret != "from a file\n" {
		t.Errorf("the secret is %q; want the file's text without one trailing newline", secret)
	}
	got.Secret = serval.Secret{}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(serval.Secret{})); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

func TestFlagsWinAndSecretsAreNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("by flag"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := flagsOf(t, "--listen=:1", "--secret-file="+file)
	if flags.Lookup("secret") != nil {
		t.Error("there is a flag --secret; a secret must not be in a process list")
	}
	var got example
	faults := Read(&got, []string{"SERVAL_LISTEN=:2", "SERVAL_SECRET=by environment", "SERVAL_PUBLIC_URL=x"}, flags)
	if faults != nil {
		t.Fatalf("faults: %q, want none", faults)
	}
	if got.Listen != ":1" || got.Secret.Reveal() != "by flag" {
		t.Errorf("listen %q and secret %q, want those of the flags", got.Listen, got.Secret.Reveal())
	}
}

// The manual's own words for a setting's absence are taken as they stand in it.
func TestReadTakesTheWordsOfTheManual(t *testing.T) {
	type settings struct {
		Offline bool          `env:"SERVAL_OIDC_OFFLINE" usage:"off"`
		MaxAge  time.Duration `env:"SERVAL_OIDC_MAX_AGE" absent:"off" bare:"s" usage:"off"`
		Expiry  time.Duration `env:"SERVAL_REQUEST_EXPIRY" usage:"no number without a unit"`
		Proxies string        `env:"SERVAL_TRUSTED_PROXIES" absent:"none" usage:"none"`
		Listen  string        `env:"SERVAL_LISTEN" usage:"no absence"`
	}
	for _, test := range []struct {
		given []string
		want  settings
		fault string
	}{
		{[]string{"SERVAL_OIDC_OFFLINE=on"}, settings{Offline: true}, ""},
		{[]string{"SERVAL_OIDC_OFFLINE=off", "SERVAL_OIDC_MAX_AGE=off", "SERVAL_TRUSTED_PROXIES=none"}, settings{}, ""},
		{[]string{"SERVAL_TRUSTED_PROXIES=off", "SERVAL_LISTEN=off"}, settings{Proxies: "off", Listen: "off"}, ""},
		{[]string{"SERVAL_OIDC_MAX_AGE=none"}, settings{}, "SERVAL_OIDC_MAX_AGE: not a duration such as 30s, 5m or 4h."},
		{[]string{"SERVAL_OIDC_MAX_AGE=3600"}, settings{MaxAge: time.Hour}, ""},
		{[]string{"SERVAL_OIDC_MAX_AGE=90m"}, settings{MaxAge: 90 * time.Minute}, ""},
		{[]string{"SERVAL_OIDC_MAX_AGE=0"}, settings{}, "SERVAL_OIDC_MAX_AGE: 0 is not taken; off is how none is said."},
		{[]string{"SERVAL_OIDC_MAX_AGE="}, settings{}, ""},
		{[]string{"SERVAL_OIDC_MAX_AGE=-1"}, settings{}, "SERVAL_OIDC_MAX_AGE: not a duration such as 30s, 5m or 4h."},
		{[]string{"SERVAL_REQUEST_EXPIRY=3600"}, settings{}, "SERVAL_REQUEST_EXPIRY: not a duration such as 30s, 5m or 4h."},
		{[]string{"SERVAL_OIDC_OFFLINE=ON"}, settings{}, "SERVAL_OIDC_OFFLINE: not true or false, on or off."},
	} {
		var got settings
		faults := strings.Join(Read(&got, test.given, nil), "\n")
		if faults != test.fault || faults == "" && got != test.want {
			t.Errorf("%q: %+v with %q, want %+v with %q", test.given, got, faults, test.want, test.fault)
		}
	}
}

// S-109
func TestReadNamesAllFaultsAtOnce(t *testing.T) {
	var got example
	faults := Read(&got, []string{
		"SERVAL_SECRET=<your secret>",
		"SERVAL_REQUEST_EXPIRY=tomorrow",
		"SERVAL_NO_LEASE=perhaps",
		"SERVAL_LISTN=:1",
		"SERVAL_BRIDGE_SERVICE_HOST=10.0.0.1", "SERVAL_BRIDGE_PORT_80_TCP_ADDR=10.0.0.1", "SERVAL_BRIDGE_PORT=tcp://10.0.0.1:80",
		"SERVAL_UPSTREAM_URL=http://of-another-program",
		"SERVAL_LISTEN=:1", "SERVAL_LISTEN_FILE=/x",
		"SERVAL_TLS_KEY_FILE_FILE=/x",
	}, nil)
	want := []string{
		"SERVAL_LISTEN: given both itself and as SERVAL_LISTEN_FILE; leave one of them out.",
		"SERVAL_LISTN: no such setting; SERVAL_LISTEN may be meant.",
		"SERVAL_NO_LEASE: not true or false, on or off.",
		"SERVAL_PUBLIC_URL: required.",
		"SERVAL_REQUEST_EXPIRY: not a duration such as 30s, 5m or 4h.",
		"SERVAL_SECRET: holds a placeholder; put the real value there.",
	}
	if diff := cmp.Diff(want, faults); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestReadOfAMissingFileDoesNotRepeatItsName(t *testing.T) {
	var got example
	faults := Read(&got, []string{"SERVAL_PUBLIC_URL=x", "SERVAL_SECRET_FILE=canary-of-a-secret"}, nil)
	want := []string{"SERVAL_SECRET_FILE: the file cannot be read: no such file or directory."}
	if diff := cmp.Diff(want, faults); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestPlaceholders(t *testing.T) {
	for value, want := range map[string]bool{
		"<client-id>": true, "changeme": true, "CHANGE-ME": true, "change_me": false, "REPLACE-ME": true, "your-secret": true,
		"xxxx": true, "0oa1b2c3": false, "": false, "a<b>c": false,
	} {
		if got := isPlaceholder(value); got != want {
			t.Errorf("isPlaceholder(%q) = %v, want %v", value, got, want)
		}
	}
}
