package login

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// oktaDomains are Okta's own. Okta leaves email_verified out of ID tokens and
// tells vendors not to rely on it; who administers an Okta organization
// vouches for its emails. A custom domain, or a loopback address, does not
// show that it is Okta's.
var oktaDomains = []string{".okta.com", ".oktapreview.com", ".okta-emea.com", ".okta-gov.com"}

// isOkta reports whether an issuer is an organization at Okta.
func isOkta(issuer string) bool {
	u, err := url.Parse(issuer)
	if err != nil {
		return false
	}
	for _, d := range oktaDomains {
		if strings.HasSuffix(u.Hostname(), d) {
			return true
		}
	}
	return false
}

// isGoogle reports whether the issuer is Google's.
func isGoogle(issuer string) bool { return issuer == "https://accounts.google.com" }

// withUserInfo asks UserInfo for what the ID token leaves out: the email, or
// the word on whether it is verified where that decides, or the groups, which
// Okta for one keeps out of an ID token that comes with an access token. What
// the ID token says is never replaced. Where only the groups are missing,
// away says that UserInfo did not answer, and nobody is kept out for it.
func (p *Provider) withUserInfo(ctx context.Context, m *metadata, c claims, subject, accessToken string) (more claims, away bool, err error) {
	_, hasEmail := c[p.c.EmailClaim]
	needs := !hasEmail || p.mustBeVerified() && !says(c, "email_verified") && !says(c, "xms_edov")
	groups := !says(c, p.c.GroupsClaim) && !isOverflow(c, p.c.GroupsClaim)
	if !needs && !groups || m.UserInfoEndpoint == "" {
		return c, false, nil
	}
	body, _, err := p.get(ctx, m.UserInfoEndpoint, accessToken, maxUserInfo)
	if err != nil && !needs {
		return c, true, nil
	}
	if err != nil {
		return nil, false, because(refuse(serval.Unavailable, CauseUserInfo,
			"The identity provider does not say your email: its UserInfo endpoint does not answer as it should. Try again in a minute."),
			fmt.Errorf("asking UserInfo: %w", err))
	}
	said, err := p.watch.read(body)
	if err != nil && !needs {
		return c, true, nil
	}
	if err != nil {
		return nil, false, refuse(serval.Denied, CauseUserInfo,
			"The identity provider's word on who you are cannot be read. An admin should look into its UserInfo endpoint.")
	}
	// OpenID Connect Core 1.0, section 5.3.2: the answer is not to be used
	// unless its sub is the ID token's.
	if sub, _, err := said.text("sub"); err != nil || sub != subject {
		return nil, false, refuse(serval.Denied, CauseUserInfo,
			"The identity provider named two different people in one sign-in. Please sign in again.")
	}
	merged := maps.Clone(c)
	for _, name := range []string{p.c.EmailClaim, p.c.GroupsClaim, "email_verified", "xms_edov"} {
		if !says(said, name) || says(c, name) {
			continue
		}
		// A word on whether the email is verified is about the answer's own email.
		if hasEmail && (name == "email_verified" || name == "xms_edov") && !sameEmailClaim(c, said, p.c.EmailClaim) {
			continue
		}
		merged[name] = said[name]
	}
	return merged, false, nil
}

func says(c claims, name string) bool {
	_, present := c[name]
	return present
}

func sameEmailClaim(a, b claims, name string) bool {
	x, _, err1 := a.text(name)
	y, _, err2 := b.text(name)
	return err1 == nil && err2 == nil && x != "" && serval.SameEmail(x, y)
}

// mustBeVerified reports whether an absent email_verified is refused.
func (p *Provider) mustBeVerified() bool {
	switch p.c.EmailVerified {
	case "require":
		return true
	case "ignore":
		return false
	default:
		return p.c.EmailClaim == "email" && !isOkta(p.c.Issuer)
	}
}

