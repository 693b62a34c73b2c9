package awstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/serval-bridge/serval-bridge/internal/policytest"
)

type webIdentityResult struct {
	SubjectFromWebIdentityToken string
	Audience                    string
	AssumedRoleUser             assumedRoleUser
	Credentials                 credentialsXML
	Provider                    string
	PackedPolicySize            *int   `xml:",omitempty"`
	SourceIdentity              string `xml:",omitempty"`
}

// algorithms are those STS takes.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512}

// A token is a web identity token's claims.
type token struct {
	issuer, subject, audience string // the audience as STS takes it: azp where the token has one
	audiences                 []string
	amr                       []string
	azp                       string
	expires, issued           int64
	notBefore                 *int64
	sourceIdentity            string
	tags                      map[string]string
	transitive                []string
}

func invalidToken(format string, args ...any) *failure {
	return fail(400, "InvalidIdentityToken", format, args...)
}

var errNoJWT = invalidToken("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")

var errNotAuthorized = fail(403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")

// assumeRoleWithWebIdentity is https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
// It needs no signature and looks at none.
func (c *Cloud) assumeRoleWithWebIdentity(req *Request) (any, *failure) {
	p := req.Params
	w, f := readWish(p)
	if f != nil {
		return nil, f
	}
	text := p.Get("WebIdentityToken")
	if len(text) < 4 || len(text) > 20000 {
		return nil, invalid("webIdentityToken", "***", "Member must have length between 4 and 20000")
	}
	signed, err := jose.ParseSignedCompact(text, algorithms)
	if err != nil || len(signed.Signatures) != 1 {
		return nil, errNoJWT
	}
	t, f := readToken(signed.UnsafePayloadWithoutVerification())
	if f != nil {
		return nil, f
	}
	issuer, f := c.provider(req.Target, t.issuer)
	if f != nil {
		return nil, f
	}
	if f := c.verify(req.http.Context(), issuer.issuer, signed); f != nil {
		return nil, f
	}
	if f := t.valid(c.now(), issuer.audiences); f != nil {
		return nil, f
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	w.role = c.roleByARN(p.Get("RoleArn"))
	if w.role == nil {
		return nil, errNotAuthorized
	}
	w.tags, w.transitive = t.tags, t.transitive
	q := policytest.Question{
		Action: "sts:AssumeRoleWithWebIdentity", Resource: w.role.arn,
		Who: policytest.Asker{Federated: issuer.arn}, Context: c.circumstances(req),
	}
	describe(q.Context, w.role)
	tagging(q.Context, t.tags)
	t.describe(q.Context, issuer)
	q.Context["sts:rolesessionname"] = []string{w.session}
	trust := c.policy(w.role.Trust, policytest.Trust)
	allows := func(action string) bool {
		q.Action = action
		o := trust.Evaluate(q)
		return !o.Denied && o.Allowed != policytest.Nobody
	}
	switch {
	case !allows("sts:AssumeRoleWithWebIdentity"):
		return nil, errNotAuthorized
	case len(t.tags) > 0 && !allows("sts:TagSession"):
		return nil, fail(403, "AccessDenied", "Not authorized to perform sts:TagSession")
	case t.sourceIdentity != "" && !allows("sts:SetSourceIdentity"):
		return nil, fail(403, "AccessDenied", "Not authorized to perform sts:SetSourceIdentity")
	}
	k := &credential{account: w.role.account, role: w.role, provider: issuer.arn, sourceIdentity: t.sourceIdentity}
	keys, packed, f := c.open(k, w)
	if f != nil {
		return nil, f
	}
	return webIdentityResult{
		SubjectFromWebIdentityToken: t.subject, Audience: t.audience,
		AssumedRoleUser: assumedRoleUser{k.userID(), k.arn()}, Credentials: keys.xml(),
		Provider: issuer.arn, PackedPolicySize: packed, SourceIdentity: t.sourceIdentity,
	}, nil
}

// provider returns a copy of the account's provider for the issuer.
func (c *Cloud) provider(account, issuer string) (provider, *failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.accounts[account]; a != nil {
		if p := a.providers[a.arn("oidc-provider/"+withoutScheme(issuer))]; p != nil && p.issuer == issuer {
			return *p, nil
		}
	}
	return provider{}, invalidToken("No OpenIDConnect provider found in your account for %s", issuer)
}

// describe adds the keys of a token, which carry the issuer's name. Where a token has an authorized party,
// aud is that and oaud what the token has as aud.
func (t *token) describe(m map[string][]string, p provider) {
	host := strings.ToLower(p.host())
	m[host+":sub"] = []string{t.subject}
	m[host+":aud"] = []string{t.audience}
	m[host+":oaud"] = t.audiences
	if t.azp != "" {
		m[host+":azp"] = []string{t.azp}
	}
	if len(t.amr) > 0 {
		m[host+":amr"] = t.amr
	}
	m["aws:federatedprovider"] = []string{p.arn}
	if t.sourceIdentity != "" {
		m["sts:sourceidentity"] = []string{t.sourceIdentity}
	}
	if len(t.transitive) > 0 {
		m["sts:transitivetagkeys"] = t.transitive
	}
}

// readToken reads the claims by their exact names. Times must be whole numbers.
func readToken(payload []byte) (*token, *failure) {
	var claims map[string]json.RawMessage
	if json.Unmarshal(payload, &claims) != nil {
		return nil, errNoJWT
	}
	t := &token{}
	for name, to := range map[string]any{"iss": &t.issuer, "sub": &t.subject, "exp": &t.expires, "iat": &t.issued} {
		raw, ok := claims[name]
		if !ok {
			return nil, invalidToken("Missing a required claim: %s", name)
		}
		if json.Unmarshal(raw, to) != nil {
			return nil, errNoJWT
		}
	}
	if t.issuer == "" || t.subject == "" {
		return nil, invalidToken("Missing a required claim: sub")
	}
	var tagged struct {
		Principal  map[string]policytest.Words `json:"principal_tags"`
		Transitive []string                    `json:"transitive_tag_keys"`
	}
	var audiences, amr policytest.Words
	for name, to := range map[string]any{
		"aud": &audiences, "amr": &amr, "azp": &t.azp, "nbf": &t.notBefore,
		"https://aws.amazon.com/source_identity": &t.sourceIdentity, "https://aws.amazon.com/tags": &tagged,
	} {
		if raw, ok := claims[name]; ok && json.Unmarshal(raw, to) != nil {
			return nil, errNoJWT
		}
	}
	t.audiences, t.amr = audiences, amr
	if len(t.audiences) == 0 {
		return nil, invalidToken("Missing a required claim: aud")
	}
	t.audience = t.audiences[0]
	if t.azp != "" {
		t.audience = t.azp
	}
	t.transitive = tagged.Transitive
	for key, values := range tagged.Principal {
		if len(values) != 1 {
			return nil, invalidToken("Session tags must have exactly one value")
		}
		if f := checkTag(key, values[0]); f != nil {
			return nil, f
		}
		if t.tags == nil {
			t.tags = make(map[string]string)
		}
		t.tags[key] = values[0]
	}
	return t, nil
}

// issuerSkew is how far an issuer's clock may be ahead. What AWS grants is not published.
const issuerSkew = 60

func (t *token) valid(now time.Time, audiences []string) *failure {
	at := now.Unix()
	switch {
	case at >= t.expires:
		return fail(400, "ExpiredTokenException", "Token expired: current date/time %d must be before the expiration date/time %d", at, t.expires)
	case t.notBefore != nil && at+issuerSkew < *t.notBefore:
		return invalidToken("Token not yet valid: current date/time %d must be after the not before date/time %d", at, *t.notBefore)
	case at+issuerSkew < t.issued:
		return invalidToken("Token issued in the future: current date/time %d must be after the issue date/time %d", at, t.issued)
	case !slices.Contains(audiences, t.azp) && !slices.ContainsFunc(t.audiences, func(a string) bool { return slices.Contains(audiences, a) }):
		return invalidToken("Incorrect token audience")
	}
	return nil
}

// keySet is an issuer's published keys.
type keySet struct {
	keys jose.JSONWebKeySet
}

var errNoKey = invalidToken("Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements")

// verify checks the signature by the issuer's keys: those fetched before, and where none has the token's
// kid, those it publishes now.
func (c *Cloud) verify(ctx context.Context, issuer string, signed *jose.JSONWebSignature) *failure {
	kid := signed.Signatures[0].Header.KeyID
	c.issuers.Lock()
	known := c.jwks[issuer]
	c.issuers.Unlock()
	var key *jose.JSONWebKey
	if known != nil {
		key = known.find(kid)
	}
	if key == nil {
		fresh, err := c.fetchKeys(ctx, issuer)
		if err != nil {
			if errors.Is(err, errUnreachable) {
				return fail(400, "IDPCommunicationError", "An error occurred when communicating with identity provider for verification of web identity token: %v", err)
			}
			return errNoKey
		}
		c.issuers.Lock()
		c.jwks[issuer] = fresh
		c.issuers.Unlock()
		if key = fresh.find(kid); key == nil {
			return errNoKey
		}
	}
	if _, err := signed.Verify(key.Key); err != nil {
		return invalidToken("The ID Token's signature could not be verified")
	}
	return nil
}

// find returns the key of that id; of a token without one, the only key there is.
func (s *keySet) find(kid string) *jose.JSONWebKey {
	if kid == "" && len(s.keys.Keys) == 1 {
		return &s.keys.Keys[0]
	}
	for i := range s.keys.Keys {
		if k := &s.keys.Keys[i]; kid != "" && k.KeyID == kid && k.IsPublic() {
			return k
		}
	}
	return nil
}

// ForgetKeys drops what was fetched from identity providers, as AWS does after a while.
func (c *Cloud) ForgetKeys() {
	c.issuers.Lock()
	defer c.issuers.Unlock()
	clear(c.jwks)
}

// errUnreachable is a provider that does not answer at all, or answers with its own failure.
var errUnreachable = errors.New("the provider cannot be reached")

func (c *Cloud) fetchKeys(ctx context.Context, issuer string) (*keySet, error) {
	var discovery struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := c.fetch(ctx, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", &discovery); err != nil {
		return nil, err
	}
	if discovery.Issuer != issuer {
		return nil, fmt.Errorf("the discovery document is of %q", discovery.Issuer)
	}
	s := &keySet{}
	if err := c.fetch(ctx, discovery.JWKSURI, &s.keys); err != nil {
		return nil, err
	}
	return s, nil
}

func (c *Cloud) fetch(ctx context.Context, url string, to any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := c.client.Do(r)
	if err != nil {
		if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
			return fmt.Errorf("reading %s: %w", url, err)
		}
		return fmt.Errorf("reading %s: %w", url, errUnreachable)
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode >= 500:
		return fmt.Errorf("reading %s: %s: %w", url, res.Status, errUnreachable)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("reading %s: %s", url, res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxBody)).Decode(to); err != nil {
		return fmt.Errorf("reading %s: %w", url, err)
	}
	return nil
}
