package lobby

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// what waits in memory is bounded by its size too.
func TestLobbyIsBounded(t *testing.T) {
	var l Lobby
	now := time.Unix(1_800_000_000, 0)
	const sealed = maxBytes / 100
	for n := range 300 {
		a := Attempt{State: fmt.Sprint(n), Network: fmt.Sprint(n), Site: fmt.Sprint(n), Sealed: strings.Repeat("x", sealed), CreatedAt: now, ExpiresAt: now.Add(time.Minute)}
		if err := l.Keep(a, Bound{300, 20_000}); err != nil {
			t.Fatal(err)
		}
		if l.bytes > maxBytes || l.bytes != l.order.Len()*sealed || len(l.byState) != l.order.Len() || len(l.here) != l.order.Len() {
			t.Fatalf("after %d there are %d bytes of %d attempts of %d networks", n, l.bytes, l.order.Len(), len(l.here))
		}
	}
	if n := l.order.Len(); n < 90 {
		t.Errorf("%d are left, want about as many as fit", n)
	}
	if _, found := l.Take("299", "", now); !found {
		t.Error("the last that began is not there")
	}
}

// Those who begin while somebody writes are written together, each once, and hear
// what came of it; whoever gives up keeps nobody.
func TestDepartures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := Depart()
		var wrote []string
		write := func(ctx context.Context, together []Attempt) error {
			states := ""
			for _, a := range together {
				states += a.State
			}
			wrote = append(wrote, states)
			switch states {
			case "x":
				return errors.New("no")
			case "p":
				panic("p")
			case "h":
				<-ctx.Done()
				return ctx.Err()
			}
			time.Sleep(time.Second)
			return ctx.Err()
		}
		var wg sync.WaitGroup
		begin := func(ctx context.Context, state string, fails bool) {
			wg.Go(func() {
				defer func() { _ = recover() }()
				if err := d.Keep(ctx, Attempt{State: state}, write); (err != nil) != fails {
					t.Errorf("%s: %v, want an error: %t", state, err, fails)
				}
			})
			synctest.Wait()
		}
		leader, leave := context.WithCancel(t.Context())
		impatient, giveUp := context.WithCancel(t.Context())
		begin(leader, "a", false)
		leave() // whoever writes for others goes on
		begin(t.Context(), "b", false)
		begin(t.Context(), "c", false)
		begin(impatient, "i", true)
		begin(t.Context(), "d", false)
		giveUp()
		wg.Wait()
		begin(t.Context(), "x", true)
		begin(t.Context(), "p", true)
		began := time.Now()
		begin(t.Context(), "h", true)
		begin(t.Context(), "e", false)
		wg.Wait()
		if took := time.Since(began); took != WriteTime+time.Second {
			t.Errorf("behind a database that hangs it took %s, want %s", took, WriteTime+time.Second)
		}
		if diff := cmp.Diff([]string{"a", "bcd", "x", "p", "h", "e"}, wrote); diff != "" {
			t.Errorf("written (-want +got):\n%s", diff)
		}
	})
}
