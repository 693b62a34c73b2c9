package notify

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

var update = flag.Bool("update", os.Getenv("UPDATE_GOLDEN") == "1", "write the golden files anew")

// What fails is tried again with growing pauses, is delivered once the receiver
// is back, and has failed for good after a day; then an admin's word sends it.
func TestDeliveryIsRetried(t *testing.T) {
	c := &script{name: Webhook}
	w := newWorld(t, c)
	c.set(func(Message) error { return errAway })
	w.tell(serval.People{Emails: []string{"ann@example.com"}}, "one")
	var pauses []time.Duration
	last := w.now()
	for range 200 {
		w.turn()
		if len(w.notices(serval.NoticeFailed)) > 0 {
			break
		}
		n := w.notices(serval.NoticePending)[0]
		if n.Error != "connection refused" {
			t.Fatalf("pending, it says %q", n.Error)
		}
		pauses = append(pauses, n.NextAt.Sub(w.now()))
		w.at.Store(n.NextAt.UnixMicro())
	}
	if took := w.now().Sub(last); took < 22*time.Hour || took > 26*time.Hour {
		t.Errorf("it was tried for %s, want about a day", took)
	}
	if !slices.IsSorted(pauses) || pauses[0] != 5*time.Second || pauses[len(pauses)-1] != 2*time.Hour {
		t.Errorf("the pauses are %v", pauses)
	}
	failed := w.notices(serval.NoticeFailed)
	if len(failed) != 1 || failed[0].Attempts != 22 || failed[0].EndedAt.IsZero() {
		t.Fatalf("in the end there are %+v", failed)
	}
	if rows := w.events(); len(rows) != 1 || rows[0].Reason != "connection refused" || rows[0].Detail["notice_id"] != failed[0].ID || rows[0].Detail["channel"] != Webhook {
		t.Errorf("the audit log says %+v", rows)
	}
	if w.outcome("webhook failed") != 1 || w.outcome("webhook retried") != 21 {
		t.Errorf("outcomes are %v", w.outcomes)
	}
	w.move(time.Hour)
	c.set(nil)
	w.turn()
	if got := c.titles(); got != nil {
		t.Errorf("what failed for good was sent by itself: %q", got)
	}
	n := failed[0]
	if err := n.Retry(w.now()); err != nil {
		t.Fatal(err)
	}
	w.act(func(tx *store.Tx) error { _, err := tx.SaveNotice(n, 22); return err })
	w.turn()
	if got := c.titles(); len(got) != 1 || len(w.notices(serval.NoticeSent)) != 1 {
		t.Errorf("tried again, %q came", got)
	}
}

// A receiver that asks for a pause gets it, within bounds.
func TestRetryAfter(t *testing.T) {
	c := &script{name: Slack}
	w := newWorld(t, c)
	for asked, want := range map[time.Duration]time.Duration{0: 5 * time.Second, time.Second: 5 * time.Second, time.Minute: time.Minute, 1000 * time.Hour: 2 * time.Hour} {
		c.set(func(Message) error { return &Later{asked, "the receiver answered 429"} })
		w.tell(serval.People{Emails: []string{"ann@example.com"}}, "one")
		w.turn()
		n := w.notices(serval.NoticePending)[0]
		if got := n.NextAt.Sub(w.now()); got != want {
			t.Errorf("asked for %s, the pause is %s, want %s", asked, got, want)
		}
		w.act(func(tx *store.Tx) error { _, err := tx.DropNotice(n); return err })
	}
}

