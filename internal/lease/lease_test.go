package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordination "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

const (
	namespace = "serval"
	name      = "serval-worker-0"
	path      = "/apis/coordination.k8s.io/v1/namespaces/" + namespace + "/leases"
)

// An apiServer keeps one Lease as Kubernetes does: it refuses what was written
// over an older version, and whoever asks for something else fails the test.
type apiServer struct {
	t       *testing.T
	latency time.Duration

	mu     sync.Mutex
	lease  *coordination.Lease
	count  int                 // of versions
	holder []string            // each in turn
	reason metav1.StatusReason // of a refusal; none: it answers
	away   bool                // it takes every request and never answers
	lost   bool                // it does what is asked and its answer never comes
	park   bool                // it does what is written after the next reading, and its answer never comes
	parked func()
}

// A replica is one process before it.
type replica struct {
	*apiServer
	identity string
}

func (r *replica) RoundTrip(q *http.Request) (*http.Response, error) {
	var body []byte
	if q.Body != nil {
		body, _ = io.ReadAll(q.Body)
	}
	time.Sleep(r.latency)
	r.mu.Lock()
	silent := r.away || r.lost
	var answer *http.Response
	switch {
	case r.away:
	case r.park && q.Method == "PUT":
		r.park, silent, r.parked = false, true, func() { r.answer(q, body) }
	default:
		answer = r.answer(q, body)
		if r.parked != nil {
			r.parked()
			r.parked = nil
		}
	}
	r.mu.Unlock()
	if silent {
		<-q.Context().Done()
		return nil, q.Context().Err()
	}
	return answer, nil
}

func (r *replica) answer(q *http.Request, body []byte) *http.Response {
	if got := q.Header.Get("Authorization"); got != "Bearer the-token" {
		r.t.Errorf("%s came with the authorization %q", r.identity, got)
	}
	verbs := map[string]string{"GET": "get", "POST": "create", "PUT": "update"}
	switch {
	case r.reason == metav1.StatusReasonForbidden:
		return status(403, r.reason, fmt.Sprintf("leases.coordination.k8s.io %q is forbidden: User \"system:serviceaccount:serval:serval-worker-sa\" "+
			"cannot %s resource \"leases\" in API group \"coordination.k8s.io\" in the namespace %q", name, verbs[q.Method], namespace))
	case r.reason == metav1.StatusReasonUnauthorized:
		return status(401, r.reason, "Unauthorized")
	case r.reason != "":
		return status(500, r.reason, "not today")
	case q.Method == "GET" && q.URL.Path == path+"/"+name:
		if r.lease == nil {
			return status(404, metav1.StatusReasonNotFound, "not found")
		}
		return reply(200, r.lease)
	}
	var l coordination.Lease
	if err := json.Unmarshal(body, &l); err != nil {
		r.t.Errorf("%s sent %q: %v", r.identity, body, err)
		return status(400, metav1.StatusReasonBadRequest, "no JSON")
	}
	switch {
	case l.Name != name || l.Namespace != namespace:
		r.t.Errorf("%s writes %s/%s", r.identity, l.Namespace, l.Name)
	case *l.Spec.LeaseDurationSeconds < 1:
		r.t.Errorf("%s holds it for %d s", r.identity, *l.Spec.LeaseDurationSeconds)
	case *l.Spec.HolderIdentity != r.identity && *l.Spec.HolderIdentity != "":
		r.t.Errorf("%s makes %s its holder", r.identity, *l.Spec.HolderIdentity)
	case q.Method == "POST" && q.URL.Path == path && r.lease != nil:
		return status(409, metav1.StatusReasonAlreadyExists, "it exists")
	case q.Method == "POST" && q.URL.Path == path:
		return r.keep(201, &l)
	case q.Method == "PUT" && q.URL.Path == path+"/"+name && (r.lease == nil || l.ResourceVersion != r.lease.ResourceVersion):
		return status(409, metav1.StatusReasonConflict, "the object has been modified")
	case q.Method == "PUT" && q.URL.Path == path+"/"+name:
		return r.keep(200, &l)
	}
	r.t.Errorf("%s asked for %s %s", r.identity, q.Method, q.URL.Path)
	return status(405, metav1.StatusReasonMethodNotAllowed, "no")
}

func (s *apiServer) keep(code int, l *coordination.Lease) *http.Response {
	s.count++
	l.ResourceVersion = strconv.Itoa(s.count)
	s.lease = l
	if h := *l.Spec.HolderIdentity; len(s.holder) == 0 || s.holder[len(s.holder)-1] != h {
		s.holder = append(s.holder, h)
	}
	return reply(code, l)
}

