package login

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// maxCode is the longest code we carry to the token endpoint.
const maxCode = 8 << 10

// Finish judges the callback of an attempt and returns who has signed in. The
// caller has taken the attempt away before, so that no other callback can use
// it. Only a callback with the attempt's own state, and nothing wrong with it,
// reaches the token endpoint, and then once.
//
// Refusals are of kind Invalid (the callback is not one of ours; start again),
// Denied (the provider or the person's token said no), LoginRequired (prompt
// none or max_age want a real sign-in), FailedPrecondition (an admin has to
// mend the settings) and Unavailable (the provider is away).
func (p *Provider) Finish(ctx context.Context, a Attempt, query url.Values) (Identity, error) {
	code, err := p.judge(ctx, a, query)
	if err != nil {
		return Identity{}, err
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return Identity{}, err
	}
	answer, err := p.ask(ctx, func(ctx context.Context) (*oauth2.Token, error) {
		return p.at(m).Exchange(ctx, code, oauth2.VerifierOption(a.Verifier.Reveal()))
	})
	if err != nil {
		return Identity{}, err
	}
	return p.identify(ctx, m, answer, expected{nonce: a.Nonce})
}

// judge returns the callback's code if the callback belongs to the attempt.
// The state comes first: nothing else is said to somebody who does not have it.
func (p *Provider) judge(ctx context.Context, a Attempt, query url.Values) (code string, err error) {
	state := query["state"]
	if a.State.Empty() || len(state) != 1 || !a.State.Equal(serval.NewSecret(state[0])) {
		return "", refuse(serval.Invalid, CauseState,
			"This sign-in was not begun in this browser, or it was already used. Please sign in again.")
	}
	if age := p.now().Sub(a.CreatedAt); age > attemptLife || age < -attemptLife {
		return "", refuse(serval.Invalid, CauseAttempt, "This sign-in took longer than ten minutes. Please sign in again.")
	}
	if a.Issuer != p.c.Issuer {
		return "", refuse(serval.Invalid, CauseAttempt,
			"The identity provider was changed while you signed in. Please sign in again.")
	}
	for _, name := range []string{"id_token", "token", "access_token"} {
		if query.Has(name) {
			return "", refuse(serval.Invalid, CauseResponseMode,
				"The identity provider sent a token through the browser, which is never taken. "+
					"An admin should switch the implicit flow off in the provider's app.")
		}
	}
	// RFC 9207: a wrong issuer is another provider's answer. A missing one is
	// too, if this provider says that it always sends it.
	iss, given := query["iss"]
	if given && (len(iss) != 1 || iss[0] != p.c.Issuer) {
		return "", refuse(serval.Invalid, CauseCallbackIss,
			"The answer came from another identity provider than %s. Please sign in again.", p.c.Issuer)
	}
	if query.Has("error") {
		return "", providerError(query.Get("error"))
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return "", err
	}
	if m.CallbackIss && !given {
		return "", refuse(serval.Invalid, CauseCallbackIss,
			"The answer does not say which identity provider it comes from, although %s always does. Please sign in again.", p.c.Issuer)
	}
	codes := query["code"]
	if len(codes) != 1 || codes[0] == "" || len(codes[0]) > maxCode {
		return "", refuse(serval.Invalid, CauseCode,
			"The identity provider's answer has no code. Please sign in again.")
	}
	return codes[0], nil
}

