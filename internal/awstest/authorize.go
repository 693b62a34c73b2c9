package awstest

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/policytest"
)

// rights is what a caller's own policies say to one question.
type rights struct {
	denied   string // the kind of policy that denies it
	identity bool
	boundary bool
	session  bool
}

func (r rights) allowed() bool {
	return r.denied == "" && r.identity && r.boundary && r.session
}

// reason words a refusal as AWS does:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
func (r rights) reason(action string) string {
	switch {
	case r.denied != "":
		return " with an explicit deny in " + r.denied
	case !r.identity:
		return " because no identity-based policy allows the " + action + " action"
	case !r.boundary:
		return " because no permissions boundary allows the " + action + " action"
	}
	return " because no session policy allows the " + action + " action"
}

// policy returns the policy of the text. Documents are checked on their way in.
func (c *Cloud) policy(text string, kind policytest.Kind) *policytest.Policy {
	if p := c.parsed[text]; p != nil {
		return p
	}
	p, err := policytest.Parse(text, kind)
	if err != nil {
		return &policytest.Policy{} // allows nothing
	}
	if len(c.parsed) > 10_000 {
		clear(c.parsed)
	}
	c.parsed[text] = p
	return p
}

// rights judges q by the policies of k. The caller holds the mutex, here and below.
func (c *Cloud) rights(k *credential, q policytest.Question) rights {
	r := rights{boundary: true, session: true}
	judge := func(kind string, texts ...string) (allowed bool) {
		for _, text := range texts {
			o := c.policy(text, policytest.Identity).Evaluate(q)
			allowed = allowed || o.Allowed != policytest.Nobody
			if o.Denied && r.denied == "" {
				r.denied = kind
			}
		}
		return allowed
	}
	if k.user != nil {
		r.identity = judge("an identity-based policy", sorted(k.user.inline)...)
		return r
	}
	r.identity = judge("an identity-based policy",
		append(sorted(k.role.Inline), k.account.documents(k.role.Attached)...)...)
	if b := k.role.PermissionsBoundary; b != "" {
		r.boundary = judge("a permissions boundary", k.account.documents([]string{b})...)
	}
	if k.narrowed {
		texts := k.account.documents(k.managed)
		if k.inline != "" {
			texts = append(texts, k.inline)
		}
		r.session = judge("a session policy", texts...)
	}
	return r
}

// documents returns the default versions of the managed policies that exist.
func (a *Account) documents(arns []string) []string {
	var out []string
	for _, arn := range arns {
		if m := a.findPolicy(arn); m != nil {
			out = append(out, m.current().document)
		}
	}
	return out
}

// context returns what a request of k says of itself, by the keys of
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
func (c *Cloud) context(req *Request, k *credential) map[string][]string {
	m := c.circumstances(req)
	m["aws:principalarn"] = []string{k.arn()}
	m["aws:principalaccount"] = []string{k.account.id}
	m["aws:userid"] = []string{k.userID()}
	if k.user != nil {
		m["aws:principaltype"] = []string{"User"}
		m["aws:username"] = []string{k.user.name}
		return m
	}
	m["aws:principaltype"] = []string{"AssumedRole"}
	m["aws:principalarn"] = []string{k.role.arn}
	m["aws:multifactorauthpresent"] = []string{"false"}
	m["aws:tokenissuetime"] = []string{k.issued.UTC().Format(time.RFC3339)}
	if k.provider != "" {
		m["aws:federatedprovider"] = []string{k.provider}
	}
	if k.sourceIdentity != "" {
		m["aws:sourceidentity"] = []string{k.sourceIdentity}
	}
	for _, tags := range []map[string]string{k.role.Tags, k.tags} { // session tags go before the role's
		for key, value := range tags {
			m["aws:principaltag/"+strings.ToLower(key)] = []string{value}
		}
	}
	return m
}

// circumstances are the keys that every request has, whoever sends it.
func (c *Cloud) circumstances(req *Request) map[string][]string {
	now := c.now().UTC()
	ip := c.sourceIP
	if ip == "" {
		ip = "127.0.0.1"
		if host, _, err := net.SplitHostPort(req.http.RemoteAddr); err == nil {
			ip = host
		}
	}
	return map[string][]string{
		"aws:currenttime":           {now.Format(time.RFC3339)},
		"aws:epochtime":             {strconv.FormatInt(now.Unix(), 10)},
		"aws:sourceip":              {ip},
		"aws:viaawsservice":         {"false"},
		"aws:principalisawsservice": {"false"},
		"aws:securetransport":       {"true"},
		"aws:useragent":             {req.http.UserAgent()},
	}
}

// describe adds the keys that tell of the role an action is about.
func describe(m map[string][]string, r *role) {
	for key, value := range r.Tags {
		m["aws:resourcetag/"+strings.ToLower(key)] = []string{value}
		m["iam:resourcetag/"+strings.ToLower(key)] = []string{value}
	}
	m["aws:resourceaccount"] = []string{r.account.id}
}

// tagging adds the keys that tell of tags passed along.
func tagging(m map[string][]string, tags map[string]string) {
	if len(tags) == 0 {
		return
	}
	for key, value := range tags {
		m["aws:requesttag/"+strings.ToLower(key)] = []string{value}
	}
	m["aws:tagkeys"] = slices.Sorted(maps.Keys(tags))
}

// authorize refuses what the caller's policies do not allow.
func (c *Cloud) authorize(k *credential, q policytest.Question) *failure {
	r := c.rights(k, q)
	if r.allowed() {
		return nil
	}
	return fail(403, "AccessDenied", "User: %s is not authorized to perform: %s on resource: %s%s",
		k.arn(), q.Action, q.Resource, r.reason(q.Action))
}

// mayAssume judges an action on a role by both sides: the caller's own policies and the role's trust policy.
// Within one account a trust policy that names the caller suffices; one that names the account, and every
// one across accounts, needs the caller's own policies too. See "Cross-account policy evaluation logic" and
// "Evaluating identity-based policies with resource-based policies" in the IAM user guide.
func (c *Cloud) mayAssume(k *credential, r *role, q policytest.Question) *failure {
	q.Who = k.asker(r)
	own := c.rights(k, q)
	trust := c.policy(r.Trust, policytest.Trust).Evaluate(q)
	refuse := func(reason string) *failure {
		return fail(403, "AccessDenied", "User: %s is not authorized to perform: %s on resource: %s%s",
			k.arn(), q.Action, r.arn, reason)
	}
	switch {
	case own.denied != "":
		return refuse(own.reason(q.Action))
	case trust.Denied:
		return refuse(" with an explicit deny in a resource-based policy")
	case trust.Allowed == policytest.Nobody:
		return refuse("")
	case own.allowed():
		return nil
	case r.account != k.account, trust.Allowed == policytest.ByAccount:
		return refuse(own.reason(q.Action))
	case trust.Allowed == policytest.ByRole && !(own.boundary && own.session):
		own.identity = true
		return refuse(own.reason(q.Action))
	}
	return nil
}
