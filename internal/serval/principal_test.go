package serval

import (
	"net/mail"
	"strings"
	"testing"
	"unicode/utf8"
)

// emails that fit the grammar, and texts that do not with why.
var (
	goodEmails = []string{
		"ana@example.com", "Ana.Lee+test@Example.COM", "a@b", "o'brien@example.com", "!#$%&'*+-/=?^_`{|}~@example.com",
		"1@2.3", "a@x--y.com", "a@xn--bcher-kva.example", "a.b.c@d.e.f", strings.Repeat("a", 64) + "@example.com",
		"a@" + strings.Repeat("b", 63) + ".com", "a@" + strings.Repeat(strings.Repeat("b", 62)+".", 4) + "com",
	}
	badEmails = map[string]string{
		"":                      "no @",
		"ana":                   "no @",
		"ana.example.com":       "no @",
		"a@evil.com@corp.com":   "more than one @", // CVE-2026-40574
		"a@@corp.com":           "more than one @",
		`"a@b"@corp.com`:        "more than one @",
		"@corp.com":             "empty",
		"a@":                    "empty",
		"@":                     "empty",
		"Admin <x@corp.com>":    "not allowed before the @",
		" a@corp.com":           "not allowed before the @",
		"a @corp.com":           "not allowed before the @",
		"a@corp.com ":           "not a host name",
		"a@ corp.com":           "not a host name",
		"a@corp.com\n":          "not a host name",
		"a\r\nBcc: b@corp.com":  "not allowed before the @",
		"a\x00@corp.com":        "not allowed before the @",
		"a@corp.com\x00":        "not a host name",
		`"a"@corp.com`:          "not allowed before the @",
		`a\b@corp.com`:          "not allowed before the @",
		"a(comment)@corp.com":   "not allowed before the @",
		"a,b@corp.com":          "not allowed before the @",
		"a;b@corp.com":          "not allowed before the @",
		"a:b@corp.com":          "not allowed before the @",
		".a@corp.com":           "a dot stands",
		"a.@corp.com":           "a dot stands",
		"a..b@corp.com":         "a dot stands",
		"a@.corp.com":           "not a host name",
		"a@corp.com.":           "not a host name",
		"a@corp..com":           "not a host name",
		"a@-corp.com":           "not a host name",
		"a@corp-.com":           "not a host name",
		"a@co_rp.com":           "not a host name",
		"a@[192.0.2.1]":         "not a host name",
		"a@corp.com,b@corp.com": "more than one @",
		"a@corp.com>":           "not a host name",

		// S-55: what only looks like ASCII.
		"\u212Aate@corp.com":      "not allowed before the @", // the Kelvin sign
		"\u017Fam@corp.com":       "not allowed before the @", // a long s
		"\uFF41na@corp.com":       "not allowed before the @", // full width
		"an\u200Ba@corp.com":      "not allowed before the @", // zero width
		"an\u00ADa@corp.com":      "not allowed before the @", // a soft hyphen
		"\u202Eana@corp.com":      "not allowed before the @", // right to left
		"a\u0301na@corp.com":      "not allowed before the @", // a combining mark
		"\u00E1na@corp.com":       "not allowed before the @",
		"\uFB01@corp.com":         "not allowed before the @", // the fi ligature
		"ana@\u0441orp.com":       "not a host name",          // a Cyrillic s
		"ana@corp\u3002com":       "not a host name",          // an ideographic full stop
		"ana\uFF20corp.com":       "no @",                     // a full-width @
		"ana@cor\u2100p.com":      "not a host name",
		"ana@b\u00FCcher.example": "not a host name",
		"\uFEFFana@corp.com":      "not allowed before the @",
		"ana\xff@corp.com":        "not allowed before the @",
		"ana@corp\xff.com":        "not a host name",

		strings.Repeat("a", 65) + "@corp.com":                                "too long",
		"a@" + strings.Repeat(strings.Repeat("b", 63)+".", 4):                "too long",
		"a@" + strings.Repeat("b", 64) + ".com":                              "not a host name",
		strings.Repeat("x", 1<<20) + "@" + strings.Repeat("evil.com ", 1000): "too long",
	}
)

func TestParseEmail_S14(t *testing.T) { // S-14 S-55
	for _, e := range goodEmails {
		if got, err := ParseEmail(e); err != nil || got != e {
			t.Errorf("ParseEmail(%q) = %q, %v; want it as it is", e, got, err)
		}
	}
	for e, want := range badEmails {
		got, err := ParseEmail(e)
		if got != "" || kindOf(err) != Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseEmail(%.60q) = %q, %v; want it refused as invalid with %q", e, got, err, want)
			continue
		}
		if text := err.Error(); len(text) > 500 || !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\r\n\x1b\u202e") {
			t.Errorf("the refusal of %.60q is not fit to be shown: %q", e, text)
		}
	}
}

