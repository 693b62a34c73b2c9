package awstest

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/policytest"
)

// An Account is one AWS account. Its methods are its owner's hand: they are not judged, not recorded and
// not throttled. They panic on what no account could hold, a fault of the test that asks.
type Account struct {
	cloud   *Cloud
	id      string
	name    string
	created time.Time

	// All below is guarded by the cloud's mutex.
	roles     map[string]*role // by name in lower case: names are unique ignoring case
	order     []*role          // by name; nil where it must be made anew
	policies  map[string]*managed
	users     map[string]*user
	providers map[string]*provider
	attached  map[string]int // how many roles and users a policy is attached to, by ARN
	bounding  map[string]int // how many it bounds
}

// ID returns the twelve digits.
func (a *Account) ID() string { return a.id }

// Name returns the name as Organizations lists it.
func (a *Account) Name() string { return a.name }

// arn returns the ARN of an IAM resource of the account, such as "role/x".
func (a *Account) arn(resource string) string {
	return "arn:" + a.cloud.partition + ":iam::" + a.id + ":" + resource
}

// A Policy is a customer managed policy. The path is "/" where empty.
type Policy struct {
	Name, Path, Document string
	Description          string
}

// managed is a managed policy with its versions, the last of which is the default one.
type managed struct {
	id, name, path, arn, description string
	created, updated                 time.Time
	versions                         []version
	last                             int // number of the newest version
}

type version struct {
	id       string
	document string
	created  time.Time
}

// manyVersions is how many versions of a policy AWS keeps.
const manyVersions = 5

func (m *managed) current() version { return m.versions[len(m.versions)-1] }

func (m *managed) add(document string, now time.Time) {
	m.last++
	m.versions = append(m.versions, version{"v" + strconv.Itoa(m.last), document, now})
	if len(m.versions) > manyVersions {
		m.versions = slices.Delete(m.versions, 0, 1)
	}
	m.updated = now
}

// PutPolicy makes a customer managed policy, or a new default version of the one there is, and returns its ARN.
func (a *Account) PutPolicy(p Policy) (arn string) {
	path := mustPath(p.Path)
	mustParse("policy "+p.Name, p.Document, policytest.Identity)
	arn = a.arn("policy" + path + p.Name)
	now := a.cloud.now()
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	m := a.policies[arn]
	if m == nil {
		m = &managed{id: "ANPA" + random(17), name: p.Name, path: path, arn: arn, description: p.Description, created: now}
		a.policies[arn] = m
	}
	m.add(p.Document, now)
	return arn
}

// DeletePolicy deletes a customer managed policy, even where it is attached still.
func (a *Account) DeletePolicy(arn string) {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	delete(a.policies, arn)
}

// PutAWSPolicy makes one of AWS's own policies, or a new default version of it, and returns its ARN. All
// accounts share it.
func (c *Cloud) PutAWSPolicy(name, document string) (arn string) {
	mustParse("policy "+name, document, policytest.Identity)
	arn = "arn:" + c.partition + ":iam::aws:policy/" + name
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.shared[arn]
	if m == nil {
		m = &managed{id: "ANPA" + random(17), name: name, path: "/", arn: arn, created: now}
		c.shared[arn] = m
	}
	m.add(document, now)
	return arn
}

