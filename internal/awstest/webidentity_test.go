//lint:file-ignore SA1019 AWS still answers PackedPolicySize, and so does the fake.

package awstest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
)

// An issuer signs tokens and publishes its keys.
type issuer struct {
	url     string
	keys    atomic.Pointer[jose.JSONWebKeySet]
	status  atomic.Int32 // of the key endpoint, 200 where 0
	fetches atomic.Int32
}

func newIssuer(t *testing.T, keys ...jose.JSONWebKey) *issuer {
	i := &issuer{}
	i.publish(keys...)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/idp/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
		case "/idp/keys":
			i.fetches.Add(1)
			if status := i.status.Load(); status != 0 {
				w.WriteHeader(int(status))
				return
			}
			_ = json.NewEncoder(w).Encode(i.keys.Load())
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	i.url = s.URL + "/idp"
	return i
}

func (i *issuer) host() string { return strings.TrimPrefix(i.url, "http://") }

func (i *issuer) publish(keys ...jose.JSONWebKey) {
	set := &jose.JSONWebKeySet{}
	for _, k := range keys {
		set.Keys = append(set.Keys, k.Public())
	}
	i.keys.Store(set)
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key jose.JSONWebKey, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func rsaKey(t *testing.T, kid string) jose.JSONWebKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return jose.JSONWebKey{Key: k, KeyID: kid}
}

// anonymous is an STS client without credentials.
func anonymous(url string) *sts.Client {
	return sts.New(sts.Options{BaseEndpoint: &url, Region: "us-west-1", Retryer: aws.NopRetryer{}})
}

