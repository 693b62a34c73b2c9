package edge

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

type body struct {
	Name  string            `json:"name"`
	Words []string          `json:"words"`
	Tags  map[string]string `json:"tags"`
	Any   any               `json:"any"`
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
		{"{\"word\u017f\":[]}", plain, serval.Invalid},
		{`{"name":"name","words":["a","a","B"]}`, plain, ""}, // values are no names
		{`{"tags":{"Team":"a"}}`, plain, ""},
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
		{`{"any":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + "}", plain, ""},
		{`{"any":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + "}", plain, serval.Invalid},
		{strings.Repeat(`{"inner":`, 40) + "1" + strings.Repeat("}", 40), plain, serval.Invalid},
		{`{"name":"` + strings.Repeat("x", MaxBody) + `"}`, plain, serval.TooLarge},
	} {
		_, err := read(test.text, test.contentType)
		if (err == nil) != (test.want == "") || err != nil && !serval.IsRefusal(err, test.want) {
			t.Errorf("%.60q as %s: %v, want %q", test.text, test.contentType, err, test.want)
		}
	}
	for text, want := range map[string]string{
		`{"inner":{"count":"x"}}`: `Field "inner.count" has the wrong type: it cannot be a string.`,
		`{"other":1}`:             `Field "other" is not known.`,
	} {
		if _, err := read(text, plain); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
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
		{`[]`, "-"}, {`{"policy":1,"policy":2}`, "-"}, {`{"Policy":1}`, "-"}, {`{"policy":1} 2`, "-"}, {`[1]`, "-"}, {``, "-"},
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

// What a parameter holds is what it may be, or refused: what is misread must not
// choose everything.
func TestParameters(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	readers := map[string]func(text string) (any, error){
		"yes":     func(text string) (any, error) { return Yes(url.Values{"x": {text}}, "x") },
		"days":    func(text string) (any, error) { return Days(text) },
		"instant": func(text string) (any, error) { return Instant(url.Values{"x": {text}}, "x") },
		"seq":     func(text string) (any, error) { return Seq(url.Values{"x": {text}}, "x") },
		"number":  func(text string) (any, error) { return Number(text) },
	}
	for _, test := range []struct {
		reader, text string
		want         any // nil for a refusal
	}{
		{"yes", "", false}, {"yes", "true", true}, {"yes", "false", nil}, {"yes", "1", nil},
		{"days", "", 0}, {"days", "1", 1}, {"days", "3650", 3650}, {"days", "0", nil}, {"days", "3651", nil}, {"days", "x", nil},
		{"instant", "", time.Time{}}, {"instant", "2026-03-01T13:00:00+01:00", at}, {"instant", "2026-03-01", nil},
		{"instant", "1999-12-31T00:00:00Z", nil}, {"instant", "2201-01-01T00:00:00Z", nil},
		{"seq", "", int64(0)}, {"seq", "0", int64(0)}, {"seq", "7", int64(7)}, {"seq", "-1", nil}, {"seq", "x", nil},
		{"number", "", int64(0)}, {"number", "1", int64(1)}, {"number", "0", nil}, {"number", "x", nil},
	} {
		got, err := readers[test.reader](test.text)
		if test.want == nil && !serval.IsRefusal(err, serval.Invalid) || test.want != nil && (err != nil || got != test.want) {
			t.Errorf("%s of %q: %v, %v; want %v", test.reader, test.text, got, err, test.want)
		}
	}
}

// A form is one: what a script of another site posts as text is none.
func TestForm(t *testing.T) {
	for _, test := range []struct {
		text, contentType string
		want              string // of reason; "-" for a refusal
	}{
		{"reason=a+b", "application/x-www-form-urlencoded", "a b"},
		{"reason=a%0D%0Ab%0Dc", "application/x-www-form-urlencoded; charset=utf-8", "a\nb\rc"},
		{"reason=%ff", "application/x-www-form-urlencoded", "\uFFFD"},
		{"reason=a", "text/plain", "-"}, {"reason=a", "", "-"}, {"", "", ""},
		{"reason=%", "application/x-www-form-urlencoded", "-"},
		{"reason=" + strings.Repeat("x", MaxBody), "application/x-www-form-urlencoded", "-"},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(test.text))
		r.Body = http.MaxBytesReader(httptest.NewRecorder(), r.Body, MaxBody)
		r.Header.Set("Content-Type", test.contentType)
		got, err := Form(r)
		if test.want == "-" && !serval.IsRefusal(err, serval.Invalid, serval.TooLarge) || test.want != "-" && (err != nil || got.Get("reason") != test.want) {
			t.Errorf("%.40q as %q: %.40q, %v; want %q", test.text, test.contentType, got.Get("reason"), err, test.want)
		}
	}
}

// What is pushed is JSON, in gzip or not, within its bound; and what is wrong with it
// is told to its sender.
func TestStream(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte(`{"a":1}`))
	z.Close()
	whole := packed.String()
	wrongSum := []byte(whole)
	wrongSum[len(wrongSum)-5] ^= 1
	wrongDeflate := []byte(whole)
	wrongDeflate[10] = 0xff
	for _, test := range []struct {
		name, text, contentType, encoding string
		want                              serval.Kind
	}{
		{"as it is", `{"a":1}`, "application/json", "", ""}, {"as it is, and says so", `{"a":1}`, "application/json", "identity", ""},
		{"packed", whole, "application/json", "gzip", ""}, {"packed, in capitals", whole, "application/json", "GZIP", ""},
		{"no JSON", `{"a":1}`, "text/plain", "", serval.Invalid},
		{"packed otherwise", `{"a":1}`, "application/json", "br", serval.Invalid},
		{"not packed", `{"a":1}`, "application/json", "gzip", serval.Invalid},
		{"nothing", "", "application/json", "gzip", serval.Invalid},
		{"half of it", whole[:len(whole)/2], "application/json", "gzip", serval.Invalid},
		{"its sum is wrong", string(wrongSum), "application/json", "gzip", serval.Invalid},
		{"it is spoilt", string(wrongDeflate), "application/json", "gzip", serval.Invalid},
	} {
		r := httptest.NewRequest(http.MethodPut, "/", strings.NewReader(test.text))
		r.Header.Set("Content-Type", test.contentType)
		r.Header.Set("Content-Encoding", test.encoding)
		body, err := Stream(&Answer{ResponseWriter: httptest.NewRecorder()}, r, 100)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(body)
		}
		if test.want == "" && (err != nil || string(got) != `{"a":1}`) || test.want != "" && !serval.IsRefusal(err, test.want) {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
	}
	r := httptest.NewRequest(http.MethodPut, "/", strings.NewReader(strings.Repeat(" ", 101)))
	body, err := Stream(httptest.NewRecorder(), r, 100)
	if err == nil {
		_, err = io.ReadAll(body)
	}
	if _, long := errors.AsType[*http.MaxBytesError](err); !long {
		t.Errorf("too long: %v", err)
	}
}

