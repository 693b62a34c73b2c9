// Package lease lets one of many replicas work: the one that holds a Lease of
// Kubernetes. It is the only room with client-go.
//
// [Lead] is a candidate until its context ends. While it holds the Lease its
// work runs. Whoever holds the Lease writes so every RetryPeriod; the others
// take it once they have seen no writing for Duration. So the work has to be over
// before that: its context ends when the Lease could not be renewed for
// RenewDeadline, and at once when somebody else is seen to hold it. client-go's
// election tells of neither while it still tries, so a candidate watches what is
// written and read and judges by itself. Time counts on while a process is
// stopped: one that wakes up late finds its context ended.
//
// The Lease is given up when the work has returned, and never before: on the way
// out the next one leads at once, and nothing runs twice.
//
// A Lease is no lock: a process can be held up between looking and acting. What
// the work writes needs a fence of its own; the worker's is the generation that
// its upstream issues.
package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// The defaults of a Config: those of Kubernetes' own controllers.
const (
	DefaultDuration      = 15 * time.Second
	DefaultRenewDeadline = 10 * time.Second
	DefaultRetryPeriod   = 2 * time.Second
)

// A Config says which Lease is led by, and how the API server is reached.
type Config struct {
	Server    string // URL of the API server
	TokenFile string // bearer token; read anew, so that it may be renewed
	CAFile    string // whom to trust as API server

	Namespace string
	Name      string // of the Lease
	Identity  string // who holds it: another one in each process that ever runs

	// Duration is how long nobody else takes the Lease after it was renewed:
	// whole seconds. RenewDeadline, shorter than that, is how long the work goes
	// on after it was renewed; what lies between is for the work to end in.
	// RetryPeriod is how often it is renewed, or asked for. Zero means default.
	Duration, RenewDeadline, RetryPeriod time.Duration

	// Changed, if set, is told how things stand when that has changed, one at a
	// time and in order. It must not wait.
	Changed func(State)

	transport http.RoundTripper // of tests, in place of the network
}

// A State is how a candidate stands.
type State struct {
	Leading bool
	Holder  string // who holds the Lease, as last seen; empty for nobody
	Err     error  // why the Lease could not be read or written the last time
}

// Errors of a Lease that was lost.
var (
	errTaken = errors.New("the Lease is held by another")
	errLate  = errors.New("the Lease was not renewed in time")
)

// Lead runs work whenever it holds the Lease, until ctx ends; then it returns
// nil, after the work has returned and the Lease was given up. The work's context
// ends with ctx or when the Lease is lost; once it has returned then, Lead is a
// candidate again. Where work returns by itself, so does Lead.
//
// An API server that is away, or refuses, is asked again for as long as it takes;
// State tells of it. An error means that the Config cannot work.
func Lead(ctx context.Context, c Config, work func(context.Context)) error {
	c.Duration = cmp.Or(c.Duration, DefaultDuration)
	c.RenewDeadline = cmp.Or(c.RenewDeadline, DefaultRenewDeadline)
	c.RetryPeriod = cmp.Or(c.RetryPeriod, DefaultRetryPeriod)
	switch {
	case c.Namespace == "" || c.Name == "" || c.Identity == "":
		return errors.New("a Lease needs a namespace, a name and an identity that holds it")
	case c.Duration%time.Second != 0:
		return fmt.Errorf("a Lease lasts whole seconds, not %s", c.Duration)
	}
	client, err := coordination.NewForConfig(c.rest())
	if err != nil {
		return c.unusable(err)
	}
	// client-go writes lines of its own; what they say is in State.
	ctx = klog.NewContext(ctx, klog.Logger{})
	m := &candidate{c: c, LeaseLock: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name},
		Client:     client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: c.Identity},
	}}
	for again := true; again; {
		if again, err = m.term(ctx, work); err != nil {
			return err
		}
	}
	return nil
}

// unusable says that no client can be made of the Config.
func (c *Config) unusable(err error) error {
	return fmt.Errorf("taking %s and %s to the API server: %w", c.TokenFile, c.CAFile, err)
}

// explain says what failed, and who can mend it.
func (c *Config) explain(verb string, err error) error {
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("the service account may not %s the Lease %s in the namespace %s; give it a Role there with get, create and update on "+
			"leases of the API group coordination.k8s.io: %w", verb, c.Name, c.Namespace, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server does not accept the token in %s: %w", c.TokenFile, err)
	default:
		return fmt.Errorf("the Lease %s in the namespace %s: %s: %w", c.Name, c.Namespace, verb, err)
	}
}

// rest returns how client-go reaches the API server.
func (c *Config) rest() *rest.Config {
	to := &rest.Config{
		Host: c.Server, BearerTokenFile: c.TokenFile, UserAgent: c.Name,
		Timeout: max(time.Second, c.RenewDeadline/2), // one that hangs leaves time for another try
		// The API server is beside us, whatever proxy the environment names.
		Proxy:         func(*http.Request) (*url.URL, error) { return nil, nil },
		Transport:     c.transport,
		ContentConfig: rest.ContentConfig{ContentType: "application/json"},
	}
	if c.transport == nil {
		to.TLSClientConfig.CAFile = c.CAFile
	}
	return to
}

