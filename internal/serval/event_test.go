package serval

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var testChain = NewChain(NewSecret("0123456789abcdef0123456789abcdef"))

func testEvents() []Event {
	return []Event{
		{Seq: 1, At: t0, ActorKind: KindSystem, Actor: "system", Action: AccountDeclare, Target: "111122223333", Outcome: OutcomeDone},
		{Seq: 2, At: t0.Add(time.Second), ActorKind: KindPerson, ActorID: "p-ana", Actor: "ana@example.com", Action: RequestCreate,
			Target: "r1", Outcome: OutcomeRefused, Reason: "Policy dev allows at most 120 minutes.", RequestID: "h-1", Address: "192.0.2.1",
			Detail: map[string]string{"minutes": "500", "role": "arn:aws:iam::111122223333:role/dev"}},
		{Seq: 3, At: t0.Add(1500 * time.Millisecond), ActorKind: KindNobody, Actor: "nobody", Action: LoginStart, Outcome: OutcomeFailed},
		{Seq: 4, At: t0.Add(2 * time.Second), ActorKind: KindWorker, ActorID: "hub", Actor: "hub", Action: InventoryAccept, Target: "111122223333", Outcome: OutcomeDone},
		{Seq: 5, At: t0.Add(3 * time.Second), ActorKind: KindPerson, ActorID: "p-ana", Actor: "ana@example.com", Action: SessionOpen, Target: "s1", Outcome: OutcomeStarted},
	}
}

func link(c Chain, prev string, events ...Event) (links []Link) {
	for _, e := range events {
		l := c.Append(prev, e)
		links, prev = append(links, l), l.Hash
	}
	return links
}

// verify walks links from the first row, as a verifier does, and returns what
// is wrong with the first bad one and the head it came to.
func verify(c Chain, links []Link) (head string, err error) {
	var seq int64
	for _, l := range links {
		if err := c.Check(seq, head, l); err != nil {
			return head, err
		}
		seq, head = l.Seq, l.Hash
	}
	return head, nil
}

