package door

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

// Who is served while they act and while they look, and what stands back for nobody.
func TestWhoIsServed(t *testing.T) {
	s, err := store.Open(t.Context(), store.Config{URL: serval.NewSecret(sqlitetest.URLOf(t, storetest.Migrate)),
		Chain: serval.NewChain(serval.NewSecret("a root secret of a test, long enough"))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d := New(s, zap.NewNop())
	for _, test := range []struct {
		who        serval.Principal
		acts, sees serval.Action // which they may
		want       int
	}{
		{serval.Principal{}, serval.LoginCreate, serval.LoginRead, 1},
		{serval.Principal{Kind: serval.KindNobody}, serval.LoginCreate, serval.LoginRead, 1},
		{serval.Principal{Kind: serval.KindPerson}, serval.RequestCreate, serval.RoleRead, 1},
		{serval.Principal{Kind: serval.KindWorker, Worker: "hub"}, serval.InventoryAccept, serval.UpstreamRead, 0},
		{serval.System(), serval.RoleChange, serval.RoleChange, 0},
	} {
		ran, expected := 0, -1
		served := func() error {
			ran++
			if d.Passage.people != test.want {
				t.Errorf("%q: %d are being served, want %d", test.who.Kind, d.Passage.people, test.want)
			}
			return nil
		}
		err := errors.Join(
			d.Act(t.Context(), test.who, test.acts, "", func(*store.Tx, *serval.Event) error { return served() }, func(*store.Tx) { expected = d.Passage.people }),
			d.View(t.Context(), test.who, test.sees, "", func(*store.View) error { return served() }))
		if err != nil || ran != 2 {
			t.Errorf("%q: served %d times, %v", test.who.Kind, ran, err)
		}
		if expected != test.want {
			t.Errorf("%q: before the database is asked %d are being served, want %d", test.who.Kind, expected, test.want)
		}
		if d.Passage.people != 0 {
			t.Errorf("%q: %d are being served afterwards", test.who.Kind, d.Passage.people)
		}
	}
}

// For how long a haul stands back that went on for so long, while somebody is served for
// so long.
func TestGiveWay(t *testing.T) {
	for _, test := range []struct {
		went, served, want time.Duration
	}{
		{time.Minute, 0, 0},
		{haulStep - 1, time.Minute, 0},             // too soon to look
		{haulStep, haulStep, haulStep + comesBack}, // they might have come back
		{haulStep, time.Minute, haulOwes * haulStep},
		{haulStep, haulOwes*haulStep - comesBack/2, haulOwes * haulStep},
		{time.Minute, time.Minute, haulGives},
		{time.Minute, haulGives / 2, haulGives/2 + comesBack},
	} {
		synctest.Test(t, func(t *testing.T) {
			var p Passage
			if test.served > 0 {
				p.enter()
				p.enter() // two of them
				p.leave()
			}
			h := p.Haul()
			time.Sleep(test.went)
			if test.served > 0 {
				var wg sync.WaitGroup
				defer wg.Wait()
				wg.Go(func() {
					time.Sleep(test.served)
					p.leave()
				})
			}
			began := time.Now()
			if err := h.GiveWay(t.Context()); err != nil || time.Since(began) != test.want {
				t.Errorf("having gone on for %s, with somebody served for %s, it stood back for %s, %v; want %s",
					test.went, test.served, time.Since(began), err, test.want)
			}
		})
	}
}

// Only some hauls stand back at once: all connections may be theirs, and people wait for
// one.
func TestHaulsThatStandBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Passage
		p.enter()
		for round := range 2 { // those that have stood back make room
			var hauls []*Haul
			for range haulsBack + 1 {
				hauls = append(hauls, p.Haul())
			}
			time.Sleep(time.Minute)
			var wg sync.WaitGroup
			for _, h := range hauls[:haulsBack] {
				wg.Go(func() {
					if began, err := time.Now(), h.GiveWay(t.Context()); err != nil || time.Since(began) != haulGives {
						t.Errorf("round %d: it stood back for %s, %v; want %s", round, time.Since(began), err, haulGives)
					}
				})
			}
			synctest.Wait()
			if began, err := time.Now(), hauls[haulsBack].GiveWay(t.Context()); err != nil || time.Since(began) != 0 {
				t.Errorf("round %d: one more stood back for %s, %v", round, time.Since(began), err)
			}
			wg.Wait()
		}
	})
}