// email returns the configured email claim if it is one usable, verified
// address. No other claim is tried in its place.
func (p *Provider) email(c claims) (string, error) {
	claim := p.c.EmailClaim
	written, present, err := c.text(claim)
	if !present {
		return "", refuse(serval.FailedPrecondition, CauseEmail,
			"The identity provider does not say your email: there is no claim %q. An admin should add it to the app, or set SERVAL_OIDC_EMAIL_CLAIM.", claim)
	}
	if err != nil {
		return "", refuse(serval.FailedPrecondition, CauseEmail,
			"The identity provider's claim %q is not a text. An admin should look into the app's claims.", claim)
	}
	email, err := serval.ParseEmail(written)
	if err != nil {
		return "", refuse(serval.Denied, CauseEmail,
			"The identity provider's claim %q is not a usable email address. An admin should mend it in your account at the provider.", claim)
	}
	return email, p.verified(c, email)
}

// verified applies the rules for email_verified. False refuses, whatever the
// settings and the issuer. xms_edov is Microsoft's: the email's domain has
// been verified by the tenant.
func (p *Provider) verified(c claims, email string) error {
	no := func(format string, args ...any) error {
		return &serval.Refusal{
			Kind:   serval.Denied,
			Reason: fmt.Sprintf(format, args...),
			Detail: map[string]string{"cause": CauseEmailVerified, "email": email},
		}
	}
	verified, present, err := c.truth("email_verified")
	if err != nil || present && !verified {
		return no("The identity provider says that the email %s is not verified. Verify it there and sign in again.", email)
	}
	owned, ownedPresent, err := domainVerified(c)
	if err != nil || ownedPresent && !owned {
		return no("The identity provider says that the domain of the email %s is not verified. An admin should verify it there.", email)
	}
	if !present && !ownedPresent && p.mustBeVerified() {
		return no("The identity provider does not say whether the email %s is verified. "+
			"An admin who trusts its emails can set SERVAL_OIDC_EMAIL_VERIFIED to ignore.", email)
	}
	return nil
}

// domainVerified returns xms_edov, which comes as a boolean, a number or a
// string.
func domainVerified(c claims) (value, present bool, err error) {
	switch string(c["xms_edov"]) {
	case `1`, `"1"`:
		return true, true, nil
	case `0`, `"0"`:
		return false, true, nil
	}
	return c.truth("xms_edov")
}

// groups returns the person's groups, or why they are not to be had. Missing
// groups fail no sign-in: they match no rule.
func (p *Provider) groups(c claims) (groups []string, note string) {
	claim := p.c.GroupsClaim
	groups, present, err := c.textOrList(claim)
	switch {
	case err != nil:
		return nil, fmt.Sprintf("The claim %q is not a list of texts.", claim)
	case isOverflow(c, claim):
		return nil, fmt.Sprintf("You are in more groups than the identity provider puts into a token, so the claim %q is missing. "+
			"An admin should let it send only the groups that are assigned to the app.", claim)
	case !present:
		return nil, fmt.Sprintf("The identity provider sends no claim %q. An admin should add it to the app, or set SERVAL_OIDC_GROUPS_CLAIM.", claim)
	}
	if isOkta(p.c.Issuer) && len(groups) == oktaMostGroups {
		return groups, fmt.Sprintf("The claim %q has %d groups, which is the most that Okta puts there; some of yours may be missing. "+
			"An admin should let the app's groups filter choose fewer.", claim, oktaMostGroups)
	}
	return groups, ""
}

// oktaMostGroups is how many groups Okta puts into a claim at most, unless the
// claim is an expression that says otherwise.
const oktaMostGroups = 100

// isOverflow reports whether the provider says that the groups are to be had
// elsewhere (OpenID Connect Core 1.0, section 5.6.2, as Entra ID uses it), or
// that there are some but not here (hasgroups).
func isOverflow(c claims, claim string) bool {
	if has, _, _ := c.truth("hasgroups"); has { // what is neither true nor false is not
		return true
	}
	var names map[string]jsontext.Value
	if json.Unmarshal(c["_claim_names"], &names) != nil {
		return false
	}
	_, elsewhere := names[claim]
	return elsewhere
}
