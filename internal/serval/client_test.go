package serval

import (
	"strings"
	"testing"
)

// S-63: a code is only ever sent to a listener on the person's own machine.
func TestLoopbackOrigin(t *testing.T) {
	for uri, want := range map[string]string{
		"http://127.0.0.1:1234/":          "http://127.0.0.1:1234",
		"http://127.0.0.1:65535/callback": "http://127.0.0.1:65535",
		"http://[::1]:80/a-b_C":           "http://[::1]:80",

		"": "", "/": "", "http://127.0.0.1/": "", "http://127.0.0.1:1234": "", "http://127.0.0.1:0/": "", "http://127.0.0.1:65536/": "", "http://127.0.0.1:/": "",
		"https://127.0.0.1:1234/": "", "HTTP://127.0.0.1:1234/": "", "http://localhost:1234/": "", "http://127.0.0.2:1234/": "", "http://127.1:1234/": "",
		"http://0x7f000001:1234/": "", "http://2130706433:1234/": "", "http://0.0.0.0:1234/": "", "http://[::]:1234/": "", "http://[::ffff:127.0.0.1]:1234/": "",
		"http://[::1%25lo]:1234/": "", "http://evil.example:1234/": "", "http://127.0.0.1.evil.example:1234/": "", "http://127.0.0.1:1234@evil.example/": "",
		"http://evil.example@127.0.0.1:1234/": "", "http://127.0.0.1:1234/?": "", "http://127.0.0.1:1234/?a=b": "", "http://127.0.0.1:1234/#": "", "http://127.0.0.1:1234/#x": "",
		"http://127.0.0.1:1234//evil.example": "", "http://127.0.0.1:1234/a/b": "", "http://127.0.0.1:1234/..": "", "http://127.0.0.1:1234/%2e": "", "http://127.0.0.1:1234/\\evil": "",
		"http://127.0.0.1:01234/x y": "", "http://127.0.0.1:1234/\r\nLocation: x": "", " http://127.0.0.1:1234/": "", "javascript:alert(1)": "", "//127.0.0.1:1234/": "",
		"http://127.0.0.1:1234/" + strings.Repeat("a", 65): "",
	} {
		got, err := LoopbackOrigin(uri)
		if got != want || (err == nil) != (want != "") || err != nil && !IsRefusal(err, Invalid) {
			t.Errorf("LoopbackOrigin(%q) is %q, %v; want %q", uri, got, err, want)
		}
	}
}

func FuzzLoopbackOrigin(f *testing.F) {
	f.Add("http://127.0.0.1:1234/callback")
	f.Add("http://[::1]:80/")
	f.Add("http://127.0.0.1:1@evil.example/")
	f.Fuzz(func(t *testing.T, uri string) {
		origin, err := LoopbackOrigin(uri)
		if err != nil {
			return
		}
		rest, v4 := strings.CutPrefix(uri, "http://127.0.0.1:")
		if !v4 {
			var v6 bool
			if rest, v6 = strings.CutPrefix(uri, "http://[::1]:"); !v6 {
				t.Fatalf("%q was taken", uri)
			}
		}
		port, path, _ := strings.Cut(rest, "/")
		if !strings.HasPrefix(uri, origin+"/") || strings.Trim(port, "0123456789") != "" || strings.ContainsAny(path, "/?#\\%@: \r\n") {
			t.Fatalf("%q was taken, with origin %q", uri, origin)
		}
	})
}

