package edge

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

type body struct {
	Name  string `json:"name"`
	Inner *struct {
		Count int `json:"count"`
	} `json:"inner"`
}

func read(text, contentType string) (body, error) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(text))
	r.Body = http.MaxBytesReader(httptest.NewRecorder(), r.Body, MaxBody)
	if contentType != "none" {
		r.Header["Content-Type"] = strings.Split(contentType, " and ")
	}
	var b body
	err := Decode(r, &b)
	return b, err
}

// S-32: one object, each name once and spelled exactly, nothing behind it.
func TestDecode(t *testing.T) {
	const plain = "application/json"
	for _, test := range []struct {
		text, contentType string
		want              serval.Kind
	}{
		{`{"name":"a","inner":{"count":1}}`, plain, ""},
		{`{"name":"a"}`, "application/json; charset=UTF-8", ""},
		{`{}`, plain, ""},
		{`{"name":"a"}`, "text/plain", serval.Invalid},
		{`{"name":"a"}`, "application/json; charset=latin1", serval.Invalid},
		{`{"name":"a","name":"b"}`, plain, serval.Invalid},
		{`{"inner":{"count":1,"count":2}}`, plain, serval.Invalid},
		{`{"Name":"a"}`, plain, serval.Invalid},
		{"{\"\u017fame\":\"a\"}", plain, serval.Invalid},
		{`{"other":1}`, plain, serval.Invalid},
		{`{"name":1}`, plain, serval.Invalid},
		{`{"name":"a"} {}`, plain, serval.Invalid},
		{`[]`, plain, serval.Invalid},
		{``, plain, ""}, // says as much as {}
		{``, "none", ""},
		{` `, plain, serval.Invalid},
		{`{"name":"a"}`, "none", ""}, // curl and a browser always say something
		{`{"name":"a"}`, "", serval.Invalid},
		{`{"name":"a"}`, plain + " and text/plain", serval.Invalid},
		{"{\"name\":\"\xff\"}", plain, serval.Invalid},
		{strings.Repeat(`{"inner":`, 40) + "1" + strings.Repeat("}", 40), plain, serval.Invalid},
		{`{"name":"` + strings.Repeat("x", MaxBody) + `"}`, plain, serval.TooLarge},
	} {
		_, err := read(test.text, test.contentType)
		if (err == nil) != (test.want == "") || err != nil && !serval.IsRefusal(err, test.want) {
			t.Errorf("%.60q as %s: %v, want %q", test.text, test.contentType, err, test.want)
		}
	}
}

// What is somebody else's document is left as it is; around it is ours.
func TestMembers(t *testing.T) {
	for _, test := range []struct {
		text string
		want string // of policy; "-" for a refusal
	}{
		{`{"policy": {"Version": "1", "Version": "2"}, "context": {}}`, `{"Version": "1", "Version": "2"}`},
		{`{"context":{}}`, ""},
		{`{"policy":1,"policy":2}`, "-"}, {`{"Policy":1}`, "-"}, {`{"policy":1} 2`, "-"}, {`[1]`, "-"}, {``, "-"},
		{`{"policy":`, "-"}, {`{"policy":1`, "-"}, {`{"policy":{]}`, "-"}, {`{"other":1}`, "-"},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(test.text))
		r.Header.Set("Content-Type", "application/json")
		got, err := Members(r, "policy", "context")
		if test.want == "-" && !serval.IsRefusal(err, serval.Invalid) || test.want != "-" && (err != nil || string(got["policy"]) != test.want) {
			t.Errorf("%s: %s, %v; want %s", test.text, got["policy"], err, test.want)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{}`))
	r.Header.Set("Content-Type", "text/plain")
	if _, err := Members(r); !serval.IsRefusal(err, serval.Invalid) {
		t.Errorf("a body that does not say it is JSON: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"name":"a","inner":{"count":1}}`)
	f.Add(`{"name":"a","name":"b"}`)
	f.Add("{\"n\u0041me\":\"\xff\"}")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := read(text, "application/json")
		if err != nil && !serval.IsRefusal(err) {
			t.Errorf("a body is nobody's fault but its sender's: %v", err)
		}
		if err == nil && (!utf8.ValidString(b.Name) || strings.Count(text, `"name"`) > 1 && b.Inner == nil && !strings.Contains(text, `\`) && strings.Count(text, `"name":`) > 1) {
			t.Errorf("%q was taken as %+v", text, b)
		}
	})
}

// A list is cut into pages; what is no page of it is refused.
func TestPage(t *testing.T) {
	for _, test := range []struct {
		query string
		size  int
		after string
		want  serval.Kind
	}{
		{"", DefaultPage, "", ""}, {"page_size=1", 1, "", ""}, {"page_size=1000&page_token=" + PageToken(true, "x/y"), 1000, "x/y", ""},
		{"page_size=0", 0, "", serval.Invalid}, {"page_size=1001", 0, "", serval.Invalid}, {"page_size=x", 0, "", serval.Invalid},
		{"page_token=%25", 0, "", serval.Invalid}, {"page_token=_w", 0, "", serval.Invalid},
		{"pages=1", 0, "", serval.Invalid}, {"page_size=1&page_size=2", 0, "", serval.Invalid}, {"page_size=%ff", 0, "", serval.Invalid},
	} {
		q, err := Query(httptest.NewRequest(http.MethodGet, "/?"+test.query, nil), "page_size", "page_token")
		var size int
		var after string
		if err == nil {
			size, after, err = Page(q)
		}
		if size != test.size || after != test.after || (err == nil) != (test.want == "") || err != nil && !serval.IsRefusal(err, test.want) {
			t.Errorf("%s: %d %q %v, want %d %q %q", test.query, size, after, err, test.size, test.after, test.want)
		}
	}
	if PageToken(false, "x") != "" {
		t.Error("the last page names another")
	}
}

// S-84: so many a minute, and each address for itself.
func TestLimiter(t *testing.T) {
	l := &Limiter{Most: 2}
	at := time.Unix(1_800_000_030, 0)
	for _, test := range []struct {
		address string
		after   time.Duration
		want    serval.Kind
	}{
		{"192.0.2.1", 0, ""}, {"192.0.2.1", 0, ""}, {"192.0.2.1", 0, serval.Exhausted}, {"192.0.2.2", 0, ""},
		{"2001:db8::1", 0, ""}, {"2001:db8::2", 0, ""}, {"2001:db8::3", 0, serval.Exhausted}, {"2001:db8:0:1::1", 0, ""},
		{"192.0.2.1", time.Minute, ""},
	} {
		err := l.Take(test.address, at.Add(test.after))
		if (err == nil) != (test.want == "") || err != nil && !serval.IsRefusal(err, test.want) {
			t.Errorf("%s after %s: %v, want %q", test.address, test.after, err, test.want)
		}
	}
}
