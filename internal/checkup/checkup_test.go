package checkup_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/checkup"
)

func TestList(t *testing.T) {
	var asked []string
	list := checkup.List[string]{
		{ID: "one", Run: func(ctx context.Context, of string) []checkup.Finding {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("a check has no deadline")
			}
			asked = append(asked, of)
			return checkup.Found("one.a", checkup.OK, "", "It is %s.", of)
		}},
		{ID: "two", Run: func(context.Context, string) []checkup.Finding {
			t.Error("what is to be skipped was looked at")
			return nil
		}},
		{ID: "three", Run: func(context.Context, string) []checkup.Finding {
			return checkup.Found("three", checkup.Fail, "Mend\x1b[2J\nit.", "It is \x1b]0;broken\x07.")
		}},
	}
	if err := list.CheckSkip([]string{"two", "four"}); err == nil || err.Error() != `there is no check "four"; there are one, two, three.` {
		t.Errorf("a check there is none of: %v", err)
	}
	if err := list.CheckSkip([]string{"two"}); err != nil {
		t.Errorf("a check there is: %v", err)
	}
	found := list.Run(t.Context(), "this", []string{"two"})
	var table, lines strings.Builder
	if err := checkup.WriteTable(&table, found); err != nil {
		t.Fatal(err)
	}
	if err := checkup.WriteJSON(&lines, found[:2]); err != nil {
		t.Fatal(err)
	}
	want := "ok    one.a                 It is this.\n" +
		"skip  two                   Left out, as was asked.\n" +
		"fail  three                 It is  ]0;broken .\n" +
		"                            Mend [2J it.\n"
	if d := cmp.Diff(want, table.String()); d != "" {
		t.Errorf("the table (-want +got):\n%s", d)
	}
	wantJSON := `{"findings":[{"id":"one.a","state":"ok","text":"It is this.","mend":""},{"id":"two","state":"skip","text":"Left out, as was asked.","mend":""}]}` + "\n"
	if d := cmp.Diff(wantJSON, lines.String()); d != "" {
		t.Errorf("as JSON (-want +got):\n%s", d)
	}
	if checkup.Healthy(found) || !checkup.Healthy(found[:2]) {
		t.Error("healthy is what has no failure")
	}
}

func TestKnock(t *testing.T) {
	for name, tt := range map[string]struct {
		serve func(http.Handler) *httptest.Server
		want  string
	}{
		"it answers, whatever": {httptest.NewServer, "ok"}, "it cannot be trusted": {httptest.NewTLSServer, "fail"},
	} {
		server := tt.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound) // which is not followed
		}))
		server.Config.ErrorLog = nil
		f := checkup.Knock(t.Context(), "sts", server.URL, "SERVAL_STS_ENDPOINT", "Let it be reached.")
		server.Close()
		if len(f) != 1 || f[0].State != tt.want || tt.want == "fail" && !strings.Contains(f[0].Mend, "breaks TLS open") {
			t.Errorf("%s: %+v, want %s", name, f, tt.want)
		}
	}
	if f := checkup.Knock(t.Context(), "sts", "http://127.0.0.1:1", "S", "Let it be reached."); f[0].State != checkup.Fail || f[0].Mend != "Let it be reached." {
		t.Errorf("nobody is there: %+v", f)
	}
	if f := checkup.Knock(t.Context(), "sts", "http://[", "SERVAL_STS_ENDPOINT", "Let it be reached."); f[0].State != checkup.Fail || f[0].Mend != "Check SERVAL_STS_ENDPOINT." {
		t.Errorf("no endpoint: %+v", f)
	}
}

// A full that takes n writes.
type full struct{ n int }

func (f *full) Write(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		return 0, errors.New("no space")
	}
	return len(p), nil
}

// What cannot be written is not taken for said.
func TestWriteTableFails(t *testing.T) {
	findings := []checkup.Finding{{ID: "a", State: checkup.Fail, Text: "t", Mend: "m"}}
	if err := checkup.WriteTable(&full{}, []checkup.Finding{{ID: "a", State: checkup.OK, Text: "t"}}); err == nil {
		t.Error("without room for a line that needs no mend: no error")
	}
	for n, fails := range []bool{true, true, false} {
		if err := checkup.WriteTable(&full{n}, findings); (err != nil) != fails {
			t.Errorf("with room for %d lines: %v, want an error: %t", n, err, fails)
		}
	}
}
