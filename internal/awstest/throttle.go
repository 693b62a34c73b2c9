package awstest

import (
	"golang.org/x/time/rate"
)

// A limit is a token bucket per account.
type limit struct {
	perSecond float64
	burst     int
	buckets   map[string]*rate.Limiter
}

type limits struct {
	iam    *limit
	action map[string]*limit
}

// Throttle lets each account answer so many calls of IAM a second, and refuses the others with 400
// Throttling, as AWS does. 0 turns it off.
func (c *Cloud) Throttle(perSecond float64, burst int) {
	c.watching.Lock()
	defer c.watching.Unlock()
	c.limits.iam = newLimit(perSecond, burst)
}

// ThrottleAction does so for one action, of any service, beside what Throttle does.
func (c *Cloud) ThrottleAction(action string, perSecond float64, burst int) {
	c.watching.Lock()
	defer c.watching.Unlock()
	if c.limits.action == nil {
		c.limits.action = make(map[string]*limit)
	}
	c.limits.action[action] = newLimit(perSecond, burst)
}

// ShortPages bounds the pages of all lists to n items, whatever was asked for; 0 lifts it. AWS promises
// no more: it may return fewer than MaxItems and say IsTruncated.
func (c *Cloud) ShortPages(n int) {
	c.watching.Lock()
	defer c.watching.Unlock()
	c.pageSize = n
}

func newLimit(perSecond float64, burst int) *limit {
	if perSecond <= 0 {
		return nil
	}
	return &limit{perSecond, max(burst, 1), make(map[string]*rate.Limiter)}
}

func (c *Cloud) throttled(req *Request) *failure {
	now := c.now()
	c.watching.Lock()
	defer c.watching.Unlock()
	full := func(l *limit) bool {
		if l == nil {
			return false
		}
		b := l.buckets[req.Account]
		if b == nil {
			b = rate.NewLimiter(rate.Limit(l.perSecond), l.burst)
			l.buckets[req.Account] = b
		}
		return !b.AllowN(now, 1)
	}
	if full(c.limits.action[req.Action]) || req.Service == "iam" && full(c.limits.iam) {
		return fail(400, "Throttling", "Rate exceeded")
	}
	return nil
}

// page returns how many of the items asked for go on one page.
func (c *Cloud) page(asked int) int {
	c.watching.Lock()
	defer c.watching.Unlock()
	if c.pageSize > 0 {
		return min(asked, c.pageSize)
	}
	return asked
}