func TestAssumeRoleWithWebIdentity(t *testing.T) {
	one, stranger := rsaKey(t, "one"), rsaKey(t, "one")
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	two := jose.JSONWebKey{Key: ec, KeyID: "two"}
	idp := newIssuer(t, one, two)
	now := time.Now().Unix()

	type claims = map[string]any
	tests := []struct {
		name   string
		claims claims // over the good ones; a nil value removes
		key    *jose.JSONWebKey
		alg    jose.SignatureAlgorithm
		raw    string // instead of a token
		in     sts.AssumeRoleWithWebIdentityInput
		code   string
		part   string
	}{
		{name: "good"},
		{name: "ES256", key: &two, alg: jose.ES256},
		{name: "RS512", alg: jose.RS512},
		{name: "PS256", alg: jose.PS256, code: "InvalidIdentityToken", part: "not a valid JWT"},
		{name: "no JWT", raw: "access-token", code: "InvalidIdentityToken", part: "not a valid JWT"},
		{name: "stranger's key", key: &stranger, code: "InvalidIdentityToken", part: "signature"},
		{name: "unknown key", key: &jose.JSONWebKey{Key: one.Key, KeyID: "three"}, code: "InvalidIdentityToken", part: "Couldn't retrieve verification key"},
		{name: "expired", claims: claims{"exp": now - 1}, code: "ExpiredTokenException", part: "Token expired"},
		{name: "issued ahead", claims: claims{"iat": now + 600}, code: "InvalidIdentityToken"},
		{name: "not yet", claims: claims{"nbf": now + 600}, code: "InvalidIdentityToken"},
		{name: "fraction of a second", claims: claims{"exp": float64(now) + 600.5}, code: "InvalidIdentityToken", part: "not a valid JWT"},
		{name: "no sub", claims: claims{"sub": nil}, code: "InvalidIdentityToken", part: "Missing a required claim: sub"},
		{name: "no iat", claims: claims{"iat": nil}, code: "InvalidIdentityToken", part: "Missing a required claim: iat"},
		{name: "no aud", claims: claims{"aud": nil}, code: "InvalidIdentityToken", part: "Missing a required claim: aud"},
		{name: "other issuer", claims: claims{"iss": "https://login.example.com"}, code: "InvalidIdentityToken", part: "No OpenIDConnect provider found in your account for https://login.example.com"},
		{name: "other audience", claims: claims{"aud": "somebody"}, code: "InvalidIdentityToken", part: "Incorrect token audience"},
		{name: "one of two audiences", claims: claims{"aud": []string{"client", "other"}}},
		{name: "audience the provider knows and the role does not", claims: claims{"aud": "second"}, code: "AccessDenied", part: "Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		{name: "azp is what aud is compared with", claims: claims{"azp": "second"}, code: "AccessDenied"},
		{name: "sub the role does not know", claims: claims{"sub": "root"}, code: "AccessDenied"},
		{name: "no such role", in: sts.AssumeRoleWithWebIdentityInput{RoleArn: aws.String("arn:aws:iam::" + spoke + ":role/nobody")}, code: "AccessDenied", part: "Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		{name: "account without the provider", in: sts.AssumeRoleWithWebIdentityInput{RoleArn: aws.String("arn:aws:iam::" + hub + ":role/x")}, code: "InvalidIdentityToken", part: "No OpenIDConnect provider"},
		{name: "role's maximum", in: sts.AssumeRoleWithWebIdentityInput{DurationSeconds: aws.Int32(7200)}},
		{name: "over the role's maximum", in: sts.AssumeRoleWithWebIdentityInput{DurationSeconds: aws.Int32(7201)}, code: "ValidationError", part: "MaxSessionDuration set for this role"},
		{name: "session name", in: sts.AssumeRoleWithWebIdentityInput{RoleSessionName: aws.String("a b")}, code: "ValidationError"},
		{name: "malformed policy", in: sts.AssumeRoleWithWebIdentityInput{Policy: aws.String("[]")}, code: "MalformedPolicyDocument"},
		{name: "tags", claims: claims{"https://aws.amazon.com/tags": claims{"principal_tags": claims{"team": []string{"blue"}}}}, code: "AccessDenied", part: "sts:TagSession"},
		{name: "source identity", claims: claims{"https://aws.amazon.com/source_identity": "ann"}, code: "AccessDenied", part: "sts:SetSourceIdentity"},
	}
	c := awstest.New(awstest.Options{})
	c.AddAccount(hub, "Hub").PutRole(awstest.Role{Name: "x"})
	a := c.AddAccount(spoke, "Spoke")
	provider := a.PutOIDCProvider(idp.url, "client", "second")
	arn := "arn:aws:iam::" + spoke + ":role/team/admin"
	a.PutRole(awstest.Role{Name: "admin", Path: "/team/", MaxSessionDuration: 7200, Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
		"Principal":{"Federated":"` + provider + `"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{
			"StringEquals":{"` + idp.host() + `:aud":"client"},"StringLike":{"` + idp.host() + `:sub":"00u*"}}}]}`})
	url := c.Start(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			good := claims{"iss": idp.url, "sub": "00u1", "aud": "client", "iat": now, "exp": now + 600}
			maps.Copy(good, tt.claims)
			maps.DeleteFunc(good, func(_ string, v any) bool { return v == nil })
			in := tt.in
			if in.RoleArn == nil {
				in.RoleArn = &arn
			}
			if in.RoleSessionName == nil {
				in.RoleSessionName = aws.String("ann@example.com")
			}
			key, alg := tt.key, tt.alg
			if key == nil {
				key = &one
			}
			if alg == "" {
				alg = jose.RS256
			}
			in.WebIdentityToken = &tt.raw
			if tt.raw == "" {
				in.WebIdentityToken = aws.String(sign(t, alg, *key, good))
			}
			out, err := anonymous(url).AssumeRoleWithWebIdentity(context.Background(), &in)
			wantError(t, err, tt.code, tt.part)
			if err != nil {
				return
			}
			if *out.AssumedRoleUser.Arn != "arn:aws:sts::"+spoke+":assumed-role/admin/ann@example.com" ||
				*out.AssumedRoleUser.AssumedRoleId != a.RoleID("admin")+":ann@example.com" ||
				*out.Provider != provider || *out.Audience != "client" || *out.SubjectFromWebIdentityToken != "00u1" {
				t.Errorf("answer %+v %+v", out, out.AssumedRoleUser)
			}
		})
	}
	for _, call := range c.Calls() {
		if call.Signed || call.Account != call.Target {
			t.Errorf("call %+v: want it unsigned and in the role's account", call)
		}
	}
}

// TestTagsOfAToken says that the tags and the source identity of a token are the session's, and go on.
func TestTagsOfAToken(t *testing.T) {
	key := rsaKey(t, "one")
	idp := newIssuer(t, key)
	c := awstest.New(awstest.Options{})
	a := c.AddAccount(spoke, "Spoke")
	provider := a.PutOIDCProvider(idp.url, "client")
	a.PutRole(awstest.Role{
		Name: "admin", Trust: trustOf(`{"Federated":"`+provider+`"}`, "sts:AssumeRoleWithWebIdentity", "sts:TagSession", "sts:SetSourceIdentity"),
		Inline: map[string]string{"p": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{
			"StringEquals":{"aws:PrincipalTag/team":"blue","aws:SourceIdentity":"ann","aws:FederatedProvider":"` + provider + `"}}}]}`},
	})
	a.PutRole(awstest.Role{Name: "next", Trust: trustOf(`{"AWS":"`+spoke+`"}`, "sts:AssumeRole", "sts:TagSession")})
	url := c.Start(t)
	now := time.Now().Unix()
	token := sign(t, jose.RS256, key, map[string]any{
		"iss": idp.url, "sub": "1", "aud": "client", "iat": now, "exp": now + 60, "https://aws.amazon.com/source_identity": "ann",
		"https://aws.amazon.com/tags": map[string]any{"principal_tags": map[string]any{"team": []string{"blue"}}, "transitive_tag_keys": []string{"team"}},
	})
	out, err := anonymous(url).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: aws.String(a.RoleARN("admin")), RoleSessionName: aws.String("ann"), WebIdentityToken: &token,
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.SourceIdentity == nil || *out.SourceIdentity != "ann" || out.PackedPolicySize == nil {
		t.Errorf("answer %+v: want the source identity and a packed size", out)
	}
	k := out.Credentials
	keys := awstest.Keys{AccessKeyID: *k.AccessKeyId, SecretAccessKey: *k.SecretAccessKey, SessionToken: *k.SessionToken}
	_, err = iamClient(url, keys).ListRoles(t.Context(), &iam.ListRolesInput{})
	wantError(t, err, "", "")
	next := func() error {
		_, err := stsClient(url, keys).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(a.RoleARN("next")), RoleSessionName: aws.String("ann")})
		return err
	}
	wantError(t, next(), "AccessDenied", "sts:SetSourceIdentity")
	a.SetTrust("next", trustOf(`{"AWS":"`+spoke+`"}`, "sts:AssumeRole", "sts:SetSourceIdentity"))
	wantError(t, next(), "AccessDenied", "sts:TagSession")
	a.SetTrust("next", trustOf(`{"AWS":"`+spoke+`"}`, "sts:*"))
	wantError(t, next(), "", "")
}

