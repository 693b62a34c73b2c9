package serval

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const testIssuer = "https://acme.okta.com/oauth2/default"

func testMint() Mint {
	return Mint{
		Role:        RoleKey{Partition: "aws", AccountID: "111122223333", RoleID: "AROAEXAMPLE", ARN: "arn:aws:iam::111122223333:role/team/a/dev"},
		SessionName: "ana@example.com",
		Token:       NewSecret("canary"),
		Seconds:     3600,
	}
}

func testMinted() Minted {
	return Minted{
		AccessKeyID:     "ASIAEXAMPLE00000",
		SecretAccessKey: NewSecret("canary"),
		SessionToken:    NewSecret("canary"),
		Expiration:      t0.Add(time.Hour),
		AssumedRoleARN:  "arn:aws:sts::111122223333:assumed-role/dev/ana@example.com", // without the path
		AssumedRoleID:   "AROAEXAMPLE:ana@example.com",
		Audience:        "client",
		Provider:        testIssuer,
		Subject:         "00u1",
	}
}

// TestMint_Check_S80 gets every field of STS's answer wrong in turn.
func TestMint_Check_S80(t *testing.T) { // S-4 S-80 S-85
	for _, c := range []struct {
		name string
		do   func(m *Mint, a *Minted)
		want string // part of the error; empty where the answer is right
	}{
		{"all is right", func(*Mint, *Minted) {}, ""},
		{"a key id that is a line of a file", func(m *Mint, a *Minted) { a.AccessKeyID = "ASIAEXAMPLE00000\ncredential_process = x" }, "else than keys"},
		{"a key id that is too short", func(m *Mint, a *Minted) { a.AccessKeyID = "ASIA" }, "else than keys"},
		{"a key id that is too long", func(m *Mint, a *Minted) { a.AccessKeyID = strings.Repeat("A", 129) }, "else than keys"},
		{"a secret that ends a string", func(m *Mint, a *Minted) { a.SecretAccessKey = NewSecret("a'; x; '") }, "else than keys"},
		{"a secret with PowerShell's other quote", func(m *Mint, a *Minted) { a.SecretAccessKey = NewSecret("a\u2019") }, "else than keys"},
		{"a token of two lines", func(m *Mint, a *Minted) { a.SessionToken = NewSecret("a\nb") }, "else than keys"},
		{"a token without end", func(m *Mint, a *Minted) { a.SessionToken = NewSecret(strings.Repeat("a", 64<<10+1)) }, "else than keys"},
		{"a token as long as any", func(m *Mint, a *Minted) { a.SessionToken = NewSecret(strings.Repeat("a", 64<<10)) }, ""},
		{"a secret and a token of all that base64 is made of", func(m *Mint, a *Minted) {
			a.SecretAccessKey, a.SessionToken = NewSecret("a+/=_.-"), NewSecret("a+/=_.-")
		}, ""},
		{"nothing at all", func(m *Mint, a *Minted) { *a = Minted{} }, "without credentials"},
		{"no access key id", func(m *Mint, a *Minted) { a.AccessKeyID = "" }, "without credentials"},
		{"no secret access key", func(m *Mint, a *Minted) { a.SecretAccessKey = Secret{} }, "without credentials"},
		{"an empty secret access key", func(m *Mint, a *Minted) { a.SecretAccessKey = NewSecret("") }, "without credentials"},
		{"no session token", func(m *Mint, a *Minted) { a.SessionToken = Secret{} }, "without credentials"},

		{"no ARN", func(m *Mint, a *Minted) { a.AssumedRoleARN = "" }, "not for"},
		{"another account", func(m *Mint, a *Minted) {
			a.AssumedRoleARN = "arn:aws:sts::999922223333:assumed-role/dev/ana@example.com"
		}, "not for"},
		{"another role", func(m *Mint, a *Minted) {
			a.AssumedRoleARN = "arn:aws:sts::111122223333:assumed-role/admin/ana@example.com"
		}, "not for"},
		{"another partition", func(m *Mint, a *Minted) {
			a.AssumedRoleARN = "arn:aws-cn:sts::111122223333:assumed-role/dev/ana@example.com"
		}, "not for"},
		{"another session name", func(m *Mint, a *Minted) {
			a.AssumedRoleARN = "arn:aws:sts::111122223333:assumed-role/dev/eve@example.com"
		}, "not for"},
		{"the role's path", func(m *Mint, a *Minted) {
			a.AssumedRoleARN = "arn:aws:sts::111122223333:assumed-role/team/a/dev/ana@example.com"
		}, "not for"},
		{"more behind the ARN", func(m *Mint, a *Minted) { a.AssumedRoleARN += "x" }, "not for"},
		{"our own role ARN is none", func(m *Mint, a *Minted) { m.Role.ARN = "role/dev" }, "invalid role ARN format"},

		{"no role id", func(m *Mint, a *Minted) { a.AssumedRoleID = "" }, "deleted and created again"},
		{"another role id", func(m *Mint, a *Minted) { a.AssumedRoleID = "AROAOTHER:ana@example.com" }, "deleted and created again"},
		{"a role id that only begins as ours", func(m *Mint, a *Minted) { a.AssumedRoleID = "AROAEXAMPLE2:ana@example.com" }, "deleted and created again"},
		{"another session name in the role id", func(m *Mint, a *Minted) { a.AssumedRoleID = "AROAEXAMPLE:eve@example.com" }, "deleted and created again"},

		{"no audience", func(m *Mint, a *Minted) { a.Audience = "" }, "another audience"},
		{"an audience with a prefix", func(m *Mint, a *Minted) { a.Audience = "xclient" }, "another audience"},
		{"an audience with a suffix", func(m *Mint, a *Minted) { a.Audience = "client2" }, "another audience"},
		{"an audience in another case", func(m *Mint, a *Minted) { a.Audience = "Client" }, "another audience"},
		{"a padded audience", func(m *Mint, a *Minted) { a.Audience = " client" }, "another audience"},
		{"a list of audiences", func(m *Mint, a *Minted) { a.Audience = "client,other" }, "another audience"},
		{"no subject", func(m *Mint, a *Minted) { a.Subject = "" }, "another subject"},
		{"another subject", func(m *Mint, a *Minted) { a.Subject = "00U1" }, "another subject"},

		{"the issuer without its scheme", func(m *Mint, a *Minted) { a.Provider = "acme.okta.com/oauth2/default" }, ""},
		{"the provider's ARN", func(m *Mint, a *Minted) {
			a.Provider = "arn:aws:iam::111122223333:oidc-provider/acme.okta.com/oauth2/default"
		}, ""},
		{"no provider", func(m *Mint, a *Minted) { a.Provider = "" }, "another provider"},
		{"another issuer", func(m *Mint, a *Minted) { a.Provider = "https://evil.okta.com/oauth2/default" }, "another provider"},
		{"the issuer in clear", func(m *Mint, a *Minted) { a.Provider = "http://acme.okta.com/oauth2/default" }, "another provider"},
		{"only the issuer's host", func(m *Mint, a *Minted) { a.Provider = "acme.okta.com" }, "another provider"},
		{"a provider of another account", func(m *Mint, a *Minted) {
			a.Provider = "arn:aws:iam::999922223333:oidc-provider/acme.okta.com/oauth2/default"
		}, "another provider"},
		{"a provider of another partition", func(m *Mint, a *Minted) {
			a.Provider = "arn:aws-cn:iam::111122223333:oidc-provider/acme.okta.com/oauth2/default"
		}, "another provider"},
		{"a provider for another issuer", func(m *Mint, a *Minted) { a.Provider = "arn:aws:iam::111122223333:oidc-provider/accounts.google.com" }, "another provider"},

		{"no expiration", func(m *Mint, a *Minted) { a.Expiration = time.Time{} }, "that ended at"},
		{"an expiration in the past", func(m *Mint, a *Minted) { a.Expiration = t0.Add(-time.Hour) }, "that ended at"},
		{"an expiration now", func(m *Mint, a *Minted) { a.Expiration = t0.Add(2 * time.Second) }, "that ended at"},
		{"an expiration in a moment", func(m *Mint, a *Minted) { a.Expiration = t0.Add(2*time.Second + 1) }, ""},
		{"an expiration a minute past what was asked", func(m *Mint, a *Minted) { a.Expiration = t0.Add(time.Hour + time.Minute) }, ""},
		{"an expiration more than a minute past", func(m *Mint, a *Minted) { a.Expiration = t0.Add(time.Hour + time.Minute + 1) }, "more than a minute past"},
		{"an expiration an hour past", func(m *Mint, a *Minted) { a.Expiration = t0.Add(2 * time.Hour) }, "more than a minute past"}, // S-6
		{"less was asked", func(m *Mint, a *Minted) { m.Seconds = 900 }, "more than a minute past"},
	} {
		m, a := testMint(), testMinted()
		c.do(&m, &a)
		err := m.Check(a, testIssuer, "client", "00u1", t0, t0.Add(2*time.Second))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v, want it accepted", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		case err != nil && strings.Contains(err.Error(), "canary"):
			t.Errorf("%s: the error tells a secret: %v", c.name, err)
		}
	}
}

