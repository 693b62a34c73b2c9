package web_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Every page is light, with all that it loads, whatever the estate: 20,000 roles
// that everybody may ask for. How long the server takes is for the benchmark.
const (
	mostWeight = 100 << 10
	manyRoles  = 20_000 - 8 // an account has 20,000 at most, and the estate has eight
)

// many pushes an estate of n roles beside those of the gallery.
func (w *world) many(n int) {
	w.t.Helper()
	w.push(func(g int64) serval.Inventory {
		inv := w.estate(g)
		for i := range n {
			role := inv.Roles[0]
			role.Name = fmt.Sprintf("many-%05d", i)
			role.ARN, role.RoleID = w.arn(role.Name), fmt.Sprintf("AROAMANY%013d", i)
			inv.Roles = append(inv.Roles, role)
		}
		inv.Normalize()
		return inv
	})
}

func TestPagesAreLight(t *testing.T) {
	w := newWorld(t)
	pictures := w.gallery()
	w.many(2000)
	static := 0
	nobody := w.browser()
	for _, path := range []string{"/static/serval.css", "/static/serval.js", "/static/serval.svg"} {
		static += len(nobody.page(path, 200))
	}
	as := map[string]*browser{"": nobody}
	for _, p := range pictures {
		if as[p.who] == nil {
			as[p.who] = w.as(p.who)
		}
		b := as[p.who]
		method := "GET"
		var body any
		if p.form != nil {
			method, body = "POST", p.form
		}
		_, text := b.do(method, p.path, body)
		if n := len(text) + static; n > mostWeight {
			t.Errorf("%s weighs %d bytes with what it loads, want at most %d", p.name, n, mostWeight)
		}
	}
}

// BenchmarkPages measures how long the server takes for each page with 20,000
// roles, in the same process: the median and the slowest of a few; and what the page
// weighs, without what it loads.
func BenchmarkPages(b *testing.B) {
	w := newWorld(b)
	pictures := w.gallery()
	w.many(manyRoles)
	pictures = append(pictures, picture{name: "roles-search", who: "ana", path: "/roles?q=many-19999"}, picture{name: "roles-none-of-many", who: "cy", path: "/roles"})
	as := map[string]*browser{"": w.browser()}
	for _, p := range pictures {
		if p.form != nil {
			continue
		}
		if as[p.who] == nil {
			as[p.who] = w.as(p.who)
		}
		who := as[p.who]
		var took []time.Duration
		b.Run(p.name, func(b *testing.B) {
			weight := 0
			for b.Loop() {
				began := time.Now()
				_, text := who.do("GET", p.path, nil)
				took = append(took, time.Since(began))
				weight = len(text)
				if strings.Contains(text, "Something went wrong") {
					b.Fatal(text)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms-slowest")
			b.ReportMetric(float64(weight)/1024, "KiB")
		})
	}
}