// One channel that hangs, fails or panics keeps neither another nor the acts that
// write notices.
func TestChannelsAreApart(t *testing.T) {
	slow, broken, good := &script{name: Webhook}, &script{name: Slack}, &script{name: Mail}
	w := newWorld(t, slow, broken, good)
	before := goleak.IgnoreCurrent()
	release := make(chan struct{})
	slow.set(func(Message) error { <-release; return nil })
	broken.set(func(Message) error { panic("broken") })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.notifier.Run(ctx) })
	for i := range 20 {
		w.tell(serval.People{Emails: []string{"ann@example.com"}}, fmt.Sprint(i))
	}
	for w.outcome("mail sent") < 20 {
		time.Sleep(10 * time.Millisecond)
	}
	if n := w.outcome("webhook sent"); n != 0 {
		t.Errorf("%d were sent by the channel that hangs", n)
	}
	close(release)
	for w.outcome("webhook sent") < 20 || w.outcome("slack retried") == 0 { // a delivery that panics is one that failed
		time.Sleep(10 * time.Millisecond)
	}
	for _, n := range w.notices(serval.NoticePending) {
		if n.Channel == Slack && strings.Contains(n.Error, "broken") {
			t.Errorf("what a panic said is kept where admins read it: %s", n.Error)
		}
	}
	cancel()
	running.Wait()
	goleak.VerifyNone(t, before)
}