// TestMint_Check_slash is for issuers that end in a slash, as Auth0's do.
func TestMint_Check_slash(t *testing.T) {
	const issuer, provider = "https://acme.auth0.com/", "arn:aws:iam::111122223333:oidc-provider/acme.auth0.com"
	for given, want := range map[string]bool{
		issuer: true, "acme.auth0.com/": true, "acme.auth0.com": true, provider: true, provider + "/": true,
		"https://acme.auth0.com": false, provider + "//": false, "acme.auth0.com//": false,
	} {
		m, a := testMint(), testMinted()
		a.Provider = given
		if err := m.Check(a, issuer, "client", "00u1", t0, t0); (err == nil) != want {
			t.Errorf("provider %q for issuer %q: got %v, want accepted %t", given, issuer, err, want)
		}
	}
}

// Only what was handed over is live, and only until its end: the deny policy of a
// revocation names what is.
func TestSession_IsLive(t *testing.T) {
	for _, c := range []struct {
		state SessionState
		ends  time.Duration
		want  bool
	}{
		{SessionIssued, time.Second, true},
		{SessionIssued, 0, false},
		{SessionIssued, -time.Second, false},
		{SessionStarted, time.Hour, false},
		{SessionFailed, time.Hour, false},
		{SessionDropped, time.Hour, false},
		{SessionUnknown, time.Hour, false},
	} {
		if got := (Session{State: c.state, EndsAt: t0.Add(c.ends)}).IsLive(t0); got != c.want {
			t.Errorf("%s, to end in %s: live %t, want %t", c.state, c.ends, got, c.want)
		}
	}
}