func TestChain_S77(t *testing.T) { // S-77
	links := link(testChain, Genesis, testEvents()...)
	if head, err := verify(testChain, links); err != nil || head != links[4].Hash {
		t.Fatalf("an untouched chain: got head %q, %v; want %q", head, err, links[4].Hash)
	}

	swapped := func(l []Link) []Link { l[2], l[3] = l[3], l[2]; return l }
	swappedNumbers := func(l []Link) []Link { l = swapped(l); l[2].Seq, l[3].Seq = 3, 4; return l }
	for _, c := range []struct {
		name string
		do   func(l []Link) []Link
		want string
	}{
		{"the first row removed", func(l []Link) []Link { return l[1:] }, "row 1 is missing: row 2 follows row 0"},
		{"a row removed", func(l []Link) []Link { return slices.Delete(l, 2, 3) }, "row 3 is missing: row 4 follows row 2"},
		{"a row removed and the rest numbered again", func(l []Link) []Link {
			l = slices.Delete(l, 2, 3)
			l[2].Seq, l[3].Seq = 3, 4
			return l
		}, "row 3 does not fit"},
		{"a row inserted twice", func(l []Link) []Link { return slices.Insert(l, 2, l[1]) }, "row 3 is missing: row 2 follows row 2"},
		{"a row inserted and the rest numbered again", func(l []Link) []Link {
			l = slices.Insert(l, 2, l[1])
			for i := range l {
				l[i].Seq = int64(i + 1)
			}
			return l
		}, "row 3 does not fit"},
		{"two rows in the other order", swapped, "row 3 is missing: row 4 follows row 2"},
		{"two rows in the other order, numbered again", swappedNumbers, "row 3 does not fit"},
		{"an unknown key", func(l []Link) []Link { l[3].KeyID = "00000000"; return l }, `row 4 was made with key "00000000"`},
		{"no key", func(l []Link) []Link { l[3].KeyID = ""; return l }, `row 4 was made with key ""`},
		{"a key that would write to a terminal", func(l []Link) []Link { l[3].KeyID = "\x1b[2J"; return l }, `row 4 was made with key "\x1b[2J"`},
		{"no hash", func(l []Link) []Link { l[1].Hash = ""; return l }, "row 2 does not fit"},
		{"another row's hash", func(l []Link) []Link { l[1].Hash = l[0].Hash; return l }, "row 2 does not fit"},
		{"a hash in capitals", func(l []Link) []Link { l[1].Hash = strings.ToUpper(l[1].Hash); return l }, "row 2 does not fit"},
		{"a time that cannot be written", func(l []Link) []Link { l[1].At = time.Date(290000, 1, 1, 0, 0, 0, 0, time.UTC); return l }, "row 2 does not fit"},
	} {
		_, err := verify(testChain, c.do(slices.Clone(links)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}

	// A cut tail looks whole; the published head tells.
	if head, err := verify(testChain, links[:3]); err != nil || head == links[4].Hash {
		t.Errorf("a cut chain: got head %q, %v; want it whole, with another head", head, err)
	}
	// So does a chain made anew by who has the secret.
	events := testEvents()
	events[1].Outcome = OutcomeDone
	if head, err := verify(testChain, link(testChain, Genesis, events...)); err != nil || head == links[4].Hash {
		t.Errorf("a rewritten chain: got head %q, %v; want it whole, with another head", head, err)
	}
}

// TestChain_tamper_S77 changes each field of an event in turn.
func TestChain_tamper_S77(t *testing.T) { // S-77
	links := link(testChain, Genesis, testEvents()...)
	fields := reflect.TypeFor[Event]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		for row := range links {
			tampered := slices.Clone(links)
			f := reflect.ValueOf(&tampered[row].Event).Elem().Field(i)
			switch v := f.Interface().(type) {
			case time.Time:
				f.Set(reflect.ValueOf(v.Add(time.Microsecond)))
			case int64:
				f.SetInt(v + 1)
			case map[string]string:
				f.Set(reflect.ValueOf(map[string]string{"minutes": "500", "role": ""}))
			default:
				f.SetString(f.String() + " ")
			}
			_, err := verify(testChain, tampered)
			if want := fmt.Sprintf("row %d ", row+1); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s of row %d changed: got %v, want an error that begins %q", name, row+1, err, want)
			}
		}
	}
	emptied := slices.Clone(links)
	emptied[1].Detail = nil
	if _, err := verify(testChain, emptied); err == nil {
		t.Error("the detail of row 2 taken away: not found")
	}
	// Fields next to each other cannot lend each other text.
	moved := slices.Clone(links)
	moved[1].Target, moved[1].Actor = "", "ana@example.comr1"
	if _, err := verify(testChain, moved); err == nil {
		t.Error("text moved from one field to another: not found")
	}
}

func TestChain_rotation(t *testing.T) {
	older, newer := NewSecret("an older secret of 32 bytes or so"), NewSecret("a newer secret of 32 bytes or more")
	events := testEvents()
	before := NewChain(older)
	links := link(before, Genesis, events[:2]...)
	after := NewChain(newer, older)
	links = append(links, link(after, links[1].Hash, events[2:]...)...)

	if links[1].KeyID == links[2].KeyID {
		t.Error("after the rotation rows are still made with the older key")
	}
	if _, err := verify(after, links); err != nil {
		t.Errorf("with both secrets: %v", err)
	}
	if _, err := verify(NewChain(older, newer), links); err != nil {
		t.Errorf("with both secrets, the other first: %v", err)
	}
	if _, err := verify(NewChain(newer), links); err == nil || !strings.Contains(err.Error(), "row 1 was made with key") {
		t.Errorf("with the newer alone: got %v, want row 1 named", err)
	}
	if _, err := verify(before, links); err == nil || !strings.Contains(err.Error(), "row 3 was made with key") {
		t.Errorf("with the older alone: got %v, want row 3 named", err)
	}
	// A row does not pass under the other key's name.
	links[2].KeyID = links[1].KeyID
	if _, err := verify(after, links); err == nil || !strings.Contains(err.Error(), "row 3 does not fit") {
		t.Errorf("a row under the other key's name: got %v, want row 3 named", err)
	}
	if NewChain(older, older).now != before.now {
		t.Error("the same secret twice makes another key")
	}
}

