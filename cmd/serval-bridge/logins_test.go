package main

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

var (
	logins     = flag.Int("logins", 0, "how many sign-ins are under way at once (make bench-logins)")
	loginsRate = flag.Int("rate", 500, "of them, how many begin, and then come back, in a second")
)

// A crossing is what became of many sign-ins on one half of their way.
type crossing struct {
	mu    sync.Mutex
	took  []time.Duration
	codes map[string]int
}

func (c *crossing) note(took time.Duration, code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.codes == nil {
		c.codes = map[string]int{}
	}
	c.took = append(c.took, took)
	c.codes[code]++
}

func (c *crossing) log(t *testing.T, what string, lasted time.Duration) {
	t.Helper()
	slices.Sort(c.took)
	at := func(percent int) time.Duration {
		return c.took[(len(c.took)-1)*percent/100].Round(time.Millisecond)
	}
	var codes string
	for _, code := range slices.Sorted(maps.Keys(c.codes)) {
		codes += fmt.Sprintf(" %s: %d", code, c.codes[code])
	}
	t.Logf("%-12s %5.0f a second, p50 %s, p99 %s, most %s;%s", what, float64(len(c.took))/lasted.Seconds(), at(50), at(99), at(100), codes)
}

// TestLoginsAtOnce begins very many sign-ins, each from an address of its own, and
// has all of them come back when all are under way: at a fixed rate, whether the
// bridge keeps up or not. R-45; with -memory in a container's bounds, R-55
func TestLoginsAtOnce(t *testing.T) {
	if *logins == 0 {
		t.Skip("make bench-logins measures")
	}
	b := newBench(t, 20, "")
	client := &http.Client{
		Timeout:       time.Minute,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 256},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(client.CloseIdleConnections)
	type way struct{ back, cookie string }
	ways := make([]way, *logins)
	ask := func(i int, url, cookie string) (*http.Response, time.Duration, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			return nil, 0, err
		}
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255))
		r.Header.Set("Cookie", cookie)
		began := time.Now()
		res, err := client.Do(r)
		if err != nil {
			return nil, time.Since(began), err
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		return res, time.Since(began), nil
	}
	// at calls f for each, so many in a second, and returns how long all took.
	at := func(f func(i int)) time.Duration {
		began := time.Now()
		var wg sync.WaitGroup
		for i := range ways {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(*loginsRate))))
			wg.Go(func() { f(i) })
		}
		wg.Wait()
		return time.Since(began)
	}
	most := 0
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				most = max(most, b.rss())
			}
		}
	})

	var begin, back crossing
	lasted := at(func(i int) {
		res, took, err := ask(i, b.url+"/oidc/auth/login?return_to=/roles", "")
		if err != nil {
			begin.note(took, "no answer")
			return
		}
		begin.note(took, fmt.Sprint(res.StatusCode))
		for _, c := range res.Cookies() {
			ways[i].cookie = c.Name + "=" + c.Value
		}
		ways[i].back = res.Header.Get("Location")
	})
	begin.log(t, "begun", lasted)
	for i, w := range ways { // the provider's part, which is nobody's here
		if w.cookie == "" {
			continue
		}
		to, err := b.idp.SignIn(w.back, "ana@example.com")
		if err != nil {
			t.Fatal(err)
		}
		ways[i].back = to.String()
	}
	lasted = at(func(i int) {
		if ways[i].cookie == "" {
			return
		}
		res, took, err := ask(i, ways[i].back, ways[i].cookie)
		if err != nil {
			back.note(took, "no answer")
			return
		}
		back.note(took, fmt.Sprint(res.StatusCode))
	})
	back.log(t, "came back", lasted)
	close(stop)
	watch.Wait()
	t.Logf("resident: %.1f MiB idle, %.1f MiB at most", float64(b.idle)/(1<<20), float64(most)/(1<<20))
	if b.capped != nil {
		most, killed := b.capped.report(t)
		t.Logf("of %d MiB it used %.1f at most, its files in memory included; killed for want of memory: %d", *capMiB, float64(most)/(1<<20), killed)
		if killed > 0 {
			t.Errorf("R-55: the bridge was killed %d times, want it to send people away instead", killed)
		}
	}
	for code, n := range back.codes {
		if code != "303" && code != "429" && code != "503" {
			t.Errorf("%d came back to %s, want 303, or 429 and 503 where the bridge sheds them", n, code)
		}
	}
}