// TestSessionPolicy shows every kind of session policy as an administrator
// would read it.
func TestSessionPolicy(t *testing.T) {
	office := []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	end := time.Date(2026, 1, 5, 11, 30, 15, 999_999_999, time.FixedZone("", 3600)) // 10:30:15 UTC
	for _, c := range []struct {
		file string
		p    SessionPolicy
	}{
		{"plain", SessionPolicy{End: end}},
		{"read-only", SessionPolicy{End: end, ReadOnly: true}},
		{"no-chaining", SessionPolicy{End: end, NoChaining: true}},
		{"networks", SessionPolicy{End: end, Networks: office}},
		{"all", SessionPolicy{End: end, ReadOnly: true, NoChaining: true, Networks: office}},
	} {
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, []byte(c.p.Document()), "", "  "); err != nil {
			t.Errorf("%s is not JSON: %v\n%s", c.file, err, c.p.Document())
			continue
		}
		golden(t, "session-policy-"+c.file+".json", pretty.String()+"\n")
	}
}

// TestSessionPolicy_shape holds every combination to what makes a session
// policy hold: one Allow at most, and limits that are Denies.
func TestSessionPolicy_shape(t *testing.T) {
	var ten []netip.Prefix
	for i := range 10 {
		ten = append(ten, netip.MustParsePrefix(fmt.Sprintf("2001:db8:ffff:eeee:dddd:cccc:bbbb:%x/128", 0xaaa0+i)))
	}
	for i := range 8 {
		p := SessionPolicy{End: t0, ReadOnly: i&1 != 0, NoChaining: i&2 != 0}
		if i&4 != 0 {
			p.Networks = ten
		}
		doc := p.Document()
		if len(doc) >= 2048 {
			t.Errorf("%+v has %d characters, want fewer than 2,048", p, len(doc))
		}
		var parsed struct {
			Version   string
			Statement []struct {
				Effect    string
				Action    any
				Resource  string
				Condition map[string]map[string]any
			}
		}
		d := json.NewDecoder(strings.NewReader(doc))
		d.DisallowUnknownFields()
		if err := d.Decode(&parsed); err != nil || parsed.Version != "2012-10-17" {
			t.Fatalf("%+v: %v\n%s", p, err, doc)
		}
		allows, want := 0, 2
		for _, s := range parsed.Statement {
			if s.Resource != "*" {
				t.Errorf("%+v: a statement on %q, want all", p, s.Resource)
			}
			if s.Effect == "Allow" {
				allows++
				if s.Condition != nil {
					t.Errorf("%+v: the Allow has a condition", p)
				}
			}
		}
		if !p.ReadOnly {
			want++
		}
		if p.NoChaining {
			want++
		}
		if p.Networks != nil {
			want++
		}
		managed := p.ManagedPolicies("aws-cn")
		if allows+len(managed) != 1 || len(parsed.Statement) != want {
			t.Errorf("%+v: %d Allows, %d managed policies, %d statements; want one Allow or managed policy, %d statements",
				p, allows, len(managed), len(parsed.Statement), want)
		}
		if p.ReadOnly {
			if diff := cmp.Diff([]string{"arn:aws-cn:iam::aws:policy/ReadOnlyAccess"}, managed); diff != "" {
				t.Errorf("managed policies (-want +got):\n%s", diff)
			}
		}
	}
}
