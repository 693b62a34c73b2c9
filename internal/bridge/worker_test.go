package bridge

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/serval-bridge/serval-bridge/internal/tokenreview"
)

// A worker comes with its service account's token, and the cluster says whose it
// is. The log says why one is not accepted, and the answer does not.
func TestServiceAccountToken(t *testing.T) {
	const subject = "system:serviceaccount:serval:serval-worker-sa"
	cluster := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Spec struct{ Token string } }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		if strings.HasSuffix(q.Spec.Token, ".away") {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		io.WriteString(w, `{"kind":"TokenReview","status":{"authenticated":true,"audiences":["serval-bridge"],"user":{"username":"`+subject+`"}}}`)
	}))
	t.Cleanup(cluster.Close)
	c := config(t)
	dir := t.TempDir()
	c.Workers = &tokenreview.Config{
		Server: cluster.URL, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt"), Audience: "serval-bridge", Subject: subject,
	}
	for name, text := range map[string]string{
		c.Workers.TokenFile: "own", c.Workers.CAFile: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cluster.Certificate().Raw})),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	core, logs := observer.New(zap.InfoLevel)
	c.Log = zap.New(core)
	b := start(t, c)
	for _, test := range []struct {
		sub, end, log string
		status        int
	}{
		{subject, "good", "", 200},
		{"system:serviceaccount:serval:default", "other", "system:serviceaccount:serval:serval-worker-sa is who is recognised", 401},
		{subject, "away", "the API server answered 500", 503},
	} {
		logs.TakeAll()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+b.pages+"/api/v1/upstream/accounts", nil)
		if err != nil {
			t.Fatal(err)
		}
		claims, err := json.Marshal(map[string]any{"sub": test.sub, "aud": []string{"serval-bridge"}})
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer e30."+base64.RawURLEncoding.EncodeToString(claims)+"."+test.end)
		w, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(w.Body)
		w.Body.Close()
		if w.StatusCode != test.status {
			t.Errorf("%s %s answered %d, want %d: %s", test.sub, test.end, w.StatusCode, test.status, text)
		}
		var lines strings.Builder
		for _, l := range logs.All() {
			lines.WriteString(l.Message)
			for _, v := range l.ContextMap() {
				if s, ok := v.(string); ok {
					lines.WriteString(" " + s)
				}
			}
			lines.WriteString("\n")
		}
		if !strings.Contains(lines.String(), test.log) {
			t.Errorf("%s %s: the log does not say %q:\n%s", test.sub, test.end, test.log, lines.String())
		}
		if test.log != "" && strings.Contains(string(text), test.log) {
			t.Errorf("%s %s: the answer says %q", test.sub, test.end, test.log)
		}
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}