// A candidate stands between client-go's election and the Lease, and sees all
// that is read and written.
type candidate struct {
	c Config
	*resourcelock.LeaseLock

	mu    sync.Mutex
	state State
	told  bool
	lose  context.CancelCauseFunc // ends the work; without effect once that has returned
	until time.Time               // when work has to end if nothing more is written
	alarm *time.Timer             // set to then
}

// term waits for the Lease, and works while it is held. It reports whether there
// is to be another term.
func (m *candidate) term(ctx context.Context, work func(context.Context)) (again bool, err error) {
	elected := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: m, LeaseDuration: m.c.Duration, RenewDeadline: m.c.RenewDeadline, RetryPeriod: m.c.RetryPeriod, Name: m.c.Name,
		// Not ReleaseOnCancel: that would not wait for the work.
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(elected) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return false, fmt.Errorf("preparing the election: %w", err)
	}
	// The election goes on while the work ends, so that nobody else begins.
	election, end := context.WithCancel(context.WithoutCancel(ctx))
	over := make(chan struct{})
	go func() {
		defer close(over)
		elector.Run(election)
	}()
	defer func() {
		end()
		<-over
		m.giveUp(ctx)
	}()
	select {
	case <-elected:
	case <-over: // elected and lost before we looked
		return true, nil
	case <-ctx.Done():
		return false, nil
	}
	working, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	m.begin(lose)
	work(working)
	lost := ctx.Err() == nil && working.Err() != nil
	m.finish(lost && context.Cause(working) == errLate)
	return lost, nil
}

// begin notes that there is work, which ends by lose.
func (m *candidate) begin(lose context.CancelCauseFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lose = lose
	m.alarm = time.AfterFunc(time.Until(m.until), func() { lose(errLate) })
	if m.state.Holder != m.c.Identity {
		lose(errTaken) // meanwhile
	}
	s := m.state
	s.Leading = true
	m.say(s)
}

// finish notes that the work has returned.
func (m *candidate) finish(late bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.state
	s.Leading = false
	if late && s.Err == nil {
		s.Err = errLate
	}
	m.say(s)
}

// say tells how things stand. The caller holds mu.
func (m *candidate) say(s State) {
	same := s.Leading == m.state.Leading && s.Holder == m.state.Holder && fmt.Sprint(s.Err) == fmt.Sprint(m.state.Err)
	m.state = s
	if m.c.Changed != nil && (!same || !m.told) {
		m.told = true
		m.c.Changed(s)
	}
}

// Get reads the Lease.
func (m *candidate) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := m.LeaseLock.Get(ctx)
	switch {
	case err == nil:
		m.saw(record.HolderIdentity)
	case apierrors.IsNotFound(err):
		m.saw("")
	default:
		m.failed(ctx, "get", err)
	}
	return record, raw, err
}

// Create makes the Lease, held by the record's holder.
func (m *candidate) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	began := time.Now()
	err := m.LeaseLock.Create(ctx, record)
	m.wrote(ctx, "create", record.HolderIdentity, began, err)
	return err
}

// Update takes the Lease, or renews it.
func (m *candidate) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	began := time.Now()
	err := m.LeaseLock.Update(ctx, record)
	m.wrote(ctx, "update", record.HolderIdentity, began, err)
	return err
}

// saw notes who holds the Lease.
func (m *candidate) saw(holder string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lose != nil && holder != m.c.Identity {
		m.lose(errTaken)
	}
	m.say(State{Leading: m.state.Leading, Holder: holder})
}

// wrote notes what came of a writing, which counts from when it began.
func (m *candidate) wrote(ctx context.Context, verb, holder string, began time.Time, err error) {
	switch {
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
		return // somebody was faster; the next reading says who
	case err != nil:
		m.failed(ctx, verb, err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.until = began.Add(m.c.RenewDeadline)
	if m.alarm != nil {
		m.alarm.Reset(time.Until(m.until))
	}
	m.say(State{Leading: m.state.Leading, Holder: holder})
}

// failed notes why the Lease could not be read or written.
func (m *candidate) failed(ctx context.Context, verb string, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return // nobody waits for it any more
	}
	err = m.c.explain(verb, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.state
	s.Err = err
	m.say(s)
}

// giveUp leaves the Lease to others if it is ours. Where that fails they wait
// until it has run out. It is called when neither work nor election runs.
func (m *candidate) giveUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.c.RetryPeriod)
	defer cancel()
	for {
		record, _, err := m.LeaseLock.Get(ctx)
		if err != nil || record.HolderIdentity != m.c.Identity {
			return
		}
		now := metav1.Now()
		err = m.LeaseLock.Update(ctx, resourcelock.LeaderElectionRecord{
			LeaseDurationSeconds: 1, AcquireTime: now, RenewTime: now, LeaderTransitions: record.LeaderTransitions,
		})
		if !apierrors.IsConflict(err) {
			return // it is given up, or out of reach
		}
		// The election's last writing was still under way: read again.
	}
}