func TestSameEmail_S55(t *testing.T) { // S-55
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"ana@example.com", "ana@example.com", true},
		{"ana@example.com", "ANA@Example.COM", true},
		{"@[`{", "@[`{", true},
		{"az@x", "AZ@X", true},
		{"ana@example.com", "ana@example.co", false},
		{"ana@example.com", "ana@example.com ", false},
		{"a@x", "`@x", false}, // next to the letters: 0x60 is 0x40 with the bit of case
		{"{@x", "[@x", false},
		{"kate@x", "\u212Aate@x", false},
		{"sam@x", "\u017Fam@x", false},
		{"\u00E9@x", "\u00C9@x", false},
		{"i@x", "\u0130@x", false},
		{"i@x", "\u0131@x", false},
		{"ana@x", "\uFF41na@x", false},
		{"ana@x", "an\u200Ba@x", false},
		{"\u00E9@x", "e\u0301@x", false},
		{"a\xff@x", "a\xfe@x", false},
		{"a\xff@x", "a\uFFFD@x", false},
	} {
		if got := SameEmail(c.a, c.b); got != c.want {
			t.Errorf("SameEmail(%q, %q) = %t, want %t", c.a, c.b, got, c.want)
		}
		if got := SameEmail(c.b, c.a); got != c.want {
			t.Errorf("SameEmail(%q, %q) = %t, want %t", c.b, c.a, got, c.want)
		}
		if got := FoldEmail(c.a) == FoldEmail(c.b); got != c.want {
			t.Errorf("FoldEmail of %q and %q: same %t, want %t", c.a, c.b, got, c.want)
		}
	}
}

func FuzzParseEmail(f *testing.F) { // T-1
	for _, e := range goodEmails {
		f.Add(e)
	}
	for e := range badEmails {
		if len(e) < 1000 {
			f.Add(e)
		}
	}
	f.Fuzz(func(t *testing.T, address string) {
		got, err := ParseEmail(address)
		if err != nil {
			if got != "" || !IsRefusal(err, Invalid) {
				t.Errorf("ParseEmail(%q) = %q, %v; want nothing and a refusal", address, got, err)
			}
			return
		}
		if got != address || strings.Count(got, "@") != 1 || len(got) > 320 {
			t.Errorf("ParseEmail(%q) = %q", address, got)
		}
		for _, b := range []byte(got) {
			if b <= ' ' || b >= 0x7f || strings.IndexByte(`"(),:;<>[\]`, b) >= 0 {
				t.Errorf("ParseEmail(%q) let %q pass", address, b)
			}
		}
		// Whoever reads it by RFC 5322 reads the same address.
		if a, err := mail.ParseAddress(got); err != nil || a.Address != got || a.Name != "" {
			t.Errorf("ParseEmail(%q): net/mail reads %v, %v", address, a, err)
		}
		if fold := FoldEmail(got); !SameEmail(got, fold) || FoldEmail(fold) != fold {
			t.Errorf("FoldEmail(%q) = %q", got, fold)
		}
	})
}

func TestPrincipal(t *testing.T) {
	for _, c := range []struct {
		who  Principal
		name string
		a, b bool // may push account a, b
	}{
		{as(ana), "ana@example.com", false, false},
		{admin, "ada@example.com", false, false},
		{worker, "hub", true, true},
		{Principal{Kind: KindWorker, Worker: "hub", Bound: []string{"a"}}, "hub", true, false},
		{Principal{Kind: KindWorker, Worker: "hub", Bound: []string{}}, "hub", false, false},
		{system, "system", false, false},
		{nobody, "nobody", false, false},
		{Principal{Kind: KindNobody, Person: ana, Worker: "hub"}, "nobody", false, false},
		{Principal{Kind: "root", Person: ana, Worker: "hub", Bound: []string{"a"}}, "nobody", false, false},
	} {
		if got := c.who.Name(); got != c.name {
			t.Errorf("%+v is named %q, want %q", c.who, got, c.name)
		}
		if a, b := c.who.MayPush("a"), c.who.MayPush("b"); a != c.a || b != c.b {
			t.Errorf("%s may push a %t, b %t; want %t, %t", c.name, a, b, c.a, c.b)
		}
	}
}

func TestRefusal(t *testing.T) {
	err := Refuse(Conflict, "It is %s.", "gone")
	if err.Error() != "It is gone." || kindOf(err) != Conflict {
		t.Errorf("got %q of kind %q", err, kindOf(err))
	}
	wrapped := &wrap{err}
	for _, c := range []struct {
		err   error
		kinds []Kind
		want  bool
	}{
		{err, nil, true}, {wrapped, nil, true}, {err, []Kind{Conflict}, true}, {wrapped, []Kind{Denied, Conflict}, true},
		{err, []Kind{Denied}, false}, {nil, nil, false}, {nil, []Kind{Conflict}, false}, {&wrap{}, nil, false},
	} {
		if got := IsRefusal(c.err, c.kinds...); got != c.want {
			t.Errorf("IsRefusal(%v, %v) = %t, want %t", c.err, c.kinds, got, c.want)
		}
	}
}

// A wrap is an error around another, or a fault around nothing.
type wrap struct{ err error }

func (w *wrap) Error() string { return "a fault" }
func (w *wrap) Unwrap() error { return w.err }
