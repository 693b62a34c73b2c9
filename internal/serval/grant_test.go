package serval

import (
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSessionName_S70(t *testing.T) { // S-70
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct{ name, email, want string }{
		{"an ordinary address", "ana@example.com", "ana@example.com"},
		{"what AWS allows stays", "A_z.0-9+a=b,c@x.y", "A_z.0-9+a=b,c@x.y"},
		{"an apostrophe", "o'brien@example.com", "o-brien@example.com"},
		{"a slash", "a/b@example.com", "a-b@example.com"},
		{"a backslash", `a\b@example.com`, "a-b@example.com"},
		{"a space", "a b@example.com", "a-b@example.com"},
		{"each of several", "!#$%&*?^{|}~@x", "------------@x"},
		{"a backquote and a colon", "a`b:c@x", "a-b-c@x"},
		{"controls", "a\x00\r\n\t\x7f@x", "a-----@x"},
		{"a letter of two bytes is one hyphen", "ü@example.com", "-@example.com"},
		{"a letter of three bytes", "\u212Aate@x", "-ate@x"},
		{"an emoji", "😀@x", "-@x"},
		{"a letter and a combining mark are two", "e\u0301@x", "e-@x"},
		{"other alphabets' digits", "٣@x", "-@x"},
		{"invalid UTF-8, a hyphen a byte", "a\xff\xfe@x", "a--@x"},
		{"cut UTF-8", "a\xe2\x84", "a--"},
		{"the replacement character itself", "a\uFFFD@x", "a-@x"},
		{"nothing", "", "--"},
		{"one character", "a", "a-"},
		{"two", "a@", "a@"},
		{"63", x(63), x(63)},
		{"64", x(64), x(64)},
		{"65", x(65), x(64)},
		{"64 and a letter of two bytes", x(64) + "ü", x(64)},
		{"63 and a letter of two bytes", x(63) + "ü", x(63) + "-"},
		{"320", x(64) + "@" + x(255), x(64)},
	} {
		if got := SessionName(c.email); got != c.want {
			t.Errorf("%s: SessionName(%q) = %q, want %q", c.name, c.email, got, c.want)
		}
	}
}

var awsSessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

func FuzzSessionName(f *testing.F) { // T-1
	for _, s := range []string{"", "a", "ana@example.com", "o'brien/x@ü", "\xff\xc0", strings.Repeat("ü", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, email string) {
		name := SessionName(email)
		if !awsSessionName.MatchString(name) {
			t.Errorf("SessionName(%q) = %q, which STS refuses", email, name)
		}
		if awsSessionName.MatchString(email) && name != email {
			t.Errorf("SessionName(%q) = %q, want it as it is", email, name)
		}
		if again := SessionName(name); again != name {
			t.Errorf("SessionName(%q) = %q, want it as it is", name, again)
		}
	})
}

func TestSessionLength_S72(t *testing.T) { // S-72
	const s = time.Second
	for _, c := range []struct {
		name    string
		remains time.Duration
		roleMax int
		limit   time.Duration
		want    int
	}{
		{"over", -5 * s, 3600, 0, 900},
		{"nothing", 0, 3600, 0, 900},
		{"1 s", 1 * s, 3600, 0, 900},
		{"899 s", 899 * s, 3600, 0, 900},
		{"900 s", 900 * s, 3600, 0, 900},
		{"901 s", 901 * s, 3600, 0, 901},
		{"901.999 s is never rounded up", 902*s - 1, 3600, 0, 901},
		{"3599 s", 3599 * s, 3600, 0, 3599},
		{"3600 s", 3600 * s, 3600, 0, 3600},
		{"3601 s, role at most 3600", 3601 * s, 3600, 0, 3600},
		{"3601 s, role unknown", 3601 * s, 0, 0, 3600},
		{"3601 s, role's maximum nonsense", 3601 * s, -1, 0, 3600},
		{"3601 s, role at most 43200", 3601 * s, 43200, 0, 3601},
		{"43200 s", 43200 * s, 43200, 0, 43200},
		{"43201 s", 43201 * s, 43200, 0, 43200},
		{"43201 s, role unknown", 43201 * s, 0, 0, 3600},
		{"a role beyond STS's own maximum", 50000 * s, 100000, 0, 43200},
		{"30 days", 30 * 24 * time.Hour, 43200, 0, 43200},
		{"a limit", 43200 * s, 43200, 30 * time.Minute, 1800},
		{"a limit above all", 3600 * s, 43200, 2 * time.Hour, 3600},
		{"a limit below the least", 3600 * s, 3600, time.Minute, 900},
		{"a limit is never rounded up", 3600 * s, 3600, 1000*s + 999*time.Millisecond, 1000},
	} {
		if got := SessionLength(c.remains, c.roleMax, c.limit); got != c.want {
			t.Errorf("%s: SessionLength(%s, %d, %s) = %d, want %d", c.name, c.remains, c.roleMax, c.limit, got, c.want)
		}
	}
}

func TestGrant(t *testing.T) {
	frac := t0.Add(123456789 * time.Nanosecond)
	for _, c := range []struct {
		name    string
		g       Grant
		now     time.Time
		remains time.Duration
		end     time.Time
	}{
		{"the clock stands", Grant{Minutes: 60}, t0, time.Hour, t0.Add(time.Hour)},
		{"the clock stands, within a second", Grant{Minutes: 60}, frac, time.Hour, t0.Add(time.Hour)},
		{"it runs", Grant{60, t0, t0.Add(time.Hour)}, t0.Add(20 * time.Minute), 40 * time.Minute, t0.Add(time.Hour)},
		{"it runs to within a second", Grant{60, frac, frac.Add(time.Hour)}, t0.Add(time.Minute), 59*time.Minute + 123456789, t0.Add(time.Hour)},
		{"shortened", Grant{60, t0, t0.Add(90 * time.Second)}, t0.Add(time.Minute), 30 * time.Second, t0.Add(90 * time.Second)},
		{"it is over", Grant{60, t0, t0.Add(time.Hour)}, t0.Add(2 * time.Hour), 0, t0.Add(time.Hour)},
	} {
		if got := c.g.Remains(c.now); got != c.remains {
			t.Errorf("%s: %s remain, want %s", c.name, got, c.remains)
		}
		if got := c.g.End(c.now); !got.Equal(c.end) {
			t.Errorf("%s: the end is %s, want %s", c.name, got, c.end)
		}
	}
}

func TestRequest_Grant(t *testing.T) {
	if g, ok := newRequest(t, terms(first)).Grant(); ok {
		t.Errorf("a pending request is the grant %+v", g)
	}
	if g, ok := approved(t, terms(first)).Grant(); !ok || g != (Grant{Minutes: 60}) {
		t.Errorf("an approved request: got %+v, %t; want 60 minutes and no clock", g, ok)
	}
	if g, ok := running(t, terms(first)).Grant(); !ok || g != (Grant{60, t0, t0.Add(time.Hour)}) {
		t.Errorf("a running request: got %+v, %t; want its clock", g, ok)
	}
	if g, ok := (&Request{Status: StatusApproved}).Grant(); ok {
		t.Errorf("a request without an allocation is the grant %+v", g)
	}
}

func TestCheckMint(t *testing.T) { // S-75
	scheduled := approved(t, terms(first))
	scheduled.StartAt = t0.Add(time.Hour)
	ended := running(t, terms(first))
	if _, err := ended.Revoke(admin, t0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		r    *Request
		now  time.Time
		want Kind
	}{
		{"pending", newRequest(t, terms(first)), t0, Conflict},
		{"approved", approved(t, terms(first)), t0, ""},
		{"approved, unused for too long", approved(t, terms(first)), t0.Add(week), Conflict},
		{"running", running(t, terms(first)), t0.Add(time.Hour - 1), ""},
		{"running out", running(t, terms(first)), t0.Add(time.Hour), Conflict},
		{"before its start", scheduled, t0.Add(time.Hour - 1), FailedPrecondition},
		{"at its start", scheduled, t0.Add(time.Hour), ""},
		{"revoked", ended, t0, Conflict},
	} {
		if err := c.r.CheckMint(c.now); kindOf(err) != c.want {
			t.Errorf("%s: got %v, want kind %q", c.name, err, c.want)
		}
	}
}

func TestStartClock_S74(t *testing.T) { // S-74
	r := approved(t, terms(first))
	start := t0.Add(5*time.Minute + 1)
	if !r.StartClock(start) {
		t.Fatal("the clock of an approved request did not start")
	}
	if !r.ClockStartedAt.Equal(start) || !r.EndsAt.Equal(start.Add(time.Hour)) || r.State() != StateRunning {
		t.Errorf("got %s from %s to %s; want running for an hour from %s", r.State(), r.ClockStartedAt, r.EndsAt, start)
	}
	before := text(r)
	if r.StartClock(start.Add(time.Minute)) || text(r) != before {
		t.Error("the clock started twice")
	}
	if r := newRequest(t, terms(first)); r.StartClock(t0) || !r.ClockStartedAt.IsZero() {
		t.Error("the clock of a pending request starts")
	}

	// One transaction at a time, as the store does it: of many, one starts it.
	var mu sync.Mutex
	var wg sync.WaitGroup
	many, starts := approved(t, terms(first)), 0
	for i := range 50 {
		wg.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			if many.StartClock(t0.Add(time.Duration(i) * time.Second)) {
				starts++
			}
		})
	}
	wg.Wait()
	if starts != 1 {
		t.Errorf("50 first sessions started the clock %d times, want once", starts)
	}
}

func TestIsSessionName(t *testing.T) {
	for name, want := range map[string]bool{
		"serval-worker": true, "ab": true, strings.Repeat("a", 64): true, "A_z0+=,.@-": true,
		"": false, "a": false, strings.Repeat("a", 65): false, "a b": false, "a/b": false, "ä-": false, "a-\xff": false,
	} {
		if got := IsSessionName(name); got != want {
			t.Errorf("IsSessionName(%q) = %v, want %v", name, got, want)
		}
	}
}