// providerError maps the error codes of RFC 6749 section 4.1.2.1 and OpenID
// Connect Core 1.0 section 3.1.2.6 to our own texts. What the provider wrote
// in error_description is never shown: anybody can write it.
func providerError(code string) error {
	switch code {
	case "access_denied":
		return refuse(serval.Denied, CauseAccessDenied,
			"The identity provider did not let you in: you canceled, or you are not assigned to Serval's app. An admin of the provider can assign you.")
	case "login_required", "interaction_required", "consent_required", "account_selection_required":
		return refuse(serval.LoginRequired, CauseLoginRequired,
			"The identity provider wants to ask you something first. Please sign in again.")
	case "temporarily_unavailable", "server_error":
		return refuse(serval.Unavailable, CauseAway, "The identity provider has a problem of its own. Try again in a minute.")
	case "unauthorized_client", "unsupported_response_type":
		return refuse(serval.FailedPrecondition, CauseProviderError,
			"The identity provider does not allow Serval's app the authorization code flow. An admin should check the app's grant types.")
	case "invalid_scope":
		return refuse(serval.FailedPrecondition, CauseProviderError,
			"The identity provider does not know a scope that Serval asks for. An admin should check SERVAL_OIDC_SCOPES.")
	case "invalid_request":
		return refuse(serval.FailedPrecondition, CauseProviderError,
			"The identity provider did not understand the request. An admin should look into the provider's own log.")
	default:
		return refuse(serval.Denied, CauseProviderError,
			"The identity provider answered with an error. Please sign in again; if it stays, an admin should look into the provider's own log.")
	}
}

// ask calls the token endpoint, once, and explains what went wrong without the
// endpoint's words: x/oauth2 keeps the whole body in its error.
func (p *Provider) ask(ctx context.Context, call func(context.Context) (*oauth2.Token, error)) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, p.client), exchangeTimeout)
	defer cancel()
	answer, err := call(ctx)
	if err == nil {
		return answer, nil
	}
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return nil, tokenError(e)
	}
	return nil, because(refuse(serval.Unavailable, CauseAway, "The identity provider does not answer. Try again in a minute."),
		cleanFault("asking the token endpoint", err))
}

// tokenError maps the error codes of RFC 6749 section 5.2 to our own texts.
func tokenError(e *oauth2.RetrieveError) error {
	status := 0
	if e.Response != nil {
		status = e.Response.StatusCode
	}
	var refusal error
	known := e.ErrorCode
	switch e.ErrorCode {
	case "invalid_grant":
		refusal = refuse(serval.Invalid, CauseCode,
			"The identity provider no longer takes this sign-in: it was used already, or took too long. Please sign in again.")
	case "invalid_client":
		refusal = refuse(serval.FailedPrecondition, CauseClient,
			"The identity provider does not accept Serval's own credentials. An admin should check SERVAL_OIDC_CLIENT_ID and "+
				"SERVAL_OIDC_CLIENT_SECRET, and that the app takes the secret by client_secret_basic.")
	case "unauthorized_client", "unsupported_grant_type":
		refusal = refuse(serval.FailedPrecondition, CauseClient,
			"The identity provider does not allow Serval's app this kind of sign-in. An admin should check the app's grant types.")
	case "invalid_request", "invalid_scope":
		refusal = refuse(serval.FailedPrecondition, CauseProviderError,
			"The identity provider did not understand the request. An admin should look into the provider's own log.")
	default:
		known = "no code we know"
		if status >= 500 || status == 429 {
			refusal = refuse(serval.Unavailable, CauseAway, "The identity provider has a problem of its own. Try again in a minute.")
		} else {
			refusal = refuse(serval.Denied, CauseProviderError,
				"The identity provider answered with an error. Please sign in again; if it stays, an admin should look into the provider's own log.")
		}
	}
	return because(refusal, fmt.Errorf("asking the token endpoint: status %d, %s", status, known))
}

// An Identity is who has signed in, as the provider's ID token says.
type Identity struct {
	Issuer, Subject string // who it is, and nothing else says who (OpenID Connect Core 1.0, section 5.7)
	Email           string // as the provider wrote it; compare with serval.SameEmail

	Groups     []string
	GroupsNote string // why groups are missing; "" if there is nothing to say

	// SubjectNote warns of a subject that AWS may not take; "" if it is fine.
	SubjectNote string

	IDToken      serval.Secret
	RefreshToken serval.Secret // empty unless Offline is set and it was given

	AuthorizedParty string // the claim azp, this client's id; "" where the token has none
	// AWSClaims are the token's claims that AWS makes session tags or a source
	// identity of, by name: every role has to allow that, or refuses everybody.
	AWSClaims []string

	IssuedAt, ExpiresAt time.Time // of the ID token
	AuthTime            time.Time // when the person signed in at the provider; zero if it does not say
	AMR                 []string  // how (RFC 8176)
	Algorithm           string    // that signed the ID token
}

