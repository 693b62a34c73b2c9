package awstest

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/serval-bridge/serval-bridge/internal/policytest"
)

// Keys are credentials for a client: long-term ones without a token and an expiration, or a session's.
type Keys struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	Expiration      time.Time
}

// A credential is what the cloud knows of an access key.
type credential struct {
	account *Account
	id      string
	secret  string
	token   string    // empty for a user
	issued  time.Time // of a session
	expires time.Time // zero for a user

	user *user // this or the next

	role           *role
	session        string
	narrowed       bool     // there are session policies, which only ever narrow
	inline         string   // session policy
	managed        []string // session policies by ARN
	tags           map[string]string
	transitive     []string // keys of tags that go on with role chaining
	sourceIdentity string
	provider       string // ARN of the identity provider the session came by
	chained        bool   // another session of a role assumed it
}

func (k *credential) arn() string {
	if k.user != nil {
		return k.user.arn
	}
	return k.role.sessionARN(k.session)
}

// userID is the unique id as aws:userid has it.
func (k *credential) userID() string {
	if k.user != nil {
		return k.user.id
	}
	return k.role.id + ":" + k.session
}

// asker is who k is to the trust policy of the role.
func (k *credential) asker(of *role) policytest.Asker {
	w := policytest.Asker{Account: k.account.id, Self: k.arn()}
	if k.role != nil {
		w.Role, w.RoleID = k.role.arn, k.role.id
		if named := of.pinned[w.Role]; named != nil && named != k.role {
			w.Role, w.Self = k.role.id, k.userID() // its namesake is meant
		}
	}
	return w
}

// keysFor makes the credential known under new keys.
func (c *Cloud) keysFor(k *credential) Keys {
	prefix := "AKIA"
	if k.role != nil {
		prefix = "ASIA"
		k.token = "IQoJ" + secret(500)
	}
	k.id, k.secret = prefix+random(16), secret(30)
	c.prune()
	c.keys[k.id] = k
	return Keys{k.id, k.secret, k.token, k.expires}
}

// manySessions is how many keys the cloud knows before it forgets those long expired.
const manySessions = 100_000

func (c *Cloud) prune() {
	if len(c.keys) == 0 || len(c.keys)%manySessions != 0 {
		return
	}
	old := c.now().Add(-time.Hour)
	maps.DeleteFunc(c.keys, func(_ string, k *credential) bool {
		return !k.expires.IsZero() && k.expires.Before(old)
	})
}

var authorization = regexp.MustCompile(
	`^AWS4-HMAC-SHA256 Credential=([^/, ]+)/([0-9]{8})/([^/, ]+)/([^/, ]+)/aws4_request, ?SignedHeaders=([^, ]+), ?Signature=([0-9a-f]{64})$`)

func accessKeyID(r *http.Request) string {
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	id, _, _ := strings.Cut(rest, "/")
	return id
}

// skew is how far a client's clock may be off.
const skew = 15 * time.Minute

// authenticate computes the signature anew, from the secret of the access key and the headers the client
// says it signed. See https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
func (c *Cloud) authenticate(req *Request) (*credential, *failure) {
	r := req.http
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, fail(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
	}
	m := authorization.FindStringSubmatch(header)
	if m == nil {
		return nil, fail(400, "IncompleteSignature", "Authorization header is not in the form of AWS4-HMAC-SHA256.")
	}
	id, day, region, service, signed := m[1], m[2], m[3], m[4], strings.Split(m[5], ";")
	c.mu.Lock()
	k := c.keys[id]
	gone := k != nil && k.role != nil && k.role.deleted
	c.mu.Unlock()
	token := r.Header.Get("X-Amz-Security-Token")
	if k == nil || gone || subtle.ConstantTimeCompare([]byte(token), []byte(k.token)) != 1 {
		return nil, fail(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
	}
	now := c.now()
	date, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || date.Format("20060102") != day {
		return nil, fail(403, "SignatureDoesNotMatch", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP")
	}
	if service != req.Service {
		return nil, fail(403, "SignatureDoesNotMatch", "Credential should be scoped to correct service: '%s'. ", req.Service)
	}
	const stamp = "20060102T150405Z"
	if date.Before(now.Add(-skew)) {
		return nil, fail(403, "SignatureDoesNotMatch", "Signature expired: %s is now earlier than %s (%s - 15 min.)",
			date.Format(stamp), now.Add(-skew).UTC().Format(stamp), now.UTC().Format(stamp))
	}
	if date.After(now.Add(skew)) {
		return nil, fail(403, "SignatureDoesNotMatch", "Signature not yet current: %s is still later than %s (%s + 15 min.)",
			date.Format(stamp), now.Add(skew).UTC().Format(stamp), now.UTC().Format(stamp))
	}
	if !c.signatureHolds(req, k, service, region, date, signed) {
		return nil, fail(403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	if !k.expires.IsZero() && !now.Before(k.expires) {
		if req.Service == "organizations" {
			return nil, fail(400, "ExpiredTokenException", "The security token included in the request is expired")
		}
		return nil, fail(403, "ExpiredToken", "The security token included in the request is expired")
	}
	return k, nil
}

func (c *Cloud) signatureHolds(req *Request, k *credential, service, region string, date time.Time, signed []string) bool {
	r := req.http
	again := &http.Request{Method: r.Method, URL: r.URL, Host: r.Host, Header: make(http.Header)}
	u := *r.URL
	again.URL = &u // the signer puts the query in order
	if slices.Contains(signed, "content-length") {
		again.ContentLength = r.ContentLength
	}
	for _, name := range signed {
		if name != "host" && name != "content-length" {
			again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	hash := sha256.Sum256(req.body)
	keys := aws.Credentials{AccessKeyID: k.id, SecretAccessKey: k.secret, SessionToken: k.token}
	err := v4.NewSigner().SignHTTP(context.Background(), keys, again, hex.EncodeToString(hash[:]), service, region, date)
	if err != nil {
		return false
	}
	_, want, _ := strings.Cut(again.Header.Get("Authorization"), "Signature=")
	_, got, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
	return subtle.ConstantTimeCompare([]byte(want), []byte(got)) == 1
}
