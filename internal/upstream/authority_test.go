package upstream_test

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/upstream"
)

// An upstream with an authority of its own is believed by that file and by
// nothing else; when the file changes the next connection goes by it.
func TestCAFile(t *testing.T) {
	f := newFar(t)
	s := httptest.NewTLSServer(f)
	defer s.Close()
	ours := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	path := filepath.Join(t.TempDir(), "ca.crt")
	ask := func(caFile string) error {
		c, err := upstream.New(upstream.Config{
			BaseURL: s.URL + "/base", CAFile: caFile, Token: func() (serval.Secret, error) { return serval.NewSecret(f.token), nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Accounts(t.Context(), "a b", 30*time.Second)
		return err
	}
	if err := ask(""); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the file: %v, want that the certificate is not believed", err)
	}
	for _, c := range []struct{ name, text, want string }{
		{"its own", ours, ""},
		{"no certificate", "x", "there is no certificate (PEM) in"},
		{"its own again", ours, ""},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ask(path); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