func TestClientAsk(t *testing.T) {
	good := ClientAsk{
		Name: "serval 1.2 (linux/amd64)", Host: "ana-laptop.local", Challenge: strings.Repeat("a", 43),
		RedirectURI: "http://127.0.0.1:1234/callback", State: strings.Repeat("s", 16),
	}
	for name, c := range map[string]struct {
		change     func(*ClientAsk)
		ok, device bool // taken as a client's, as a device's
	}{
		"as it is":        {func(*ClientAsk) {}, true, false},
		"a device":        {func(c *ClientAsk) { c.RedirectURI, c.State = "", "" }, false, true},
		"no state":        {func(c *ClientAsk) { c.State = "" }, false, false},
		"a short state":   {func(c *ClientAsk) { c.State = c.State[1:] }, false, false},
		"a strange state": {func(c *ClientAsk) { c.State += "&x" }, false, false},
		"a long state":    {func(c *ClientAsk) { c.State = strings.Repeat("s", 129) }, false, false},
		"no challenge":    {func(c *ClientAsk) { c.Challenge = "" }, false, false},
		"plain":           {func(c *ClientAsk) { c.Challenge += "a" }, false, false},
		"padded":          {func(c *ClientAsk) { c.Challenge = c.Challenge[:42] + "=" }, false, false},
		"no name":         {func(c *ClientAsk) { c.Name = "" }, false, false},
		"a name of ours":  {func(c *ClientAsk) { c.Name = "\u202eserval" }, false, false},
		"markup":          {func(c *ClientAsk) { c.Host = "a<b>" }, false, false},
		"no host":         {func(c *ClientAsk) { c.Host = "" }, false, false},
		"a long host":     {func(c *ClientAsk) { c.Host = strings.Repeat("h", 65) }, false, false},
		"elsewhere":       {func(c *ClientAsk) { c.RedirectURI = "https://evil.example/" }, false, false},

		"a device that is redirected": {func(c *ClientAsk) { c.State = "" }, false, false},
		"a device with a state":       {func(c *ClientAsk) { c.RedirectURI = "" }, false, false},
	} {
		ask := good
		c.change(&ask)
		if err := ask.Check(); (err == nil) != c.ok {
			t.Errorf("%s: Check says %v", name, err)
		}
		if err := ask.CheckDevice(); (err == nil) != c.device {
			t.Errorf("%s: CheckDevice says %v", name, err)
		}
	}
}

func TestChallenge(t *testing.T) {
	for verifier, want := range map[string]string{
		"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", // RFC 7636, appendix B
		"": "", strings.Repeat("a", 42): "", strings.Repeat("a", 129): "", strings.Repeat("a", 42) + "+": "", strings.Repeat("a", 43) + "\n": "",
	} {
		if got := Challenge(NewSecret(verifier)); got != want {
			t.Errorf("the challenge of %q is %q, want %q", verifier, got, want)
		}
	}
}

func TestNetworks(t *testing.T) {
	for _, c := range []struct {
		a, b       string
		near, same bool
	}{
		{"192.0.2.1", "192.0.2.1", true, true},
		{"192.0.2.1", "192.0.2.254", true, false},
		{"192.0.2.1", "::ffff:192.0.2.1", true, true},
		{"192.0.2.1", "192.0.3.1", false, false},
		{"192.0.2.1", "192.0.2.0.1", false, false},
		{"2001:db8::1", "2001:db8::ffff", true, true},
		{"2001:db8::1", "2001:db8:0:0:1::1", true, true},
		{"2001:db8::1", "2001:db8:0:1::1", false, false},
		{"fe80::1%eth0", "fe80::2", true, true},
		{"192.0.2.1", "2001:db8::1", false, false},
		{"", "", false, false},
		{"x", "x", false, false},
	} {
		if IsNear(c.a, c.b) != c.near || IsNear(c.b, c.a) != c.near {
			t.Errorf("IsNear(%q, %q) is not %t", c.a, c.b, c.near)
		}
		if same := NetworkOf(c.a) == NetworkOf(c.b) && NetworkOf(c.a) != ""; same != c.same {
			t.Errorf("NetworkOf(%q) is %q and of %q is %q", c.a, NetworkOf(c.a), c.b, NetworkOf(c.b))
		}
	}
}

func TestSiteOf(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1",
		"2001:db8:1:2::3": "2001:db8:1::/48", "2001:db8:1:ffff::": "2001:db8:1::/48", "2001:db8:2::": "2001:db8:2::/48",
		"": "", "x": "",
	} {
		if got := SiteOf(address); got != want {
			t.Errorf("SiteOf(%q) is %q, want %q", address, got, want)
		}
	}
}