// hostile is text that people, names and providers may send us.
var hostile = []string{
	"", " ", "\x00", "a\x00b", "\xff\xfe", "cut \xe2\x84", "line\r\nbreak", "\u2028\u2029", "\x1b[31mred", "\u202Eright to left",
	`"quotes" and \ and \u0000`, "<script>alert(1)</script>&amp;", "\U0001F600", "e\u0301", "\uFEFFBOM", "{}", "null", strings.Repeat("x", 10_000),
}

func TestChain_hostile_S25(t *testing.T) { // S-25
	for _, s := range hostile {
		e := Event{Seq: 1, At: t0.Add(1234), ActorKind: KindPerson, ActorID: s, Actor: s, Action: RequestCreate, Target: s,
			Outcome: OutcomeDone, Reason: s, RequestID: s, Address: s, Detail: map[string]string{"k": s, s: "v"}}
		l := testChain.Append(Genesis, e)
		for what, kept := range map[string]string{"actor": l.Actor, "actor id": l.ActorID, "target": l.Target, "reason": l.Reason,
			"request id": l.RequestID, "address": l.Address, "detail": l.Detail["k"]} {
			if !utf8.ValidString(kept) || strings.ContainsRune(kept, 0) {
				t.Errorf("%q as %s is %q, which a database does not keep", s, what, kept)
			}
		}
		if utf8.ValidString(s) && !strings.ContainsRune(s, 0) && l.Reason != s {
			t.Errorf("%q became %q, want it as it is", s, l.Reason)
		}
		// As a store keeps it, and as an export writes it.
		stored := l
		stored.At = time.UnixMicro(l.At.UnixMicro())
		stored.Detail = map[string]string{}
		for k, v := range l.Detail {
			stored.Detail[k] = v
		}
		if err := testChain.Check(0, Genesis, stored); err != nil {
			t.Errorf("%q from a store: %v", s, err)
		}
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var exported Link
		if err := json.Unmarshal(b, &exported); err != nil {
			t.Fatal(err)
		}
		if err := testChain.Check(0, Genesis, exported); err != nil {
			t.Errorf("%q from an export: %v", s, err)
		}
	}
	e := Event{Seq: 1, At: t0, Detail: map[string]string{}}
	if l := testChain.Append(Genesis, e); l.Detail != nil {
		t.Error("an empty detail stays beside none: a store would not tell them apart")
	}
	detail := map[string]string{"k": "a\x00"}
	testChain.Append(Genesis, Event{Seq: 1, At: t0, Detail: detail})
	if detail["k"] != "a\x00" {
		t.Error("Append changed its caller's detail")
	}
}

// TestChain_canonical fixes the bytes that are hashed, and the hashes. If they
// change, no chain that was written before verifies.
func TestChain_canonical(t *testing.T) {
	var b strings.Builder
	prev := Genesis
	for _, e := range testEvents() {
		l := testChain.Append(prev, e)
		text, err := marshal(l.Event)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n%s %s\n", text, l.KeyID, l.Hash)
		prev = l.Hash
	}
	golden(t, "chain.txt", b.String())

	// The form does not depend on where the time was read, or on what is finer
	// than a database keeps.
	e := testEvents()[1]
	e.At = e.At.In(time.FixedZone("far", 9*3600)).Add(999)
	if diff := cmp.Diff(testChain.Append("x", testEvents()[1]), testChain.Append("x", e)); diff != "" {
		t.Errorf("the same instant elsewhere is another row:\n%s", diff)
	}
}

func FuzzChain(f *testing.F) { // T-1
	for _, l := range link(testChain, Genesis, testEvents()...) {
		b, err := json.Marshal(l)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"seq":1,"at":"9999-12-31T23:59:59-23:59"}`))
	f.Add([]byte(`{"seq":1,"at":"2026-01-05T09:00:00Z","actor":"\u0000\ud800","detail":{"a":"\u0000","":""}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var l Link
		if json.Unmarshal(line, &l) != nil {
			return
		}
		testChain.Check(l.Seq-1, "", l) // must not panic, whatever it says
		if year := l.At.UTC().Year(); year < 0 || year > 9999 {
			return
		}
		made := testChain.Append("x", l.Event)
		b, err := json.Marshal(made)
		if err != nil {
			t.Fatal(err)
		}
		var again Link
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatal(err)
		}
		if err := testChain.Check(l.Seq-1, "x", again); err != nil {
			t.Errorf("exported and read again: %v\n%s", err, b)
		}
	})
}