// A delivery that a stop cuts off is none that failed: the next process makes it
// when the claim is over. What was taken beside it is noted.
func TestStopInMidDelivery(t *testing.T) {
	c := &script{name: Webhook}
	w := newWorld(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	taken := make(chan struct{})
	c.set(func(m Message) error {
		if m.Title == "taken" {
			close(taken)
			return nil
		}
		<-taken
		cancel()
		return errAway
	})
	for _, title := range []string{"taken", "cut off"} {
		w.tell(serval.People{Emails: []string{"ann@example.com"}}, title)
	}
	w.notifier.Run(ctx)
	sent, pending := w.notices(serval.NoticeSent), w.notices(serval.NoticePending)
	if len(sent) != 1 || len(pending) != 1 || pending[0].Error != "" || !pending[0].NextAt.Equal(w.now().Add(claimLife)) {
		t.Errorf("sent %+v, pending %+v; want one each, the latter claimed", sent, pending)
	}
}

// A process that dies between a delivery and its record costs a second delivery;
// until its claim is over nobody else delivers.
func TestDeliveryIsAtLeastOnce(t *testing.T) {
	c := &script{name: Webhook}
	w := newWorld(t, c)
	w.tell(serval.People{Emails: []string{"ann@example.com"}}, "one")
	claimed, err := w.notifier.claim(t.Context(), Webhook)
	if err != nil || len(claimed) != 1 {
		t.Fatalf("claimed %+v, %v", claimed, err)
	}
	if err := c.Send(t.Context(), w.notifier.message(claimed[0])); err != nil { // and here it dies
		t.Fatal(err)
	}
	w.turn()
	w.move(claimLife - time.Second)
	w.turn()
	if n := len(c.titles()); n != 1 {
		t.Errorf("it came %d times within the claim, want once", n)
	}
	w.move(time.Second)
	w.turn()
	if n := len(c.titles()); n != 1 || len(w.notices(serval.NoticeSent)) != 1 {
		t.Errorf("after the claim it came %d times, want once more", n)
	}
	// Whoever was slow has no say any more.
	if err := w.notifier.send(t.Context(), c, claimed); err != nil {
		t.Fatal(err)
	}
	if n := w.outcome("webhook sent"); n != 1 {
		t.Errorf("%d are noted as sent, want 1", n)
	}
}

// What is mailed to a group becomes a mail for each person, without whoever asks
// and whoever did it.
func TestMailIsSpread(t *testing.T) {
	c := &script{name: Mail}
	w := newWorld(t, c)
	w.people(serval.Person{Email: "lea@example.com", Groups: []string{"leads"}}, serval.Person{Email: "ana@example.com", Groups: []string{"leads"}},
		serval.Person{Email: "ANN@example.com", Groups: []string{"leads"}}, serval.Person{Email: "gone@example.com", Groups: []string{"leads"}, Suspended: "x"},
		serval.Person{Email: "bob@example.com", Groups: []string{"engineering"}})
	r := w.request()
	w.tellOf(person("ana@example.com"), serval.RequestCreate, r)
	w.turn()
	want := []string{"ana@example.com asks for prod-admin | ann@example.com", "ana@example.com asks for prod-admin | lea@example.com"}
	got := c.titles()
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	lea := person("lea@example.com", "leads")
	act, err := r.Decide(lea, serval.Decision{Approve: true, Reason: "go"}, time.Hour, w.now())
	if err != nil {
		t.Fatal(err)
	}
	w.tellOf(lea, act, r)
	w.turn()
	want = []string{
		"ana@example.com's request for prod-admin was approved | ana@example.com", // who asked, and is a lead too
		"ana@example.com's request for prod-admin was approved | ana@example.com",
		"ana@example.com's request for prod-admin was approved | ann@example.com",
	}
	got = c.titles()
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("handled (-want +got):\n%s", diff)
	}
	// Nobody is told what they did themselves, and that is no failure.
	w.people(serval.Person{Email: "sol@example.com", Groups: []string{"security"}})
	alone := w.request(func(r *serval.Request) {
		r.Terms.Steps = []serval.People{{Groups: []string{"security"}}}
		r.Allocations[0].Steps[0].Approvers = r.Terms.Steps[0]
	})
	sol := person("sol@example.com", "security")
	if act, err = alone.Decide(sol, serval.Decision{Approve: true}, time.Hour, w.now()); err != nil {
		t.Fatal(err)
	}
	w.tellOf(sol, act, alone)
	w.turn()
	if got := c.titles(); len(got) != 1 || !strings.HasSuffix(got[0], "was approved | ana@example.com") || len(w.notices(serval.NoticeFailed)) > 0 {
		t.Errorf("handled by the one approver, it is told of to %q", got)
	}
	// Whoever may decide their own is asked to, as the others of their group are.
	own := w.request(func(r *serval.Request) { r.Terms.AllowSelfApproval = true })
	w.tellOf(person("ana@example.com"), serval.RequestCreate, own)
	w.turn()
	if got := c.titles(); !slices.Contains(got, "ana@example.com asks for prod-admin | ana@example.com") {
		t.Errorf("ana may decide her own, and these are asked: %q", got)
	}
	// Nobody of a group has ever come: that is a failure that shows.
	w.tell(serval.People{Groups: []string{"unknown"}}, "x")
	w.turn()
	if failed := w.notices(serval.NoticeFailed); len(failed) != 1 || !strings.Contains(failed[0].Error, "no address is known") || len(w.events()) != 1 {
		t.Errorf("a group of nobody: %+v", failed)
	}
	// More people than are told.
	for i := range maxPeople + 5 {
		w.people(serval.Person{Email: fmt.Sprintf("p%03d@example.com", i), Groups: []string{"many"}})
	}
	w.tell(serval.People{Groups: []string{"many"}, Emails: []string{"first@example.com"}}, "y")
	w.turn()
	if got := c.titles(); len(got) != maxPeople || !slices.Contains(got, "y | first@example.com") {
		t.Errorf("%d mails for a large group, want %d with the one who is named", len(got), maxPeople)
	}
}

// The buttons of a message decide what the message shows: where something else was
// asked for since, it has none.
func TestButtonsAreOfTheirRound(t *testing.T) { // S-76
	c := &script{name: Webhook}
	w := newWorld(t, c)
	r := w.request()
	ask := func(notice *serval.Request) Message {
		return w.notifier.message(claimed{request: r, Notice: serval.Notice{
			Kind: serval.RequestCreate, Purpose: serval.ToDecide, RequestID: r.ID, Facts: notice.NoticeFacts(serval.System()),
		}})
	}
	first := *r
	if m := ask(r); m.Decide == nil || *m.Decide != (Question{r.ID, 0}) {
		t.Errorf("what waits has the question %+v", m.Decide)
	}
	if _, err := r.Decide(person("ann@example.com"), serval.Decision{Approve: true}, time.Hour, w.now()); err != nil {
		t.Fatal(err)
	}
	if m := ask(&first); m.Decide != nil {
		t.Errorf("what was decided has the question %+v", m.Decide)
	}
	if _, err := r.Extend(person("ana@example.com"), 60, "more", w.now()); err != nil {
		t.Fatal(err)
	}
	if m := ask(&first); m.Decide != nil {
		t.Errorf("the message of the request decides its extension: %+v", m.Decide)
	}
	if m := ask(r); m.Decide == nil || *m.Decide != (Question{r.ID, 1}) {
		t.Errorf("the message of the extension has the question %+v", m.Decide)
	}
}