func (s *apiServer) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func reply(code int, v any) *http.Response {
	body, _ := json.Marshal(v)
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body))}
}

func status(code int, reason metav1.StatusReason, message string) *http.Response {
	return reply(code, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Message: message, Code: int32(code),
	})
}

// An election is candidates before one API server. No two of them may work at
// once.
type election struct {
	*apiServer
	token string

	mu      sync.Mutex
	working string
	log     []string // who began and who ended
	states  map[string]State
	errs    []error // that were told
	ended   sync.WaitGroup
}

func newElection(t *testing.T) *election {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("the-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &election{apiServer: &apiServer{t: t}, token: token, states: map[string]State{}}
}

// stand makes a candidate whose work takes so long to end.
func (e *election) stand(ctx context.Context, identity string, ending time.Duration) *replica {
	r := &replica{apiServer: e.apiServer, identity: identity}
	c := Config{
		Server: "https://api.example.com", TokenFile: e.token, Namespace: namespace, Name: name, Identity: identity,
		transport: r,
		Changed: func(s State) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.states[identity] = s
			if s.Err != nil {
				e.errs = append(e.errs, s.Err)
			}
		},
	}
	e.ended.Go(func() {
		err := Lead(ctx, c, func(ctx context.Context) {
			e.mu.Lock()
			if e.working != "" {
				e.t.Errorf("%s began while %s was at work", identity, e.working)
			}
			e.working = identity
			e.log = append(e.log, identity+" began")
			e.mu.Unlock()
			<-ctx.Done()
			time.Sleep(ending)
			e.mu.Lock()
			defer e.mu.Unlock()
			e.working = ""
			e.log = append(e.log, identity+" ended")
		})
		if err != nil {
			e.t.Errorf("%s: %v", identity, err)
		}
	})
	return r
}

// is demands what has happened so far, and who holds the Lease.
func (e *election) is(holder string, log ...string) {
	e.t.Helper()
	synctest.Wait()
	e.apiServer.mu.Lock()
	defer e.apiServer.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if got, want := strings.Join(e.log, ", "), strings.Join(log, ", "); got != want {
		e.t.Errorf("so far: %s\nwant:   %s", got, want)
	}
	if e.lease == nil {
		e.t.Errorf("there is no Lease; the candidates stand at %+v", e.states)
		return
	}
	if got := *e.lease.Spec.HolderIdentity; got != holder {
		e.t.Errorf("%q holds the Lease, want %q", got, holder)
	}
}

// calm demands that nothing was told as an error.
func (e *election) calm() {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.errs) > 0 {
		e.t.Errorf("it was told of %v", e.errs)
	}
}

func (e *election) state(identity string) State {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.states[identity]
}

// One of two leads and the other stands by. Told to stop, the leader gives the
// Lease up when its work has ended, and not before.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		first, stop := context.WithCancel(t.Context())
		e.stand(first, "a", 40*time.Second) // longer than the Lease lasts
		time.Sleep(time.Second)
		second, stop2 := context.WithCancel(t.Context())
		e.stand(second, "b", 0)
		time.Sleep(time.Hour)
		e.is("a", "a began")
		if got, want := e.state("a"), (State{Leading: true, Holder: "a"}); got != want {
			t.Errorf("a stands at %+v, want %+v", got, want)
		}
		if got, want := e.state("b"), (State{Holder: "a"}); got != want {
			t.Errorf("b stands at %+v, want %+v", got, want)
		}
		stop()
		time.Sleep(39 * time.Second)
		e.is("a", "a began") // its work has not returned
		time.Sleep(1*time.Second + time.Duration(2.2*float64(DefaultRetryPeriod)))
		e.is("b", "a began", "a ended", "b began")
		stop2()
		e.ended.Wait()
		e.is("", "a began", "a ended", "b began", "b ended")
		e.calm()
	})
}

// Two who begin at the same instant are no trouble.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		e.latency = time.Millisecond
		ctx, stop := context.WithCancel(t.Context())
		for _, identity := range []string{"a", "b", "c"} {
			e.stand(ctx, identity, 0)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(e.log) != 1 {
			t.Errorf("so far: %v; want one to have begun", e.log)
		}
		stop()
		e.ended.Wait()
		e.calm()
	})
}

// A renewal that is on its way when the Lease is given up does not take it back.
func TestLateRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		ctx, stop := context.WithCancel(t.Context())
		e.stand(ctx, "a", 0)
		time.Sleep(time.Minute)
		e.apiServer.set(func() { e.park = true })
		time.Sleep(DefaultRetryPeriod + time.Second)
		stop()
		e.ended.Wait()
		e.is("", "a began", "a ended")
		e.calm()
		if want := []string{"a", ""}; !slices.Equal(e.holder, want) {
			t.Errorf("it was held by %q in turn, want %q", e.holder, want)
		}
	})
}

