package login

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// fuzzWorld is a provider reached in memory, and our side of it.
func fuzzWorld(f *testing.F) (*idptest.Provider, *Provider) {
	const issuer = "https://acme.okta.com"
	c := newClock()
	idp := idptest.New(idptest.Options{
		ClientID: testClient, ClientSecret: testSecret, RedirectURIs: []string{testRedirect},
		People: []idptest.Person{ana}, Now: c.Now, Issuer: issuer, ResponseIss: true,
	})
	p, err := New(Config{
		Issuer: issuer, ClientID: testClient, ClientSecret: serval.NewSecret(testSecret), RedirectURL: testRedirect,
		Now: c.Now, HTTPClient: newTransportClient(idp),
	})
	if err != nil {
		f.Fatal(err)
	}
	if err := p.Ready(context.Background()); err != nil {
		f.Fatal(err)
	}
	return idp, p
}

// T-1: a callback that does not carry the attempt's own state, once, reaches
// no token endpoint; every other outcome is a refusal that says nothing of
// what came in.
func FuzzCallbackQuery(f *testing.F) {
	for _, seed := range []string{
		"", "state=s&code=c&iss=https://acme.okta.com", "state=s&code=c", "state=s&error=access_denied", "state=x&code=c",
		"state=s&state=s&code=c", "state=s&code=c&id_token=x", "code=c;state=s", "state=s&code=c&iss=https://evil", "%zz=1&state=s",
	} {
		f.Add(seed)
	}
	idp, p := fuzzWorld(f)
	f.Fuzz(func(t *testing.T, text string) {
		query, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		a := Attempt{
			State: serval.NewSecret("s"), Nonce: serval.NewSecret("n"), Verifier: serval.NewSecret(strings.Repeat("v", 43)),
			Issuer: p.c.Issuer, CreatedAt: p.now(),
		}
		before := idp.Calls("token")
		_, err = p.Finish(context.Background(), a, query)
		if err == nil || !serval.IsRefusal(err) {
			t.Fatalf("%q is not refused: %v", text, err)
		}
		mayCall := len(query["state"]) == 1 && query.Get("state") == "s" && len(query["iss"]) == 1 && query.Get("iss") == p.c.Issuer &&
			!query.Has("error") && !query.Has("id_token") && !query.Has("token") && !query.Has("access_token") && len(query["code"]) == 1
		if calls := idp.Calls("token") - before; calls > 1 || calls == 1 && !mayCall {
			t.Fatalf("%q led to %d calls of the token endpoint", text, calls)
		}
	})
}

// T-1: whatever a correctly signed payload says, what we accept is the one
// person, for us, now.
func FuzzIDTokenPayload(f *testing.F) {
	good := `{"iss":"https://acme.okta.com","sub":"00u1ana5678","aud":"serval-bridge","iat":1800000000,"exp":1800003600,"nonce":"n"}`
	f.Add(good)
	for _, change := range []string{
		`"sub":"00u1ana5678"|"sub":""`, `"sub"|"SUB"`, `"nonce":"n"|"nonce":"m"`, `1800003600|1.8e9`, `1800003600|253402300799`,
		`"aud":"serval-bridge"|"aud":["serval-bridge","x"]`, `}|,"azp":"x"}`, `}|,"sub":"x"}`, `}|,"_claim_names":{"groups":"a"}}`, `{|[`,
		`}|,"email":"a@b.c","email_verified":"false"}`, `}|,"at_hash":""}`, `}|,"xms_edov":1,"hasgroups":"true"}`,
	} {
		old, new, _ := strings.Cut(change, "|")
		f.Add(strings.Replace(good, old, new, 1))
	}
	idp, p := fuzzWorld(f)
	m, err := p.metadata(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		idp.Misbehave(func(m *idptest.Misbehaviour) {
			m.Payload = func([]byte) []byte { return []byte(payload) }
		})
		id, c, err := p.verifyIDToken(context.Background(), m, idp.IDToken(ana.Email, nil), expected{nonce: serval.NewSecret("n")})
		if err != nil {
			if !serval.IsRefusal(err) {
				t.Fatalf("%q is a fault, not a refusal: %v", payload, err)
			}
			return
		}
		now := p.now()
		if id.Issuer != p.c.Issuer || id.Subject == "" || len(id.Subject) > maxSubject || !id.ExpiresAt.After(now) ||
			id.ExpiresAt.Sub(id.IssuedAt) > maxLife || id.IssuedAt.Sub(now).Abs() > 10*time.Minute {
			t.Fatalf("%q is accepted as %+v", payload, id)
		}
		if email, err := p.email(c); err == nil {
			if _, err := serval.ParseEmail(email); err != nil {
				t.Fatalf("%q gives the email %q", payload, email)
			}
		} else if !serval.IsRefusal(err) {
			t.Fatalf("%q: the email is a fault, not a refusal: %v", payload, err)
		}
		p.groups(c)
	})
}
