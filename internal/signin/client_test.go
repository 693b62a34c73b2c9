package signin

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A laptop is a client with its secrets.
type laptop struct {
	verifier serval.Secret
	ask      serval.ClientAsk
}

func aLaptop() laptop {
	verifier := serval.NewSecret(strings.Repeat(canary, 8))
	return laptop{verifier, serval.ClientAsk{
		Name: "serval 1.2", Host: "ana-laptop", Challenge: serval.Challenge(verifier),
		RedirectURI: "http://127.0.0.1:1234/callback", State: strings.Repeat("s", 32),
	}}
}

func (l laptop) device() serval.ClientAsk {
	l.ask.RedirectURI, l.ask.State = "", ""
	return l.ask
}

// S-9, S-63: a client is let in by somebody who is signed in, and gets its login
// once, within a minute, with its own verifier.
func TestSignInClient(t *testing.T) { each(t, testSignInClient) }

func testSignInClient(t *testing.T, w *world) {
	l := aLaptop()
	for _, test := range []struct {
		name                     string
		code, verifier, redirect string // where they are another
		before                   func(ana serval.Principal)
		want                     serval.Kind
	}{
		{name: "right"},
		{name: "at the last moment", before: func(serval.Principal) { w.clock.move(codeLife - time.Microsecond) }},
		{name: "a minute later", before: func(serval.Principal) { w.clock.move(codeLife) }, want: serval.NotFound},
		{name: "another code", code: canary + "-guess", want: serval.NotFound},
		{name: "another verifier", verifier: strings.Repeat("v", 43), want: serval.NotFound},
		{name: "the challenge for the verifier", verifier: l.ask.Challenge, want: serval.NotFound},
		{name: "no verifier", verifier: "-", want: serval.NotFound},
		{name: "another port", redirect: "http://127.0.0.1:1235/callback", want: serval.NotFound},
		{name: "whoever let it in has signed out", before: func(ana serval.Principal) {
			must(t, w.logins.End(t.Context(), ana, ana.LoginID))
		}, want: serval.NotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			ana := w.engineer("ana@example.com")
			before := w.head()
			code, err := w.logins.ApproveClient(t.Context(), ana, l.ask)
			must(t, err)
			if test.before != nil {
				test.before(ana)
			}
			bring := func(code serval.Secret, verifier, redirect string) (SignedIn, error) {
				return w.logins.SignInClient(t.Context(), stranger(), code, serval.NewSecret(verifier), redirect)
			}
			or := func(text, otherwise string) string {
				if text == "" {
					return otherwise
				}
				return text
			}
			in, err := bring(serval.NewSecret(or(test.code, code.Reveal())), or(test.verifier, l.verifier.Reveal()), or(test.redirect, l.ask.RedirectURI))
			wantKind(t, "signing in the client", err, test.want)
			if test.want != "" {
				if !in.Token.Empty() || in.LoginID != "" {
					t.Error("refused, and still a token")
				}
				return
			}
			_, err = bring(code, l.verifier.Reveal(), l.ask.RedirectURI)
			wantKind(t, "a second time", err, serval.NotFound)
			if d := cmp.Diff([]string{"ana@example.com client.approve done", "ana@example.com login.create done", "nobody login.create refused"}, told(w.events(before))); d != "" {
				t.Errorf("events (-want +got):\n%s", d)
			}
			if e := w.events(before)[1]; e.Target != in.LoginID || e.Detail["approved_by_login"] != ana.LoginID || e.Detail["host"] != "ana-laptop" || e.ActorID != ana.Person.ID {
				t.Errorf("event %+v", e)
			}
			if want := w.clock.now().Add(8 * time.Hour); !in.EndsAt.Equal(want) || in.Person.ID != ana.Person.ID {
				t.Errorf("signed in as %+v until %s, want Ana until %s", in.Person, in.EndsAt, want)
			}
		})
	}
	w.wantNoCanary()
}