// mintMargin is the least that must be left of an ID token's life when it is
// sent to STS.
const mintMargin = time.Minute

// UsableAt reports whether the ID token has more than a minute left: with less
// a session should not be begun, but the person sent to sign in again.
func (i Identity) UsableAt(now time.Time) bool { return i.ExpiresAt.Sub(now) > mintMargin }

// Refresh trades a refresh token for a fresh identity of the same person. The
// new ID token must keep issuer, subject and audience (OpenID Connect Core 1.0,
// section 12.2); the time of the sign-in stays the original one, whatever it
// says. Providers that rotate refresh tokens answer with a new one: keep Identity.RefreshToken, the
// old one is then dead. It refuses with kind LoginRequired when the provider
// no longer honours the token, as after a deactivation.
func (p *Provider) Refresh(ctx context.Context, token serval.Secret, was Identity) (Identity, error) {
	again := refuse(serval.LoginRequired, CauseRefresh, "The identity provider wants you to sign in again.")
	if token.Empty() || was.Issuer != p.c.Issuer || was.Subject == "" {
		return Identity{}, again
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return Identity{}, err
	}
	answer, err := p.ask(ctx, func(ctx context.Context) (*oauth2.Token, error) {
		return p.at(m).TokenSource(ctx, &oauth2.Token{RefreshToken: token.Reveal()}).Token()
	})
	if r, ok := errors.AsType[*serval.Refusal](err); ok && r.Detail["cause"] == CauseCode {
		return Identity{}, again
	}
	if err != nil {
		return Identity{}, err
	}
	return p.identify(ctx, m, answer, expected{refreshed: true, subject: was.Subject, authTime: was.AuthTime})
}

// identify turns the token endpoint's answer into an identity.
func (p *Provider) identify(ctx context.Context, m *metadata, answer *oauth2.Token, want expected) (Identity, error) {
	if !strings.EqualFold(answer.TokenType, "Bearer") { // RFC 6749 section 5.1: in any case
		return Identity{}, refuse(serval.Denied, CauseToken,
			"The identity provider answered with a token of an unknown type. An admin should check the app's settings.")
	}
	raw, _ := answer.Extra("id_token").(string)
	if raw == "" {
		return Identity{}, refuse(serval.Denied, CauseToken,
			"The identity provider sent no ID token. An admin should check that the app is an OpenID Connect app and may use the scope openid.")
	}
	want.accessToken = serval.NewSecret(answer.AccessToken)
	id, c, err := p.verifyIDToken(ctx, m, raw, want)
	if err != nil {
		return Identity{}, err
	}
	c, away, err := p.withUserInfo(ctx, m, c, id.Subject, answer.AccessToken)
	if err != nil {
		return Identity{}, err
	}
	if id.Email, err = p.email(c); err != nil {
		return Identity{}, err
	}
	id.Groups, id.GroupsNote = p.groups(c)
	if away {
		id.GroupsNote += " Its UserInfo endpoint, which may know your groups, did not answer."
	}
	if p.c.Offline { // what was not asked for is not kept
		id.RefreshToken = serval.NewSecret(answer.RefreshToken)
	}
	return id, nil
}

// stepUp checks when and how the person signed in at the provider, where the
// settings ask for it.
func (p *Provider) stepUp(authTime time.Time, amr []string, now time.Time) error {
	if p.c.MaxAge > 0 {
		switch {
		case authTime.IsZero():
			return refuse(serval.Denied, CauseAuthTime,
				"The identity provider does not say when you signed in, which SERVAL_OIDC_MAX_AGE requires. An admin should look into the app's claims.")
		case now.Sub(authTime) > p.c.MaxAge+skew:
			return refuse(serval.LoginRequired, CauseAuthTime,
				"Your sign-in at the identity provider is older than %s. Please sign in again.", p.c.MaxAge)
		}
	}
	for _, method := range p.c.RequiredAMR {
		if !slices.Contains(amr, method) {
			return refuse(serval.Denied, CauseAMR,
				"You signed in without %q, which SERVAL_OIDC_REQUIRED_AMR requires. Sign in again with that method; an admin can say which one it is.", method)
		}
	}
	return nil
}