// Who has nothing left that ends is told of no end.
func TestEndsSoon(t *testing.T) {
	running := func(change func(*serval.Request)) *serval.Request {
		r := &serval.Request{Status: serval.StatusApproved, ClockStartedAt: noon.Add(-time.Hour), EndsAt: noon.Add(time.Minute)}
		change(r)
		return r
	}
	for name, c := range map[string]struct {
		r    *serval.Request
		want bool
	}{
		"it runs":       {running(func(*serval.Request) {}), true},
		"it is over":    {running(func(r *serval.Request) { r.EndsAt = noon }), false},
		"revoked":       {running(func(r *serval.Request) { r.Status = serval.StatusRevoked }), false},
		"done":          {running(func(r *serval.Request) { r.Status = serval.StatusExpired }), false},
		"not started":   {running(func(r *serval.Request) { r.ClockStartedAt = time.Time{} }), false},
		"of no request": {nil, false},
	} {
		if got := endsSoon(c.r, noon); got != c.want {
			t.Errorf("%s: told %t, want %t", name, got, c.want)
		}
	}
}

// Before the end the requester is told, once for each end, and not when it is
// over.
func TestEndingIsTold(t *testing.T) {
	c := &script{name: Webhook}
	w := newWorld(t, c)
	ana := person("ana@example.com")
	r := w.request()
	if _, err := r.Decide(person("ann@example.com"), serval.Decision{Approve: true}, time.Hour, w.now()); err != nil {
		t.Fatal(err)
	}
	r.StartClock(w.now())
	w.tellOf(ana, serval.SessionIssue, r)
	w.turn()
	w.move(49 * time.Minute)
	w.turn()
	if got := c.titles(); got != nil {
		t.Fatalf("eleven minutes before the end: %q", got)
	}
	w.move(time.Minute)
	w.turn()
	w.turn()
	ending := "ana@example.com's access to prod-admin ends soon | ana@example.com"
	if got := c.titles(); !slices.Equal(got, []string{ending}) {
		t.Errorf("ten minutes before the end: %q", got)
	}
	// What happens afterwards has nobody told again.
	w.tellOf(ana, serval.SessionIssue, r)
	w.turn()
	if got := c.titles(); got != nil {
		t.Errorf("told already, it is told again: %q", got)
	}
	// Extended, it is told again before the new end; shortened before that, then.
	if _, err := r.Extend(ana, 120, "more", w.now()); err != nil {
		t.Fatal(err)
	}
	act, err := r.Decide(person("ann@example.com"), serval.Decision{Approve: true}, time.Hour, w.now())
	if err != nil {
		t.Fatal(err)
	}
	w.tellOf(person("ann@example.com"), act, r)
	w.move(20 * time.Minute)
	w.turn()
	if got := c.titles(); len(got) != 2 || !strings.Contains(got[0], "was extended") {
		t.Errorf("extended: %q", got)
	}
	if _, err := r.ShortenTo(ana, 30, w.now()); err != nil {
		t.Fatal(err)
	}
	w.tellOf(ana, serval.RequestShorten, r)
	w.move(20 * time.Minute)
	w.turn()
	if got := c.titles(); !slices.Equal(got, []string{ending}) {
		t.Errorf("shortened: %q", got)
	}
	// Ended meanwhile: nothing is told, and nothing is left.
	if _, err := r.Extend(ana, 60, "more", w.now()); err != nil {
		t.Fatal(err)
	}
	if act, err = r.Decide(person("ann@example.com"), serval.Decision{Approve: true}, time.Hour, w.now()); err != nil {
		t.Fatal(err)
	}
	w.tellOf(person("ann@example.com"), act, r)
	w.turn()
	c.titles()
	if _, err := r.Done(ana, w.now()); err != nil {
		t.Fatal(err)
	}
	w.act(func(tx *store.Tx) error { return tx.SaveRequest(r) })
	w.move(2 * time.Hour)
	w.turn()
	if got := c.titles(); got != nil || len(w.notices(serval.NoticePending)) != 0 {
		t.Errorf("ended, it is told that it ends: %q", got)
	}
}