func TestApproveClientRefuses(t *testing.T) {
	w := newWorld(t)
	l := aLaptop()
	ana := w.engineer("ana@example.com")
	ended := w.engineer("ana@example.com")
	must(t, w.logins.End(t.Context(), ended, ended.LoginID))
	elsewhere := l.ask
	elsewhere.RedirectURI = "https://evil.example/callback"
	for name, test := range map[string]struct {
		who  serval.Principal
		ask  serval.ClientAsk
		want serval.Kind
	}{
		"nobody":      {stranger(), l.ask, serval.Unauthenticated},
		"signed out":  {ended, l.ask, serval.LoginRequired},
		"elsewhere":   {ana, elsewhere, serval.Invalid},
		"no redirect": {ana, l.device(), serval.Invalid},
	} {
		code, err := w.logins.ApproveClient(t.Context(), test.who, test.ask)
		wantKind(t, name, err, test.want)
		if !code.Empty() {
			t.Errorf("%s: refused, and still a code", name)
		}
	}
	wantKind(t, "denied", w.logins.DenyClient(t.Context(), ana, l.ask), "")
	wantKind(t, "denied by nobody", w.logins.DenyClient(t.Context(), stranger(), l.ask), serval.Unauthenticated)
	wantKind(t, "denied elsewhere", w.logins.DenyClient(t.Context(), ana, elsewhere), serval.Invalid)

	// Under way there are few at a time.
	for range maxApproved {
		_, err := w.logins.ApproveClient(t.Context(), ana, l.ask)
		must(t, err)
	}
	_, err := w.logins.ApproveClient(t.Context(), ana, l.ask)
	wantKind(t, "one more", err, serval.Exhausted)
	_, err = w.logins.ApproveClient(t.Context(), w.engineer("ana@example.com"), l.ask)
	wantKind(t, "by another login", err, "")
	w.clock.move(codeLife)
	_, err = w.logins.ApproveClient(t.Context(), ana, l.ask)
	wantKind(t, "a minute later", err, "")
}

// S-63, R-45: strangers who begin devices without end, from however many networks,
// keep nobody out: of one network there are few, and in a full house their own
// oldest goes first.
func TestDevicesAreBounded(t *testing.T) { each(t, testDevicesAreBounded) }

func testDevicesAreBounded(t *testing.T, w *world) {
	w.logins.mostDevices = 120
	l := aLaptop()
	start := func(address string) (DeviceStart, error) {
		w.clock.move(time.Microsecond)
		return w.logins.StartDevice(t.Context(), serval.Principal{Kind: serval.KindNobody, Address: address}, l.device())
	}
	shown := func(d DeviceStart) error {
		_, err := w.logins.Device(t.Context(), w.engineer("ana@example.com"), d.Typed)
		return err
	}
	first, err := start("192.0.2.1")
	must(t, err)
	let, err := start("10.0.0.1")
	must(t, err)
	ana := w.engineer("ana@example.com")
	ana.Address = "10.0.0.2"
	must(t, w.logins.ApproveDevice(t.Context(), ana, let.Typed))
	var theirs []DeviceStart
	for n := range w.logins.mostDevices - 2 {
		d, err := start(fmt.Sprintf("10.0.%d.1", n/(maxDevicesHere-1)))
		must(t, err)
		theirs = append(theirs, d)
	}
	_, err = start("10.0.0.1")
	wantKind(t, "one more of a network that has its share", err, serval.Exhausted)
	mine, err := start("198.51.100.7")
	wantKind(t, "one more in a full house", err, "")
	wantKind(t, "it waits", shown(mine), "")
	wantKind(t, "so does a single one that is older", shown(first), "")
	wantKind(t, "the oldest of the fullest network is gone", shown(theirs[0]), serval.NotFound)
	wantKind(t, "and the next is not", shown(theirs[1]), "")
	if _, err := w.logins.PollDevice(t.Context(), stranger(), let.Code, l.verifier); err != nil {
		t.Errorf("one that was let in: %v", err)
	}
	_, err = w.logins.ApproveClient(t.Context(), w.engineer("ana@example.com"), l.ask)
	wantKind(t, "a client, in a house full of devices", err, "")

	// Whoever has a /48 has 65,536 networks: each of them begins one.
	w.clock.move(deviceLife)
	first, err = start("2001:db8:1::7")
	must(t, err)
	theirs = nil
	for n := range 2 * w.logins.mostDevices {
		d, err := start(fmt.Sprintf("2001:db8:2:%x::7", n))
		must(t, err)
		theirs = append(theirs, d)
	}
	wantKind(t, "an older one of another site", shown(first), "")
	wantKind(t, "their last", shown(theirs[len(theirs)-1]), "")
	wantKind(t, "their first", shown(theirs[0]), serval.NotFound)
}

// S-63: a device waits until somebody near it has typed what it shows, and only
// who began gets its login.
func TestDevice(t *testing.T) { each(t, testDevice) }

