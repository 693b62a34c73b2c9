package trust

import (
	"encoding/json"
	"syscall"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Whatever is read is judged in bounded time, and a mend of it works.
func FuzzParse(f *testing.F) {
	for _, row := range table {
		b, err := row.given(f).MarshalJSON()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(row.policy, b)
	}
	f.Fuzz(func(t *testing.T, text string, context []byte) {
		p, err := Parse(serval.Document(text))
		if err != nil {
			if !serval.IsRefusal(err, serval.Invalid) {
				t.Errorf("%v is no refusal", err)
			}
			return
		}
		c, err := ParseContext(context)
		if err != nil {
			return
		}
		start := time.Now()
		v := p.Judge(c)
		p.Findings(ours)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("took %v", took)
		}
		if v.Reason == "" || (v.Verdict != Works && v.Verdict != Fails && v.Verdict != Unknown) {
			t.Errorf("verdict %+v", v)
		}
		if v.Mend == nil {
			return
		}
		mended, err := Parse(serval.Document(v.Mend.JSON))
		if err != nil {
			t.Fatalf("the mend: %v\n%s", err, v.Mend.JSON)
		}
		if after := mended.Judge(c); after.Verdict != Works {
			t.Errorf("mended, it is %q (%s)\n%s", after.Verdict, after.Reason, v.Mend.JSON)
		}
	})
}

// BenchmarkJudge reads and judges 20,000 policies, a third of which fail and are
// mended: less than a second of one core. In the same run encoding/json decodes the
// same documents, so that machines can be compared.
func BenchmarkJudge(b *testing.B) {
	policies := []string{
		policy(when(closed)),
		policy(when(aud), statementOf("Allow", rootOf, `["sts:AssumeRole", "sts:TagSession"]`, `{"StringEquals": {"sts:ExternalId": "xid-1"}}`)),
		policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": "0oaOLD"}}`)),
	}
	c := web()(b)
	var judging, decoding time.Duration // of the processor
	for b.Loop() {
		before := processor(b)
		for i := range 20000 {
			var any map[string]any
			if err := json.Unmarshal([]byte(policies[i%len(policies)]), &any); err != nil {
				b.Fatal(err)
			}
		}
		between := processor(b)
		for i := range 20000 {
			p, err := Parse(serval.Document(policies[i%len(policies)]))
			if err != nil {
				b.Fatal(err)
			}
			if v := p.Judge(c); v.Verdict == Unknown {
				b.Fatal(v.Reason)
			}
		}
		decoding += between - before
		judging += processor(b) - between
	}
	b.ReportMetric(judging.Seconds()/float64(b.N), "s-processor")
	b.ReportMetric(float64(judging)/float64(decoding), "x-decoding")
}

// processor returns the time that the process has had of the processor.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
