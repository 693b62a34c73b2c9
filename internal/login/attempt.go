package login

import (
	"context"
	"strconv"
	"time"

	"golang.org/x/oauth2"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// attemptLife is how long a person may take at the provider.
const attemptLife = 10 * time.Minute

// An Attempt is one sign-in that has begun. The caller keeps it, bound to the
// browser that began, and takes it away before Finish: an attempt is good for
// one callback.
type Attempt struct {
	State     serval.Secret // comes back in the callback
	Nonce     serval.Secret // comes back in the ID token
	Verifier  serval.Secret // of PKCE; never leaves but to the token endpoint
	Issuer    string
	CreatedAt time.Time
}

// A Prompt says how the provider should ask.
type Prompt struct {
	Silent    bool   // not at all: prompt=none. The callback may then be a refusal of kind LoginRequired.
	LoginHint string // the email of who is expected; what is no email is left out
}

// Begin starts a sign-in and returns the address to send the browser to. State,
// nonce and PKCE verifier are fresh and of 256 bits each (RFC 9700 section
// 2.1.1: PKCE also for a confidential client). It refuses with kind Unavailable
// while the provider's metadata cannot be had.
func (p *Provider) Begin(ctx context.Context, o Prompt) (a Attempt, redirect string, err error) {
	m, err := p.metadata(ctx)
	if err != nil {
		return Attempt{}, "", err
	}
	state, nonce, verifier := oauth2.GenerateVerifier(), oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	options := []oauth2.AuthCodeOption{
		oauth2.S256ChallengeOption(verifier),
		oauth2.SetAuthURLParam("nonce", nonce),
	}
	if o.Silent {
		options = append(options, oauth2.SetAuthURLParam("prompt", "none"))
	}
	if p.c.Offline && isGoogle(p.c.Issuer) {
		// Google knows no such scope, and gives a refresh token with a consent only.
		options = append(options, oauth2.AccessTypeOffline)
		if !o.Silent {
			options = append(options, oauth2.SetAuthURLParam("prompt", "consent"))
		}
	}
	if hint, err := serval.ParseEmail(o.LoginHint); err == nil {
		options = append(options, oauth2.SetAuthURLParam("login_hint", hint))
	}
	if p.c.MaxAge > 0 {
		options = append(options, oauth2.SetAuthURLParam("max_age", strconv.Itoa(int(p.c.MaxAge/time.Second))))
	}
	a = Attempt{
		State:     serval.NewSecret(state),
		Nonce:     serval.NewSecret(nonce),
		Verifier:  serval.NewSecret(verifier),
		Issuer:    p.c.Issuer,
		CreatedAt: p.now(),
	}
	return a, p.at(m).AuthCodeURL(state, options...), nil
}

// at returns the client with the provider's endpoints. Credentials go by
// client_secret_basic and are never tried another way.
func (p *Provider) at(m *metadata) *oauth2.Config {
	return &oauth2.Config{
		ClientID:     p.c.ClientID,
		ClientSecret: p.secret.Load().Reveal(),
		RedirectURL:  p.c.RedirectURL,
		Scopes:       p.c.Scopes,
		Endpoint: oauth2.Endpoint{
			AuthURL:   m.AuthorizationEndpoint,
			TokenURL:  m.TokenEndpoint,
			AuthStyle: oauth2.AuthStyleInHeader,
		},
	}
}