// Whoever is told that a request failed is told why.
func TestWhyIsTold(t *testing.T) {
	w := newWorld(t, &script{name: Webhook})
	r := w.request()
	if _, err := r.Fail(serval.System(), w.now()); err != nil {
		t.Fatal(err)
	}
	w.act(func(tx *store.Tx) error {
		return w.door.TellOf(tx, serval.System(), serval.RequestFail, r, "its role is gone")
	})
	told := w.notices(serval.NoticePending)
	if len(told) != 2 {
		t.Errorf("%d notices, want one for Ana and one for those who were to decide", len(told))
	}
	for _, n := range told {
		if n.Facts[serval.FactWhy] != "its role is gone" {
			t.Errorf("%s is told %v, want the reason among it", n.To, n.Facts)
		}
	}
}

// An error that names a secret address is not kept.
func TestErrorsHoldNoSecret(t *testing.T) { // S-5
	secret := "http://127.0.0.1:1/services/T0/B0/CANARY"
	w := newWorld(t, NewSlack(SlackConfig{WebhookURL: serval.NewSecret(secret)}))
	w.tell(serval.People{Emails: []string{"ann@example.com"}}, "one")
	w.turn()
	n := w.notices(serval.NoticePending)[0]
	if n.Attempts != 1 || n.Error == "" || strings.Contains(n.Error, "CANARY") {
		t.Errorf("the error that is kept is %q", n.Error)
	}
}

// What somebody wrote in adds no line that could pass for one of ours.
func TestWordsOfOthers(t *testing.T) { // S-25
	n := New(nil, origin, nil, nil)
	for _, end := range []string{"\n", "\r\n", "\r", "\v", "\f", "\u0085", "\u2028", "\u2029", "\n\n"} {
		forged := "why" + end + "Role: arn:aws:iam::111122223333:role/harmless" + end + "Decide: https://elsewhere.example" + end
		m := n.message(claimed{Notice: serval.Notice{RequestID: "req_1", Kind: serval.RequestCreate, Purpose: serval.ToDecide, Facts: map[string]string{
			"email": "ana@example.com", "role_arn": "arn:aws:iam::111122223333:role/grave", "asked_justification": forged, "ticket": forged,
			serval.FactBy: "ann@example.com", serval.FactWhy: forged, "policy": forged, serval.FactPath: "/requests/req_1",
		}}})
		ours := map[string]int{}
		for line := range strings.FieldsFuncSeq(m.Text(), func(c rune) bool { return strings.ContainsRune("\n\r\v\f\u0085\u2028\u2029", c) }) {
			name, _, _ := strings.Cut(line, ": ")
			ours[name]++
		}
		if ours["Role"] != 1 || ours["Decide"] != 1 || ours["    Role"] != 4 {
			t.Errorf("with %q between, the message is\n%s", end, m.Text())
		}
		for _, l := range m.Lines {
			if strings.Contains(strings.ReplaceAll(l.Text, "\n    ", " "), "\n") {
				t.Errorf("a line that is shown by itself is %q", l.Text)
			}
		}
	}
}