func TestIssuerKeys(t *testing.T) {
	one, two := rsaKey(t, "one"), rsaKey(t, "two")
	idp := newIssuer(t, one)
	c := awstest.New(awstest.Options{})
	a := c.AddAccount(spoke, "Spoke")
	provider := a.PutOIDCProvider(idp.url, "client")
	a.PutRole(awstest.Role{Name: "admin", Trust: trustOf(`{"Federated":"`+provider+`"}`, "sts:AssumeRoleWithWebIdentity")})
	url := c.Start(t)
	try := func(key jose.JSONWebKey) error {
		now := time.Now().Unix()
		_, err := anonymous(url).AssumeRoleWithWebIdentity(context.Background(), &sts.AssumeRoleWithWebIdentityInput{
			RoleArn: aws.String(a.RoleARN("admin")), RoleSessionName: aws.String("ann"),
			WebIdentityToken: aws.String(sign(t, jose.RS256, key, map[string]any{"iss": idp.url, "sub": "1", "aud": "client", "iat": now, "exp": now + 60})),
		})
		return err
	}
	wantError(t, try(one), "", "")
	wantError(t, try(one), "", "")
	if n := idp.fetches.Load(); n != 1 {
		t.Errorf("%d fetches of keys for two tokens of one key, want 1", n)
	}
	idp.publish(two)
	wantError(t, try(two), "", "")
	idp.status.Store(503)
	c.ForgetKeys()
	wantError(t, try(two), "IDPCommunicationError", "communicating with identity provider")
	idp.status.Store(429)
	wantError(t, try(two), "InvalidIdentityToken", "Couldn't retrieve verification key")
}

func TestRevokedByUserID(t *testing.T) {
	c := awstest.New(awstest.Options{})
	a := c.AddAccount(spoke, "Spoke")
	a.PutRole(awstest.Role{Name: "admin", Inline: allowing("*")})
	url := c.Start(t)
	ann, bob := a.Session("admin", "ann@example.com", time.Hour), a.Session("admin", "bob@example.com", time.Hour)
	a.SetInline("admin", "revoked", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":{
		"StringEquals":{"aws:userid":"`+a.RoleID("admin")+`:ann@example.com"},"DateLessThan":{"aws:TokenIssueTime":"`+time.Now().Add(time.Minute).UTC().Format(time.RFC3339)+`"}}}]}`)
	list := func(k awstest.Keys) error {
		_, err := iamClient(url, k).ListRoles(context.Background(), &iam.ListRolesInput{})
		return err
	}
	wantError(t, list(ann), "AccessDenied", "with an explicit deny in an identity-based policy")
	wantError(t, list(bob), "", "")
	a.DeleteRole("admin")
	wantError(t, list(bob), "InvalidClientTokenId", "")
}