// Whoever comes back at once, as between two acts of one request, is not gone.
func TestComingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Passage
		h := p.Haul()
		time.Sleep(time.Minute)
		p.enter()
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 3 {
				time.Sleep(comesBack)
				p.leave()
				time.Sleep(comesBack - 1)
				p.enter()
			}
			time.Sleep(comesBack)
			p.leave()
		})
		began, want := time.Now(), 3*(2*comesBack-1)+2*comesBack
		if err := h.GiveWay(t.Context()); err != nil || time.Since(began) != want {
			t.Errorf("it stood back for %s, %v; want %s", time.Since(began), err, want)
		}
		wg.Wait()
		time.Sleep(haulStep)
		began = time.Now()
		if err := h.GiveWay(t.Context()); err != nil || time.Since(began) != 0 {
			t.Errorf("for nobody it stood back for %s, %v", time.Since(began), err)
		}
	})
}

// However many people come, a haul comes to its end: it stands back seven times as long
// as it goes on.
func TestAHaulIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Passage
		p.enter() // and somebody always is
		h, began := p.Haul(), time.Now()
		const steps, step = 100, time.Millisecond / 2
		for range steps {
			time.Sleep(step)
			if err := h.GiveWay(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != (1+haulOwes)*steps*step {
			t.Errorf("%s of work took %s, want eight times that", steps*step, took)
		}
	})
}

// Between two steps that hold everybody up a haul waits as long as it did, within bounds,
// whoever is there; then for whoever is being served; and not for somebody who is gone.
func TestStandBack(t *testing.T) {
	const went = time.Millisecond / 2
	for _, test := range []struct {
		took   time.Duration
		served bool
		want   time.Duration
	}{
		{0, false, 0},
		{3 * time.Millisecond, false, 3 * time.Millisecond},
		{time.Minute, false, haulPauses},
		{3 * time.Millisecond, true, 3*time.Millisecond + haulOwes*went}, // what it stands back is none of its own time
	} {
		synctest.Test(t, func(t *testing.T) {
			var p Passage
			if test.served {
				p.enter()
			}
			h := p.Haul()
			time.Sleep(went)
			began := time.Now()
			if err := h.StandBack(t.Context(), test.took); err != nil || time.Since(began) != test.want {
				t.Errorf("after %s, somebody served: %v, it stood back for %s, %v; want %s", test.took, test.served, time.Since(began), err, test.want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		var p Passage
		p.enter()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		h := p.Haul()
		time.Sleep(time.Second)
		began := time.Now()
		if err := h.StandBack(ctx, time.Minute); !errors.Is(err, context.Canceled) || time.Since(began) != 0 {
			t.Errorf("for somebody who is gone it stood back for %s, %v", time.Since(began), err)
		}
		if err := h.GiveWay(ctx); !errors.Is(err, context.Canceled) || time.Since(began) != 0 {
			t.Errorf("for somebody who is gone it gave way for %s, %v", time.Since(began), err)
		}
	})
}

// Somebody is served once, also where the transaction is run again, and from then on
// when it begins: whoever waits for a connection may wait for that of a haul.
func TestVisit(t *testing.T) {
	var p Passage
	v := visit{of: &p}
	if v.end(); p.people != 0 {
		t.Errorf("%d are served before anything began", p.people)
	}
	person := serval.Principal{Kind: serval.KindPerson}
	v.begin(serval.System())
	if v.begin(person); p.people != 1 {
		t.Errorf("%d are served, want one", p.people)
	}
	if v.begin(person); p.people != 1 {
		t.Errorf("run again, %d are served, want one", p.people)
	}
	if v.end(); p.people != 0 {
		t.Errorf("%d are served in the end", p.people)
	}
}
