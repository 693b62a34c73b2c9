package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// S-108: which secrets can be read again, and from where.
func TestSecretFiles(t *testing.T) {
	type config struct {
		Key     serval.Secret `env:"SERVAL_SECRET"`
		Client  serval.Secret `env:"SERVAL_OIDC_CLIENT_SECRET"`
		Hook    serval.Secret `env:"SERVAL_WEBHOOK_SECRET"`
		Plain   string        `env:"SERVAL_OIDC_ISSUER"`
		KeyFile string        `env:"SERVAL_TLS_KEY_FILE"`
	}
	var c config
	flags := pflag.NewFlagSet("x", pflag.ContinueOnError)
	Flags(flags, &c)
	if err := flags.Parse([]string{"--oidc-client-secret-file", "/by/flag"}); err != nil {
		t.Fatal(err)
	}
	environ := []string{"SERVAL_SECRET_FILE=/key", "SERVAL_OIDC_CLIENT_SECRET=itself", "SERVAL_WEBHOOK_SECRET=itself", "SERVAL_OIDC_ISSUER_FILE=/issuer", "SERVAL_TLS_KEY_FILE=/tls"}
	want := map[string]string{"SERVAL_SECRET": "/key", "SERVAL_OIDC_CLIENT_SECRET": "/by/flag"}
	if diff := cmp.Diff(want, SecretFiles(&c, environ, flags)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// What is read again is what was read at first, and what cannot be one is an error
// that tells nothing of it.
func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "canary")
	for _, test := range []struct{ text, want, fault string }{
		{"s3cret", "s3cret", ""},
		{"s3cret\n", "s3cret", ""},
		{"s3cret\r\n", "s3cret", ""},
		{" s3cret \n\n", " s3cret \n", ""},
		{"", "", "empty"},
		{"\n", "", "empty"},
		{"<the secret>", "", "placeholder"},
		{"changeme\n", "", "placeholder"},
		{strings.Repeat("y", maxSecret), strings.Repeat("y", maxSecret), ""},
		{strings.Repeat("y", maxSecret+1), "", "more than"},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSecret(path)
		if got.Reveal() != test.want || (err == nil) != (test.fault == "") || err != nil && (!strings.Contains(err.Error(), test.fault) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%.20q is %.20q, %v; want %.20q, %q", test.text, got.Reveal(), err, test.want, test.fault)
		}
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "canary"), t.TempDir()} {
		if got, err := ReadSecret(path); err == nil || !got.Empty() || strings.Contains(err.Error(), path) {
			t.Errorf("what is no file: %v, %v", got, err)
		}
	}
}
