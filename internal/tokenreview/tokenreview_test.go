package tokenreview

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	worker = "system:serviceaccount:serval:serval-worker-sa"
	ours   = "serval-bridge"
)

// An apiServer answers TokenReviews as Kubernetes does, and fails the test where
// it is asked for something else.
type apiServer struct {
	*httptest.Server
	t           *testing.T
	connections atomic.Int32

	mu      sync.Mutex
	asked   []string // the tokens
	valid   bool     // of every token
	status  int
	text    string        // in place of an answer
	answer  func(*review) // changes an answer
	stopped chan struct{} // answers wait for it
}

func newAPIServer(t *testing.T) (*apiServer, Config) {
	s := &apiServer{t: t, valid: true, status: http.StatusCreated}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	dir := t.TempDir()
	c := Config{
		Server: s.URL, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt"), Audience: ours, Subject: worker,
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, text := range map[string][]byte{c.TokenFile: []byte("our-own-token\n"), c.CAFile: ca} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s, c
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	var q review
	if err := json.Unmarshal(text, &q); err != nil || q.APIVersion != "authentication.k8s.io/v1" || q.Kind != "TokenReview" ||
		!slices.Equal(q.Spec.Audiences, []string{ours}) || r.Method != "POST" || r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" ||
		r.Header.Get("Authorization") != "Bearer our-own-token" || r.Header.Get("Content-Type") != "application/json" {
		s.t.Errorf("asked %s %s as %q: %s", r.Method, r.URL, r.Header.Get("Authorization"), text)
	}
	s.mu.Lock()
	s.asked = append(s.asked, q.Spec.Token)
	stopped := s.stopped
	s.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Location", s.URL+"/elsewhere") // followed only where it must not be
	w.WriteHeader(s.status)
	if s.text != "" {
		io.WriteString(w, s.text)
		return
	}
	if s.valid {
		q.Status.Authenticated, q.Status.User.Username, q.Status.Audiences = true, worker, []string{ours}
	} else {
		q.Status.Error = "[invalid bearer token, service account token has expired]"
	}
	if s.answer != nil {
		s.answer(&q)
	}
	json.NewEncoder(w).Encode(q)
}

func (s *apiServer) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// token returns a token that says this of itself. Nobody has signed it.
func token(claims string, nth int) serval.Secret {
	return serval.NewSecret("e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + fmt.Sprintf(".%d", nth))
}

func claimsOf(subject, audience string) string {
	return fmt.Sprintf(`{"sub":%q,"aud":[%q],"exp":%d}`, subject, audience, time.Now().Add(time.Hour).Unix())
}

// Who is recognised, and whom the API server is not even asked about.
func TestReview(t *testing.T) {
	good := token(claimsOf(worker, ours), 1)
	for _, c := range []struct {
		name   string
		token  serval.Secret
		answer func(*review) // nil: not asked
		why    string        // empty: recognised
	}{
		{"the worker's", good, func(*review) {}, ""},
		{"the worker's, made out to two", token(fmt.Sprintf(`{"sub":%q,"aud":["x","serval-bridge"]}`, worker), 1), func(*review) {}, ""},
		{"the worker's, made out to one text", token(fmt.Sprintf(`{"sub":%q,"aud":"serval-bridge"}`, worker), 1), func(*review) {}, ""},
		{"one that the API server does not accept", good, func(q *review) { q.Status = reviewStatus{Error: "it has expired"} }, "it has expired"},
		{"one that it says nothing of", good, func(q *review) { q.Status = reviewStatus{} }, "does not accept it"},
		{"one that it did not look at the audience of", good, func(q *review) { q.Status.Audiences = nil }, "does not say that it is made out to"},
		{"one that it knows as made out to others", good, func(q *review) { q.Status.Audiences = []string{"https://kubernetes.default.svc"} }, "does not say that it is made out to"},
		{"one that it knows as another's", good, func(q *review) { q.Status.User.Username = "system:serviceaccount:serval:default" }, "another's"},
		{"one that it knows as another's, beginning like ours", good, func(q *review) { q.Status.User.Username += "2" }, "another's"},
		{"refused, and yet with a name", good, func(q *review) { q.Status.Authenticated = false }, "does not accept it"},

		{"another account's", token(claimsOf("system:serviceaccount:serval:default", ours), 1), nil, "serval-worker-sa is who is recognised"},
		{"another namespace's", token(claimsOf("system:serviceaccount:other:serval-worker-sa", ours), 1), nil, "serval-worker-sa is who is recognised"},
		{"one for the API server", token(claimsOf(worker, "https://kubernetes.default.svc"), 1), nil, "another audience"},
		{"one for nobody", token(fmt.Sprintf(`{"sub":%q}`, worker), 1), nil, "another audience"},
		{"an upstream token", serval.NewSecret("0123456789abcdef0123456789abcdef"), nil, "no service account's token"},
		{"no JSON", token("{", 1), nil, "no service account's token"},
		{"a list", token(`{"sub":[],"aud":{}}`, 1), nil, "no service account's token"},
		{"no base64", serval.NewSecret("e30.?.1"), nil, "no service account's token"},
		{"base64 with more behind it", serval.NewSecret(strings.Replace(good.Reveal(), ".1", "!!.1", 1)), nil, "no service account's token"},
		{"two parts", serval.NewSecret("e30.e30"), nil, "no service account's token"},
		{"four parts", serval.NewSecret(good.Reveal() + ".x"), nil, "no service account's token"},
		{"none", serval.Secret{}, nil, "no service account's token"},
		{"a very long one", serval.NewSecret(good.Reveal() + strings.Repeat("x", longest)), nil, "no service account's token"},
	} {
		s, config := newAPIServer(t)
		s.answer = c.answer
		r := New(config)
		got, err := r.Review(t.Context(), "", c.token)
		r.Close()
		if err != nil || got.OK != (c.why == "") || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: %+v, %v; want %q", c.name, got, err, c.why)
		}
		want := 0
		if c.answer != nil {
			want = 1
		}
		if s.times() != want {
			t.Errorf("%s: the API server was asked %d times, want %d", c.name, s.times(), want)
		}
	}
}

// An API server that gives no answer is unavailable, and nothing is kept of it.
func TestUnavailable(t *testing.T) {
	const because = `{"kind":"Status","message":"tokenreviews.authentication.k8s.io is forbidden: User \"system:serviceaccount:serval:serval-bridge\" cannot create"}`
	for _, c := range []struct {
		name  string
		spoil func(*apiServer, *Config)
		cause string
	}{
		{"forbidden", func(s *apiServer, _ *Config) { s.status, s.text = 403, because }, "this bridge may not create TokenReviews; its service account needs a ClusterRole"},
		{"forbidden, in its words", func(s *apiServer, _ *Config) { s.status, s.text = 403, because }, `User "system:serviceaccount:serval:serval-bridge" cannot create`},
		{"our own token is bad", func(s *apiServer, _ *Config) { s.status, s.text = 401, "no" }, "does not accept this bridge's own token"},
		{"overloaded", func(s *apiServer, _ *Config) { s.status, s.text = 429, "later" }, "answered 429: later"},
		{"broken", func(s *apiServer, _ *Config) { s.status, s.text = 500, "oops" }, "answered 500: oops"},
		{"elsewhere", func(s *apiServer, _ *Config) { s.status, s.text = 307, "there" }, "answered 307: there"},
		{"not found", func(s *apiServer, _ *Config) { s.status, s.text = 404, "what" }, "answered 404"},
		{"no JSON", func(s *apiServer, _ *Config) { s.text = "<html>" }, "something else than a TokenReview"},
		{"another kind", func(s *apiServer, _ *Config) { s.text = `{"kind":"Status","status":{"authenticated":true}}` }, "something else than a TokenReview"},
		{"too long", func(s *apiServer, _ *Config) {
			s.answer = func(q *review) { q.Status.Error = strings.Repeat("x", longestText) }
		}, "something else than a TokenReview"},
		{"gone", func(_ *apiServer, c *Config) { c.Server = "https://127.0.0.1:1" }, "refused"},
		{"no token of ours", func(_ *apiServer, c *Config) { os.Remove(c.TokenFile) }, "our own token"},
		{"no authority", func(_ *apiServer, c *Config) { os.Remove(c.CAFile) }, "the cluster's authority"},
		{"an empty authority", func(_ *apiServer, c *Config) { os.WriteFile(c.CAFile, []byte("x"), 0o600) }, "no certificate"},
		{"another authority", func(s *apiServer, c *Config) {
			c.Server = strings.Replace(s.URL, "127.0.0.1", "localhost", 1) // not in its certificate
		}, "certificate"},
	} {
		s, config := newAPIServer(t)
		c.spoil(s, &config)
		r := New(config)
		got, err := r.Review(t.Context(), "", token(claimsOf(worker, ours), 1))
		if got != (Verdict{}) || !serval.IsRefusal(err, serval.Unavailable) || !strings.Contains(err.Error(), c.cause) {
			t.Errorf("%s: %+v, %v; want Unavailable, because of %q", c.name, got, err, c.cause)
		}
		if refusal, ok := errors.AsType[*serval.Refusal](err); ok && strings.Contains(refusal.Reason, c.cause) {
			t.Errorf("%s: the stranger is told %q", c.name, refusal.Reason)
		}
		if len(r.answers) != 0 {
			t.Errorf("%s: %d answers are kept", c.name, len(r.answers))
		}
		r.Close()
	}
}

// Why a new certificate of the cluster needs no restart.
func TestRotation(t *testing.T) {
	s, config := newAPIServer(t)
	r := New(config)
	defer r.Close()
	right, err := os.ReadFile(config.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	for i, ca := range [][]byte{right, nil, right} {
		if err := os.WriteFile(config.CAFile, ca, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := r.Review(t.Context(), "", token(claimsOf(worker, ours), i))
		if want := ca != nil; v.OK != want || (err == nil) != want {
			t.Errorf("%d: %+v, %v; want recognised %t", i, v, err, want)
		}
	}
	if s.times() != 2 {
		t.Errorf("the API server was asked %d times, want 2", s.times())
	}
	// Five in a row take no connection of their own. (net/http gives one up where whoever
	// writes to it is 50 ms late, as on a busy machine: then it is to be so the next time.)
	most := int32(1)
	for i := range 50 {
		if v, err := r.Review(t.Context(), "", token(claimsOf(worker, ours), 10+i)); !v.OK || err != nil {
			t.Errorf("%+v, %v", v, err)
		}
		if n := s.connections.Load(); i%5 == 4 && n == most {
			return
		} else if i%5 == 4 {
			most = n
		}
	}
	t.Errorf("fifty took %d connections", most)
}

// What was answered is kept: a yes for a minute, and never past the token's end;
// a no for ten seconds; what could not be asked not at all.
func TestCache(t *testing.T) {
	s, config := newAPIServer(t)
	now := time.Now()
	config.Now = func() time.Time { return now }
	r := New(config)
	defer r.Close()
	review := func(nth int, claims string, want bool, times int) {
		t.Helper()
		v, err := r.Review(t.Context(), "", token(claims, nth))
		if err != nil || v.OK != want || s.times() != times {
			t.Errorf("%+v, %v after %d questions; want %t after %d", v, err, s.times(), want, times)
		}
	}
	long := claimsOf(worker, ours)
	review(1, long, true, 1)
	s.valid = false
	now = now.Add(goodFor - time.Second)
	review(1, long, true, 1)
	now = now.Add(time.Second)
	review(1, long, false, 2)
	s.valid = true
	now = now.Add(badFor - time.Second)
	review(1, long, false, 2)
	now = now.Add(time.Second)
	review(1, long, true, 3)

	short := fmt.Sprintf(`{"sub":%q,"aud":[%q],"exp":%d}`, worker, ours, now.Add(5*time.Second).Unix())
	review(2, short, true, 4)
	review(2, short, true, 4)
	now = now.Add(5 * time.Second)
	s.valid = false
	review(2, short, false, 5)

	s.status = 500
	if _, err := r.Review(t.Context(), "", token(long, 3)); !serval.IsRefusal(err, serval.Unavailable) {
		t.Errorf("%v, want Unavailable", err)
	}
	s.valid, s.status = true, http.StatusCreated
	review(3, long, true, 7)
}

// A stranger who makes tokens up fills no memory, and does not push out the
// worker's.
func TestCacheIsBounded(t *testing.T) {
	s, config := newAPIServer(t)
	now := time.Now()
	config.Now = func() time.Time { return now } // however long all these take
	r := New(config)
	defer r.Close()
	claims := claimsOf(worker, ours)
	if v, err := r.Review(t.Context(), "", token(claims, 0)); !v.OK || err != nil {
		t.Fatalf("%+v, %v", v, err)
	}
	s.valid = false
	for i := range 2 * mostKept {
		if v, err := r.Review(t.Context(), "", token(claims, i+1)); v.OK || err != nil {
			t.Fatalf("%+v, %v", v, err)
		}
	}
	asked := s.times()
	if v, err := r.Review(t.Context(), "", token(claims, 0)); !v.OK || err != nil || s.times() != asked {
		t.Errorf("%+v, %v; want the worker's token still recognised, without a question", v, err)
	}
	s.valid = true
	for i := range 2 * mostKept { // also where all are good
		if v, err := r.Review(t.Context(), "", token(claims, 10*mostKept+i)); !v.OK || err != nil {
			t.Fatalf("%+v, %v", v, err)
		}
	}
	if len(r.answers) > mostKept {
		t.Errorf("%d answers are kept, want at most %d", len(r.answers), mostKept)
	}
}

// Many calls with one token are one question, whoever of them goes away.
func TestSingleFlight(t *testing.T) {
	s, config := newAPIServer(t)
	s.stopped = make(chan struct{})
	r := New(config)
	defer r.Close()
	secret := token(claimsOf(worker, ours), 1)
	first, leave := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	calls.Go(func() {
		if v, err := r.Review(first, "", secret); !v.OK || err != nil {
			t.Errorf("the first: %+v, %v", v, err)
		}
	})
	for s.times() == 0 {
		time.Sleep(time.Millisecond)
	}
	leave()
	for range 20 {
		calls.Go(func() {
			if v, err := r.Review(t.Context(), "", secret); !v.OK || err != nil {
				t.Errorf("one that waits: %+v, %v", v, err)
			}
		})
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Review(gone, "", secret); !errors.Is(err, context.Canceled) {
		t.Errorf("one that does not wait: %v", err)
	}
	close(s.stopped)
	calls.Wait()
	if s.times() != 1 {
		t.Errorf("the API server was asked %d times, want once", s.times())
	}
}

// An API server that hangs holds nobody up for longer than five seconds, also
// not those who wait for their turn; and what is on its way has a bound.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{Server: "https://api.example.com", Audience: ours, Subject: worker, TokenFile: os.DevNull, CAFile: os.DevNull})
		for range mostAtOnce {
			r.turns <- struct{}{}
		}
		claims := claimsOf(worker, ours)
		began := time.Now()
		var calls sync.WaitGroup
		for i := range mostKept {
			calls.Go(func() {
				if _, err := r.Review(t.Context(), "", token(claims, i)); !serval.IsRefusal(err, serval.Unavailable) || !errors.Is(err, errBusy) {
					t.Errorf("%v, want Unavailable", err)
				}
			})
		}
		synctest.Wait()
		if _, err := r.Review(t.Context(), "", token(claims, mostKept)); !errors.Is(err, errBusy) || time.Since(began) != 0 {
			t.Errorf("one too many: %v after %s, want busy at once", err, time.Since(began))
		}
		calls.Wait()
		if took := time.Since(began); took != patience {
			t.Errorf("it took %s, want %s", took, patience)
		}
	})
}

// S-84: of one network two are under review at a time, however many it makes up,
// and others have the rest.
func TestOneNetworkLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{Server: "https://api.example.com", Audience: ours, Subject: worker, TokenFile: os.DevNull, CAFile: os.DevNull})
		for range mostAtOnce {
			r.turns <- struct{}{}
		}
		claims := claimsOf(worker, ours)
		review := func(from string, i int) error {
			_, err := r.Review(t.Context(), from, token(claims, i))
			return err
		}
		var calls sync.WaitGroup
		began := time.Now()
		for i := range 20 {
			calls.Go(func() { _ = review("203.0.113.7", i) })
		}
		synctest.Wait()
		if n := len(r.answers); n != mostFrom {
			t.Errorf("%d reviews of one network are under way, want %d", n, mostFrom)
		}
		for i, from := range []string{"203.0.113.8", "2001:db8::1", ""} {
			calls.Go(func() { _ = review(from, 100+i) })
		}
		synctest.Wait()
		if n := len(r.answers); n != mostFrom+3 {
			t.Errorf("%d reviews are under way, want those of three more", n)
		}
		if err := review("203.0.113.7", 200); !serval.IsRefusal(err, serval.Unavailable) || time.Since(began) != 0 {
			t.Errorf("one more of the network: %v after %s, want busy at once", err, time.Since(began))
		}
		calls.Wait()
		if len(r.from) != 0 {
			t.Errorf("%v are counted when all is over", r.from)
		}
	})
}

// A token is read before anybody has vouched for it.
func FuzzRead(f *testing.F) {
	f.Add(token(claimsOf(worker, ours), 1).Reveal())
	f.Add("e30.eyJzdWIiOiJ4IiwiYXVkIjoieCJ9.x")
	f.Add("..")
	r := New(Config{Audience: ours, Subject: worker})
	f.Fuzz(func(t *testing.T, text string) {
		c, why := r.read(text)
		if why == "" && (c.Subject != worker || !slices.Contains(c.Audience, ours) || strings.Count(text, ".") != 2 || len(text) > longest) {
			t.Errorf("%q passes as %+v", text, c)
		}
	})
}
