package serval

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// canary is what no output may hold, in clear, hex or base64.
const canary = "canary-3e5"

var canaries = []string{canary, "canar", hex.EncodeToString([]byte("canary")), strings.ToUpper(hex.EncodeToString([]byte("canary"))), "Y2FuYXJ5"}

func holdsCanary(s string) bool {
	for _, c := range canaries {
		if strings.Contains(s, c) {
			return true
		}
	}
	return false
}

// TestSecret_prints puts a secret, and structs around it, through every verb
// and encoding.
func TestSecret_prints(t *testing.T) { // S-5
	type hidden struct {
		secret Secret
		again  *Secret
		list   []Secret
		table  map[string]Secret
		any    any
	}
	type shown struct {
		Secret Secret
		Again  *Secret
		List   []Secret
		Table  map[string]Secret
		Any    any
	}
	s := NewSecret(canary)
	values := map[string]any{
		"the secret":           s,
		"a pointer":            &s,
		"exported in a struct": shown{s, &s, []Secret{s}, map[string]Secret{"k": s}, s},
		"in a pointed struct":  &shown{s, &s, []Secret{s}, map[string]Secret{"k": s}, s},
		"hidden in a struct":   hidden{s, &s, []Secret{s}, map[string]Secret{"k": s}, s},
		"hidden and pointed":   &hidden{s, &s, []Secret{s}, map[string]Secret{"k": s}, s},
		"a list":               []Secret{s},
		"a mint":               Mint{Token: s},
		"a minted":             Minted{SecretAccessKey: s, SessionToken: s},
		"an error around it":   fmt.Errorf("calling with %v: %w", s, errors.New("no")),
	}
	verbs := "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!"
	for name, v := range values {
		for _, verb := range verbs {
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "20.5", "#+"} {
				format := "%" + flags + string(verb)
				if got := fmt.Sprintf(format, v); holdsCanary(got) {
					t.Errorf("%s under %s: %s", name, format, got)
				}
			}
		}
		for how, got := range map[string]string{
			"Sprint":          fmt.Sprint(v),
			"Sprintln":        fmt.Sprintln(v),
			"too few verbs":   fmt.Sprintf("%d", append([]any{1}, v)...),
			"as a width":      fmt.Sprintf("%*d", v, 1),
			"an error of it":  fmt.Errorf("x: %v", v).Error(),
			"slog text":       logged(func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }, v),
			"slog JSON":       logged(func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) }, v),
			"a joined error":  errors.Join(fmt.Errorf("%+v", v), fmt.Errorf("%#v", v)).Error(),
			"a refusal of it": Refuse(Invalid, "%v %+v %#v", v, v, v).Error(),
			"JSON":            encoded(json.Marshal, v),
			"XML":             encoded(xml.Marshal, v),
			"indented JSON":   encoded(func(v any) ([]byte, error) { return json.MarshalIndent(v, "", " ") }, v),
			"JSON, as a key":  encoded(json.Marshal, map[string]any{"k": v}),
			"our JSON":        encoded(marshal, v),
		} {
			if holdsCanary(got) {
				t.Errorf("%s, %s: %s", name, how, got)
			}
		}
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		if got := fmt.Sprintf(format, s); got != "[redacted]" {
			t.Errorf("%s prints %q, want [redacted]", format, got)
		}
		if got := fmt.Sprintf(format, Secret{}); got != "[redacted]" {
			t.Errorf("%s prints the empty secret as %q, want [redacted]: that there is none is a fact too", format, got)
		}
	}
	if s.String() != "[redacted]" || s.GoString() != "[redacted]" {
		t.Errorf("String and GoString: got %q and %q, want [redacted]", s.String(), s.GoString())
	}
	if b, err := json.Marshal(shown{Secret: s}); err != nil || !strings.Contains(string(b), `"Secret":"[redacted]"`) {
		t.Errorf("JSON: got %s, %v; want it redacted", b, err)
	}
	if b, err := json.Marshal(map[Secret]int{s: 1}); err != nil || string(b) != `{"[redacted]":1}` {
		t.Errorf("as a JSON key: got %s, %v; want it redacted", b, err)
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(s); err != nil || holdsCanary(b.String()) || !strings.Contains(b.String(), "[redacted]") {
		t.Errorf("gob: got %q, %v; want it redacted", b.String(), err)
	}
}

func logged(h func(*bytes.Buffer) slog.Handler, v any) string {
	var b bytes.Buffer
	slog.New(h(&b)).Error("failed", "value", v)
	return b.String()
}

func encoded(f func(any) ([]byte, error), v any) string {
	b, err := f(v)
	return fmt.Sprint(string(b), err)
}

func TestSecret(t *testing.T) {
	s, empty := NewSecret("a"), NewSecret("")
	if s.Reveal() != "a" || empty.Reveal() != "" || (Secret{}).Reveal() != "" {
		t.Errorf("Reveal: got %q, %q and %q", s.Reveal(), empty.Reveal(), Secret{}.Reveal())
	}
	if s.Empty() || !empty.Empty() || !(Secret{}).Empty() {
		t.Error("Empty is wrong")
	}
	for _, c := range []struct {
		a, b Secret
		want bool
	}{
		{s, NewSecret("a"), true}, {s, NewSecret("b"), false}, {s, NewSecret("aa"), false}, {s, empty, false},
		{empty, Secret{}, true},
	} {
		if got := c.a.Equal(c.b); got != c.want {
			t.Errorf("%q equals %q: got %t, want %t", c.a.Reveal(), c.b.Reveal(), got, c.want)
		}
	}
	var read struct{ S Secret }
	if err := json.Unmarshal([]byte(`{"S": "from settings"}`), &read); err != nil || read.S.Reveal() != "from settings" {
		t.Errorf("reading settings: got %q, %v", read.S.Reveal(), err)
	}
	if err := read.S.UnmarshalText(nil); err != nil || read.S != (Secret{}) {
		t.Errorf("reading an empty setting: %v, want the zero secret", err)
	}
}

// TestSecret_Key fixes the keys: what was sealed must open after an update.
func TestSecret_Key(t *testing.T) {
	s := NewSecret("0123456789abcdef0123456789abcdef")
	const want = "5aa21b09c62982cb1d3c5343c6149146fa183470973b9652e09c932fa1cf9a46" // computed apart, by RFC 5869
	if got := hex.EncodeToString(s.Key("audit chain")); got != want {
		t.Errorf("the key for the audit chain is %s, want %s", got, want)
	}
	keys := map[string]string{}
	for _, secret := range []string{"", "a", "b", "ab"} {
		for _, purpose := range []string{"", "a", "b", "audit chain", "external id"} {
			k := string(NewSecret(secret).Key(purpose))
			if was, taken := keys[k]; taken || len(k) != 32 {
				t.Errorf("secret %q for %q has %d bytes, or the same key as %s", secret, purpose, len(k), was)
			}
			keys[k] = secret + " for " + purpose
		}
	}
}