// What is logged of an answer is its first status, however it was given.
func TestAnswer(t *testing.T) {
	for _, test := range []struct {
		name string
		give func(a *Answer)
		want int
	}{
		{"nothing", func(*Answer) {}, 0},
		{"a text", func(a *Answer) { a.Write([]byte("x")) }, 200},
		{"a status and a text", func(a *Answer) { a.WriteHeader(404); a.Write([]byte("x")) }, 404},
		{"a hint before it", func(a *Answer) { a.WriteHeader(103); a.WriteHeader(404) }, 404},
		{"another one behind it", func(a *Answer) { a.WriteHeader(404); a.WriteHeader(200) }, 404},
	} {
		a := &Answer{ResponseWriter: httptest.NewRecorder()}
		if test.give(a); a.Status != test.want || a.Written != (test.want != 0) {
			t.Errorf("%s: status %d, written %v; want %d", test.name, a.Status, a.Written, test.want)
		}
	}
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
	if _, err := Query(httptest.NewRequest(http.MethodGet, "/?q=%ff", nil), "q"); !serval.IsRefusal(err, serval.Invalid) {
		t.Errorf("a parameter that is no text: %v", err)
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

// However many come within a minute, no more are counted apart than there is room for:
// the others share one count.
func TestLimiterIsBounded(t *testing.T) {
	l, at := &Limiter{Most: 2}, time.Unix(1_800_000_030, 0)
	one := netip.MustParseAddr("10.0.0.0")
	for range maxCounted {
		if err := l.Take(one.String(), at); err != nil {
			t.Fatal(err)
		}
		one = one.Next()
	}
	for i, test := range []struct {
		address string
		want    bool
	}{{"192.0.2.1", true}, {"192.0.2.2", true}, {"192.0.2.3", false}, {"10.0.0.0", true}, {"10.0.0.0", false}} {
		if err := l.Take(test.address, at); (err == nil) != test.want {
			t.Errorf("%d, %s: %v, want it taken: %v", i+1, test.address, err, test.want)
		}
	}
	if n := len(l.used); n > maxCounted+1 {
		t.Errorf("%d are counted apart", n)
	}
}