// What is told of a request in words of its own is told in those: that a role can
// do more now is no broken glass, and no change of the request.
func TestWordsOfItsOwn(t *testing.T) { // S-25
	n := New(nil, origin, nil, nil)
	for _, purpose := range []serval.Purpose{serval.Alarm, serval.ToKnow} {
		m := n.message(claimed{Notice: serval.Notice{RequestID: "req_1", Kind: serval.RoleChange, Purpose: purpose, Facts: map[string]string{
			"email": "ana@example.com", "role_arn": "arn:aws:iam::111122223333:role/dev", serval.FactPath: "/requests/req_1", serval.FactBy: "system",
			serval.FactTitle: "A role that you approve for ana@example.com can do more now", serval.FactText: "It gained iam:*.\nRole: elsewhere",
		}}})
		want := "It gained iam:*.\n    Role: elsewhere\nRole: arn:aws:iam::111122223333:role/dev\n\nSee it: " + origin + "/requests/req_1\n"
		if m.Title != "A role that you approve for ana@example.com can do more now" || m.Text() != want {
			t.Errorf("%s: %s\n%s\nwant\n%s", purpose, m.Title, m.Text(), want)
		}
	}
}

// What every notice says, word for word.
func TestWords(t *testing.T) {
	w := newWorld(t, &script{name: Webhook})
	ana, ann, sys := person("ana@example.com"), person("ann@example.com"), serval.System()
	var text strings.Builder
	say := func(what string, who serval.Principal, act serval.Action, r *serval.Request) {
		w.tellOf(who, act, r)
		w.move(time.Microsecond)
		list, err := w.notifier.claim(t.Context(), Webhook)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortStableFunc(list, func(a, b claimed) int { return strings.Compare(string(a.Purpose), string(b.Purpose)) })
		for _, c := range list {
			c.request = r
			m := w.notifier.message(c)
			fmt.Fprintf(&text, "== %s: %s to %s, decidable %v\n%s\n\n%s\n", what, m.Purpose, m.To, m.Decide != nil, m.Title, strings.ReplaceAll(m.Text(), r.ID, "ID"))
		}
	}
	r := w.request()
	say("asked", ana, serval.RequestCreate, r)
	late := *r
	late.Status, late.Allocations = serval.StatusCanceled, []serval.Allocation{{Minutes: 60, State: serval.Closed, Steps: r.Allocations[0].Steps}}
	say("asked and taken back", ana, serval.RequestCancel, &late)
	act, err := r.Decide(ann, serval.Decision{Approve: true, Minutes: 30, Reason: "fine"}, time.Hour, w.now())
	if err != nil {
		t.Fatal(err)
	}
	say("approved", ann, act, r)
	r.StartClock(w.now())
	if act, err = r.Extend(ana, 90, "not done yet", w.now()); err != nil {
		t.Fatal(err)
	}
	say("more", ana, act, r)
	if act, err = r.Decide(ann, serval.Decision{Reason: "enough"}, time.Hour, w.now()); err != nil {
		t.Fatal(err)
	}
	say("no more", ann, act, r)
	w.act(func(tx *store.Tx) error { return w.door.TellOf(tx, ana, serval.SessionIssue, r, "") })
	w.move(21 * time.Minute)
	say("soon", ana, serval.SessionIssue, r)
	glass := w.request()
	glass.Allocations[0].BreakGlass = true
	say("glass", ana, serval.RequestBreakGlass, glass)
	for _, kind := range []serval.Action{serval.RequestRevoke, serval.RequestFail, serval.RequestExpire, serval.RequestShorten} {
		say(string(kind), sys, kind, w.request())
	}
	got := text.String()
	if *update {
		if err := os.WriteFile("testdata/words.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/words.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("words (-want +got); UPDATE_GOLDEN=1 writes them anew:\n%s", diff)
	}
	for kind := range verbs {
		if verbs[kind] == "" {
			t.Errorf("%s has no words", kind)
		}
	}
}
