package insight

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// estate makes roles as accounts have them: one or two attached policies of
// AWS's, of which there are few, and two inline ones that no other role has, by
// patterns of AWS's own and on resources of one application.
func estate(t testing.TB, n int) []serval.Role {
	random := rand.New(rand.NewPCG(1, 2))
	own := managed(t)
	names := slices.Sorted(maps.Keys(own))
	var patterns []string
	for _, name := range names {
		statements, err := AWS().read(name, own[name].Document)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range statements {
			patterns = append(patterns, s.actions...)
		}
	}
	inline := func(app int) string {
		var statements []string
		for range 4 {
			var actions, resources []string
			for range 6 {
				actions = append(actions, fmt.Sprintf("%q", patterns[random.IntN(len(patterns))]))
			}
			for _, form := range []string{"arn:aws:s3:::app-%d-data/*", "arn:aws:dynamodb:eu-west-1:111122223333:table/app-%d", "arn:aws:sqs:eu-west-1:111122223333:app-%d-*"} {
				resources = append(resources, fmt.Sprintf("%q", fmt.Sprintf(form, app)))
			}
			statements = append(statements, `{"Effect":"Allow","Action":[`+strings.Join(actions, ",")+`],"Resource":[`+strings.Join(resources, ",")+`]}`)
		}
		if app%5 == 0 {
			statements = append(statements, `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringNotEquals":{"aws:RequestedRegion":"eu-west-1"}}}`)
		}
		return `{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`
	}
	roles := make([]serval.Role, n)
	for i := range roles {
		roles[i] = roleWith(inline(i), inline(i))
		roles[i].ARN = fmt.Sprintf("arn:aws:iam::111122223333:role/app-%d", i)
		for range 1 + i%2 {
			roles[i].ManagedPolicies.Policies = append(roles[i].ManagedPolicies.Policies, own[names[random.IntN(len(names))]])
		}
	}
	return roles
}

// cpu returns the CPU time of the process in seconds: what a loaded machine takes
// from others does not count.
func cpu(b *testing.B) float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

// Twenty thousand roles, read before, on one core: to be searched, and as cards.
func BenchmarkRoles(b *testing.B) {
	roles := estate(b, 20_000)
	read := make([]*Powers, len(roles))
	look := func(b *testing.B) {
		b.StopTimer()
		for i, r := range roles {
			read[i] = AWS().Look(r)
		}
		b.StartTimer()
	}
	b.Run("parsing", func(b *testing.B) {
		for b.Loop() {
			for _, r := range roles {
				AWS().Look(r)
			}
		}
	})
	b.Run("index", func(b *testing.B) {
		size := 0
		for b.Loop() {
			look(b)
			begun := cpu(b)
			for i, p := range read {
				size += len(p.Index())
				read[i] = nil
			}
			b.ReportMetric(cpu(b)-begun, "cpu-s/op")
		}
		b.ReportMetric(float64(size)/float64(b.N*len(roles)), "bytes/role")
	})
	b.Run("card", func(b *testing.B) {
		for b.Loop() {
			look(b)
			begun := cpu(b)
			for i, p := range read {
				p.Card()
				read[i] = nil
			}
			b.ReportMetric(cpu(b)-begun, "cpu-s/op")
		}
	})
	b.Run("search", func(b *testing.B) {
		look(b)
		indexes := make([]Index, len(read))
		for i, p := range read {
			indexes[i] = p.Index()
		}
		ability, err := AWS().ParseAbility("s3:write")
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			for _, x := range indexes {
				AWS().Has(x, ability)
			}
		}
	})
}

// An account of five thousand roles, of which each has another statement now.
func BenchmarkChanges(b *testing.B) {
	before := estate(b, 5000)
	for _, every := range []int{100, 10, 1} {
		b.Run(fmt.Sprintf("%d%%", 100/every), func(b *testing.B) {
			for b.Loop() {
				begun := cpu(b)
				for i := 0; i < len(before); i += every {
					after := before[i]
					after.InlinePolicies.Policies = slices.Clone(after.InlinePolicies.Policies)
					after.InlinePolicies.Policies[0].Document = serval.Document(allow("s3:*", "*"))
					AWS().Compare(before[i], after)
				}
				b.ReportMetric(cpu(b)-begun, "cpu-s/op")
			}
		})
	}
}