func testDevice(t *testing.T, w *world) {
	l := aLaptop()
	ana := w.engineer("ana@example.com")
	ana.Address = "198.51.100.200" // the stranger is at 198.51.100.7
	before := w.head()
	d, err := w.logins.StartDevice(t.Context(), stranger(), l.device())
	must(t, err)
	if foldTyped(d.Typed) != d.Typed || !d.EndsAt.Equal(w.clock.now().Add(5*time.Minute)) || d.Interval != 5*time.Second {
		t.Errorf("the device shows %q until %s", d.Typed, d.EndsAt)
	}
	poll := func(verifier serval.Secret) (SignedIn, string, string) {
		t.Helper()
		in, err := w.logins.PollDevice(t.Context(), stranger(), d.Code, verifier)
		if err == nil {
			return in, "", ""
		}
		r, ok := err.(*serval.Refusal)
		if !ok || !in.Token.Empty() {
			t.Fatalf("polling: %v", err)
		}
		return in, r.Detail["error"], r.Detail["interval"]
	}
	wantPoll := func(what, want, pause string) {
		t.Helper()
		if _, word, interval := poll(l.verifier); word != want || interval != pause {
			t.Errorf("%s: %q with interval %q, want %q with %q", what, word, interval, want, pause)
		}
	}
	wantPoll("at first", "authorization_pending", "5")
	w.clock.move(5*time.Second - time.Microsecond)
	wantPoll("too soon", "slow_down", "10")
	w.clock.move(5 * time.Second)
	wantPoll("too soon for the longer pause", "slow_down", "15")
	w.clock.move(15 * time.Second)
	wantPoll("after the pause", "authorization_pending", "15")
	if _, word, _ := poll(serval.NewSecret(strings.Repeat("v", 43))); word != "expired_token" {
		t.Errorf("another process polling gets %q, want nothing", word)
	}

	// Nobody else's code, and not from afar.
	_, err = w.logins.Device(t.Context(), ana, "BCDF-GHJK")
	wantKind(t, "a guess", err, serval.NotFound)
	_, err = w.logins.Device(t.Context(), stranger(), d.Typed)
	wantKind(t, "nobody looks", err, serval.Unauthenticated)
	wantKind(t, "nobody approves", w.logins.ApproveDevice(t.Context(), stranger(), d.Typed), serval.Unauthenticated)
	far := ana
	far.Address = "198.51.101.7"
	seen, err := w.logins.Device(t.Context(), far, d.Typed)
	if err != nil || seen.Near || seen.Address != "198.51.100.7" || seen.Host != "ana-laptop" || !seen.StartedAt.Equal(noon) {
		t.Errorf("from afar the device is %+v, %v", seen, err)
	}
	wantKind(t, "from afar", w.logins.ApproveDevice(t.Context(), far, d.Typed), serval.Denied)
	wantPoll("refused is not denied", "slow_down", "20")

	typed := strings.ToLower(d.Typed[:4] + " - " + d.Typed[4:])
	if seen, err := w.logins.Device(t.Context(), ana, typed); err != nil || !seen.Near {
		t.Errorf("near by the device is %+v, %v", seen, err)
	}
	wantKind(t, "near by", w.logins.ApproveDevice(t.Context(), ana, typed), "")
	wantKind(t, "twice", w.logins.ApproveDevice(t.Context(), ana, typed), serval.NotFound)
	wantKind(t, "denied after it was approved", w.logins.DenyDevice(t.Context(), ana, typed), serval.NotFound)

	var won, lost atomic.Int64
	var wg sync.WaitGroup
	planes := w.replicas()
	for i := range 10 {
		wg.Go(func() {
			in, err := planes[i%2].PollDevice(t.Context(), stranger(), d.Code, l.verifier)
			switch {
			case err == nil && in.Person.ID == ana.Person.ID:
				won.Add(1)
			case serval.IsRefusal(err, serval.NotFound):
				lost.Add(1)
			default:
				t.Errorf("a poll: %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || lost.Load() != 9 {
		t.Errorf("%d of 10 polls got the login and %d nothing, want 1 and 9", won.Load(), lost.Load())
	}
	var story []string
	for _, line := range told(w.events(before)) {
		if line != "nobody login.create refused" { // as many as came too late by a hair
			story = append(story, line)
		}
	}
	want := []string{"ana@example.com client.read refused", "nobody client.approve refused", "ana@example.com client.approve refused",
		"ana@example.com client.approve done", "ana@example.com client.approve refused", "ana@example.com client.deny refused", "ana@example.com login.create done"}
	if diff := cmp.Diff(want, story); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	d, err = w.logins.StartDevice(t.Context(), stranger(), l.device())
	must(t, err)
	must(t, w.logins.DenyDevice(t.Context(), far, d.Typed))
	wantPoll("denied", "access_denied", "")
	d, err = w.logins.StartDevice(t.Context(), stranger(), l.device())
	must(t, err)
	w.clock.move(deviceLife)
	wantPoll("after five minutes", "expired_token", "")
	wantKind(t, "approved too late", w.logins.ApproveDevice(t.Context(), ana, d.Typed), serval.NotFound)
	d, err = w.logins.StartDevice(t.Context(), stranger(), l.ask)
	wantKind(t, "a device with a listener", err, serval.Invalid)
	if d.Typed != "" {
		t.Error("refused, and still something to type")
	}
	w.wantNoCanary()
}