// Who stands by is told to stop and leaves the Lease as it is.
func TestStandbyStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		ctx, stop := context.WithCancel(t.Context())
		e.stand(ctx, "a", 0)
		time.Sleep(time.Second)
		second, stop2 := context.WithCancel(t.Context())
		e.stand(second, "b", 0)
		time.Sleep(time.Minute)
		stop2()
		e.is("a", "a began")
		stop()
		e.ended.Wait()
	})
}

// A leader whose API server is away works until the renew deadline and no
// longer, and leads again when it is back.
func TestAPIServerAway(t *testing.T) {
	for _, how := range []string{"away", "answers lost", "failing"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newElection(t)
				ctx, stop := context.WithCancel(t.Context())
				e.stand(ctx, "a", 0)
				time.Sleep(time.Minute + time.Millisecond)
				e.apiServer.set(func() {
					switch how {
					case "away":
						e.away = true
					case "answers lost":
						e.lost = true
					default:
						e.reason = metav1.StatusReasonInternalError
					}
				})
				time.Sleep(DefaultRenewDeadline - DefaultRetryPeriod - 2*time.Millisecond)
				if s := e.state("a"); !s.Leading {
					t.Errorf("the work ended before the renew deadline: %+v", s)
				}
				time.Sleep(DefaultRetryPeriod + 2*time.Millisecond)
				e.is("a", "a began", "a ended")
				s := e.state("a")
				if s.Leading || s.Err == nil || !strings.Contains(s.Err.Error(), name) {
					t.Errorf("it stands at %+v; want not leading, and why", s)
				}
				time.Sleep(time.Hour)
				e.apiServer.set(func() { e.away, e.lost, e.reason = false, false, "" })
				time.Sleep(time.Minute)
				e.is("a", "a began", "a ended", "a began")
				if s := e.state("a"); s != (State{Leading: true, Holder: "a"}) {
					t.Errorf("it stands at %+v", s)
				}
				stop()
				e.ended.Wait()
			})
		})
	}
}

// a leader that finds another one in its place ends its work at once, and
// not when its own time is over.
func TestTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		ctx, stop := context.WithCancel(t.Context())
		e.stand(ctx, "a", time.Second)
		time.Sleep(time.Minute + time.Millisecond)
		e.apiServer.set(func() {
			taken := e.lease.DeepCopy()
			*taken.Spec.HolderIdentity = "b"
			e.keep(200, taken)
		})
		time.Sleep(DefaultRetryPeriod)
		if s := e.state("a"); s.Holder != "b" {
			t.Errorf("it stands at %+v, want b as holder", s)
		}
		time.Sleep(time.Second)
		e.is("b", "a began", "a ended")
		e.calm()
		if s := e.state("a"); s != (State{Holder: "b"}) {
			t.Errorf("it stands at %+v, want only b as holder", s)
		}
		// b never renews it, and so a leads again.
		time.Sleep(DefaultDuration + 3*DefaultRetryPeriod)
		e.is("a", "a began", "a ended", "a began")
		stop()
		e.ended.Wait()
	})
}

// A Lease that somebody deletes is nobody's: the work ends and begins anew.
func TestDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		ctx, stop := context.WithCancel(t.Context())
		e.stand(ctx, "a", 0)
		time.Sleep(time.Minute)
		e.apiServer.set(func() { e.lease = nil })
		time.Sleep(time.Minute)
		e.is("a", "a began", "a ended", "a began")
		stop()
		e.ended.Wait()
	})
}

// What is missing is named, asked for again, and enough when it is there.
func TestRights(t *testing.T) {
	for reason, want := range map[metav1.StatusReason]string{
		metav1.StatusReasonForbidden: "the service account may not get the Lease serval-worker-0 in the namespace serval; give it a Role there with get, " +
			"create and update on leases of the API group coordination.k8s.io: leases.coordination.k8s.io \"serval-worker-0\" is forbidden: " +
			"User \"system:serviceaccount:serval:serval-worker-sa\" cannot get resource \"leases\" in API group \"coordination.k8s.io\" in the namespace \"serval\"",
		metav1.StatusReasonUnauthorized: "the API server does not accept the token in TOKEN: Unauthorized",
	} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newElection(t)
				e.reason = reason
				ctx, stop := context.WithCancel(t.Context())
				e.stand(ctx, "a", 0)
				time.Sleep(time.Hour)
				s := e.state("a")
				if s.Leading || s.Err == nil || strings.ReplaceAll(s.Err.Error(), e.token, "TOKEN") != want {
					t.Errorf("it stands at %+v, want not leading and:\n%s", s, want)
				}
				e.apiServer.set(func() { e.reason = "" })
				time.Sleep(3 * DefaultRetryPeriod)
				e.is("a", "a began")
				stop()
				e.ended.Wait()
			})
		})
	}
}