// awsPolicies are some of AWS's own, shortened.
var awsPolicies = map[string]string{
	"AdministratorAccess": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`,
	"PowerUserAccess": `{"Version":"2012-10-17","Statement":[` +
		`{"Effect":"Allow","NotAction":["iam:*","organizations:*","account:*"],"Resource":"*"},` +
		`{"Effect":"Allow","Action":["account:GetAccountInformation","iam:CreateServiceLinkedRole","iam:ListRoles","organizations:DescribeOrganization"],"Resource":"*"}]}`,
	"ReadOnlyAccess": `{"Version":"2012-10-17","Statement":[{"Sid":"ReadOnlyActionsGroup1","Effect":"Allow",` +
		`"Action":["iam:Generate*","iam:Get*","iam:List*","iam:Simulate*","organizations:Describe*","organizations:List*","s3:Get*","s3:List*","ec2:Describe*","sts:GetAccessKeyInfo","sts:GetCallerIdentity","sts:GetSessionToken"],"Resource":"*"}]}`,
	"SecurityAudit": `{"Version":"2012-10-17","Statement":[{"Sid":"BaseSecurityAuditStatement","Effect":"Allow",` +
		`"Action":["iam:GenerateCredentialReport","iam:Get*","iam:List*","organizations:Describe*","organizations:List*","s3:GetBucket*","s3:ListAllMyBuckets"],"Resource":"*"}]}`,
}

// findPolicy returns a managed policy the account can see, nil where there is none.
func (a *Account) findPolicy(arn string) *managed {
	if m := a.policies[arn]; m != nil {
		return m
	}
	return a.cloud.shared[arn]
}

type provider struct {
	arn       string
	issuer    string // with scheme, as iss must be
	audiences []string
	created   time.Time
}

// host is the issuer without its scheme, as ARNs and condition keys have it.
func (p *provider) host() string { return withoutScheme(p.issuer) }

func withoutScheme(issuer string) string {
	_, rest, found := strings.Cut(issuer, "://")
	if !found {
		return issuer
	}
	return rest
}

// PutOIDCProvider makes the account trust tokens of the issuer for the audiences, or changes for which, and
// returns the provider's ARN. AWS demands an https URL without a port; here plain http with a port does,
// since an issuer of a test lives on loopback.
func (a *Account) PutOIDCProvider(issuer string, audiences ...string) (arn string) {
	arn = a.arn("oidc-provider/" + withoutScheme(issuer))
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	a.providers[arn] = &provider{arn: arn, issuer: issuer, audiences: slices.Clone(audiences), created: a.cloud.now()}
	return arn
}

// DeleteOIDCProvider deletes the provider.
func (a *Account) DeleteOIDCProvider(arn string) {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	delete(a.providers, arn)
}

type user struct {
	id, name, arn string
	inline        map[string]string
	created       time.Time
}

// PutUser makes a user with one inline policy, none where it is empty, and returns long-term keys. For a
// user there is already it replaces the policy and makes further keys.
func (a *Account) PutUser(name, policy string) Keys {
	if policy != "" {
		mustParse("user "+name, policy, policytest.Identity)
	}
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	u := a.users[name]
	if u == nil {
		u = &user{id: "AIDA" + random(17), name: name, arn: a.arn("user/" + name), created: a.cloud.now()}
		a.users[name] = u
	}
	u.inline = map[string]string{}
	if policy != "" {
		u.inline["policy"] = policy
	}
	return a.cloud.keysFor(&credential{account: a, user: u})
}

// podIdentityTags are the keys of the tags EKS gives every session:
// https://docs.aws.amazon.com/eks/latest/userguide/pod-id-abac.html
var podIdentityTags = []string{
	"eks-cluster-arn", "eks-cluster-name", "kubernetes-namespace", "kubernetes-service-account",
	"kubernetes-pod-name", "kubernetes-pod-uid",
}

// PodIdentity returns keys of a session of the role as EKS Pod Identity gives them: from now for six hours,
// with the six session tags, all transitive. The role's trust policy is not asked.
func (a *Account) PodIdentity(roleName string, now time.Time) Keys {
	values := []string{
		"arn:" + a.cloud.partition + ":eks:us-west-1:" + a.id + ":cluster/tools", "tools", "serval", "serval-worker",
		"serval-worker-7d9c5b6f4d-x2x8k", "5d3a1b0e-2f64-4c58-9c5e-0d7d3e6b1a42",
	}
	tags := make(map[string]string)
	for i, key := range podIdentityTags {
		tags[key] = values[i]
	}
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	return a.cloud.keysFor(&credential{
		account: a, role: a.mustRole(roleName), session: "eks-tools-serval-wor-" + requestID(),
		issued: now, expires: now.Add(6 * time.Hour),
		tags: tags, transitive: slices.Clone(podIdentityTags),
	})
}

// Session returns keys of a session of the role that lasts for d, as an administrator's own: neither
// trust nor length is judged.
func (a *Account) Session(roleName, sessionName string, d time.Duration) Keys {
	now := a.cloud.now()
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	return a.cloud.keysFor(&credential{
		account: a, role: a.mustRole(roleName), session: sessionName, issued: now, expires: now.Add(d),
	})
}

// sorted returns the values of m by key.
func sorted[K cmp.Ordered, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}

// mustPath returns a path as it is kept.
func mustPath(path string) string {
	if path == "" {
		return "/"
	}
	if !strings.HasPrefix(path, "/") || !strings.HasSuffix(path, "/") {
		panic("awstest: a path begins and ends with a slash, unlike " + strconv.Quote(path))
	}
	return path
}

func mustParse(what, text string, kind policytest.Kind) {
	if _, err := policytest.Parse(text, kind); err != nil {
		panic("awstest: " + what + ": " + err.Error())
	}
}
