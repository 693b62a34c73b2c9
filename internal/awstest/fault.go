package awstest

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// A Fault is a disturbance of calls that match it. Several may match one call: each runs its Hook, Delay
// and Mutate, in the order of injection, and the first that has an answer of its own (Status, Code, Body,
// Hang or Reset) gives it.
type Fault struct {
	// Action, "" for any.
	Action string
	// Account the call lands in, or the one whose role it assumes; "" for any.
	Account string
	// Match narrows further; nil for all.
	Match func(r *Request) bool

	// After is how many matching calls go by unharmed first.
	After int
	// Times is how many are then disturbed; 0 for all.
	Times int

	// Status, Code and Message are an error answer as the service would give it. The status is 400 where
	// only a code is given.
	Status        int
	Code, Message string
	// Body and ContentType are a raw answer, given with Status (200 where 0) and only without Code.
	// A Status alone is an answer with an empty body.
	Body, ContentType string

	// Delay before the answer.
	Delay time.Duration
	// Hang never answers, until the client goes away.
	Hang bool
	// Reset closes the connection instead of answering.
	Reset bool
	// Happened performs the action first: it failed, but it happened.
	Happened bool
	// Mutate alters the body of the good answer.
	Mutate func(body []byte) []byte
	// Hook is called before all else, and may change the cloud's state.
	Hook func(r *Request)
}

type fault struct {
	Fault
	seen int
}

// Inject lets the fault happen until remove is called.
func (c *Cloud) Inject(f Fault) (remove func()) {
	in := &fault{Fault: f}
	c.watching.Lock()
	defer c.watching.Unlock()
	c.faults = append(c.faults, in)
	return func() {
		c.watching.Lock()
		defer c.watching.Unlock()
		c.faults = slices.DeleteFunc(c.faults, func(f *fault) bool { return f == in })
	}
}

// answers reports whether the fault takes the place of the good answer.
func (f *Fault) answers() bool {
	return f.Status != 0 || f.Code != "" || f.Body != "" || f.Hang || f.Reset
}

// strikes reports whether the fault disturbs this call, and counts it.
func (c *Cloud) strikes(f *fault, req *Request) bool {
	if f.Action != "" && f.Action != req.Action ||
		f.Account != "" && f.Account != req.Account && f.Account != req.Target ||
		f.Match != nil && !f.Match(req) {
		return false
	}
	c.watching.Lock()
	defer c.watching.Unlock()
	f.seen++
	return f.seen > f.After && (f.Times == 0 || f.seen <= f.After+f.Times)
}

// applyFaults performs the call under the faults there are. It reports false where there is to be no answer.
func (c *Cloud) applyFaults(ctx context.Context, req *Request) (answer, bool) {
	c.watching.Lock()
	faults := slices.Clone(c.faults)
	c.watching.Unlock()
	var mutations []func([]byte) []byte
	for _, f := range faults {
		if !c.strikes(f, req) {
			continue
		}
		if f.Hook != nil {
			f.Hook(req)
		}
		if !sleep(ctx, f.Delay) {
			return answer{}, false
		}
		if f.Mutate != nil {
			mutations = append(mutations, f.Mutate)
		}
		if f.answers() {
			return c.disturb(ctx, req, f)
		}
	}
	a := c.perform(req)
	if a.status == http.StatusOK {
		for _, mutate := range mutations {
			a.body = mutate(a.body)
		}
	}
	return a, true
}

func (c *Cloud) disturb(ctx context.Context, req *Request, f *fault) (answer, bool) {
	if f.Happened {
		c.perform(req)
	}
	switch {
	case f.Hang:
		<-ctx.Done()
		return answer{}, false
	case f.Reset:
		panic(http.ErrAbortHandler)
	case f.Code != "":
		status := f.Status
		if status == 0 {
			status = http.StatusBadRequest
		}
		return req.refusal(fail(status, f.Code, "%s", f.Message)), true
	}
	a := answer{status: f.Status, contentType: f.ContentType, body: []byte(f.Body)}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if a.contentType == "" {
		a.contentType = "text/xml"
	}
	return a, true
}