// Told to stop while nothing answers, a candidate stops all the same.
func TestStopsWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		ctx, stop := context.WithCancel(t.Context())
		e.stand(ctx, "a", 0)
		time.Sleep(time.Minute)
		e.apiServer.set(func() { e.away = true })
		time.Sleep(DefaultRetryPeriod + time.Second) // it is asking
		began := time.Now()
		stop()
		e.ended.Wait()
		e.calm()
		if took := time.Since(began); took > DefaultRetryPeriod {
			t.Errorf("it took %s to stop", took)
		}
	})
}

// Work that returns by itself ends it all, and the Lease is free.
func TestWorkReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		err := Lead(t.Context(), Config{
			Server: "https://api.example.com", TokenFile: e.token, Namespace: namespace, Name: name, Identity: "a",
			transport: &replica{apiServer: e.apiServer, identity: "a"},
		}, func(context.Context) { e.log = append(e.log, "worked") })
		if err != nil {
			t.Error(err)
		}
		e.is("", "worked")
	})
}

// A process that was stopped for longer than it may has no context to work with
// when it goes on, whatever its election believes.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &candidate{c: Config{Identity: "a", RenewDeadline: DefaultRenewDeadline}}
		m.wrote(t.Context(), "update", "a", time.Now().Add(-DefaultRenewDeadline), nil)
		ctx, lose := context.WithCancelCause(t.Context())
		m.begin(lose)
		synctest.Wait()
		if !errors.Is(context.Cause(ctx), errLate) {
			t.Errorf("the work's context ended by %v, want by %v", context.Cause(ctx), errLate)
		}
		m.finish(true)
		if m.state.Err != errLate || m.state.Leading {
			t.Errorf("it stands at %+v", m.state)
		}
	})
}

// A candidate that was elected and has since seen another does not begin.
func TestTakenBeforeBegin(t *testing.T) {
	m := &candidate{c: Config{Identity: "a", RenewDeadline: time.Hour}}
	m.wrote(t.Context(), "update", "a", time.Now(), nil)
	m.saw("b")
	ctx, lose := context.WithCancelCause(t.Context())
	m.begin(lose)
	if context.Cause(ctx) != errTaken {
		t.Errorf("the work's context: %v, want %v", context.Cause(ctx), errTaken)
	}
	m.finish(false)
}

// What client-go has to say is not written beside our own lines, and its calls go
// by no proxy.
func TestClient(t *testing.T) {
	var said bytes.Buffer
	klog.LogToStderr(false)
	klog.SetOutput(&said)
	defer klog.LogToStderr(true)
	synctest.Test(t, func(t *testing.T) {
		e := newElection(t)
		e.reason = metav1.StatusReasonForbidden
		ctx, stop := context.WithCancel(t.Context())
		e.stand(ctx, "a", 0)
		time.Sleep(time.Minute)
		e.apiServer.set(func() { e.reason = "" })
		time.Sleep(time.Minute)
		stop()
		e.ended.Wait()
	})
	klog.Flush()
	if said.Len() > 0 {
		t.Errorf("client-go wrote:\n%s", said.String())
	}
	t.Setenv("HTTPS_PROXY", "http://proxy.example.com")
	c := Config{Server: "https://10.96.0.1"}
	q, err := http.NewRequest("GET", c.Server, nil)
	if err != nil {
		t.Fatal(err)
	}
	if proxy, err := c.rest().Proxy(q); proxy != nil || err != nil {
		t.Errorf("it goes by the proxy %s (%v)", proxy, err)
	}
}

func TestConfig(t *testing.T) {
	good := Config{Server: "https://127.0.0.1:1", TokenFile: newElection(t).token, Namespace: namespace, Name: name, Identity: "a"}
	for want, change := range map[string]func(*Config){
		"needs a namespace": func(c *Config) { c.Namespace = "" },
		"a name":            func(c *Config) { c.Name = "" },
		"an identity":       func(c *Config) { c.Identity = "" },
		"whole seconds":     func(c *Config) { c.Duration = 15500 * time.Millisecond },
		"no such file":      func(c *Config) { c.CAFile = filepath.Join(t.TempDir(), "none") },
		"must be greater":   func(c *Config) { c.RenewDeadline = DefaultDuration },
	} {
		c := good
		change(&c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := Lead(ctx, c, func(context.Context) {})
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want something with %q", err, want)
		}
	}
}
