package awstest

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/policytest"
)

// A Role is an IAM role as its owner describes it.
type Role struct {
	Name                string
	Path                string // "/" where empty
	Description         string
	MaxSessionDuration  int32 // seconds; 3600 where 0
	Tags                map[string]string
	Trust               string            // JSON; where empty EC2 may assume the role and nobody else
	Inline              map[string]string // policy documents by name
	Attached            []string          // ARNs of managed policies, which need not exist
	PermissionsBoundary string            // ARN of a managed policy
	Created             time.Time         // now where zero
	LastUsed            time.Time         // never where zero
}

type role struct {
	Role
	id      string
	arn     string
	account *Account
	deleted bool             // its sessions end with it
	pinned  map[string]*role // the roles its trust policy names, by ARN, as they were when it was set
}

func (r *role) sessionARN(session string) string {
	return "arn:" + r.account.cloud.partition + ":sts::" + r.account.id + ":assumed-role/" + r.Name + "/" + session
}

const defaultTrust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

var roleName = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)

// PutRole makes the role, or changes the one of that name in place, and returns its RoleId. A role made
// again after DeleteRole has another RoleId.
func (a *Account) PutRole(r Role) (roleID string) {
	a.check(&r)
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	return a.putRole(r).id
}

func (a *Account) check(r *Role) {
	if !roleName.MatchString(r.Name) {
		panic("awstest: a role cannot be named " + strconv.Quote(r.Name))
	}
	r.Path = mustPath(r.Path)
	r.MaxSessionDuration = cmp.Or(r.MaxSessionDuration, 3600)
	r.Trust = cmp.Or(r.Trust, defaultTrust)
	mustParse("trust of role "+r.Name, r.Trust, policytest.Trust)
	for name, document := range r.Inline {
		mustParse("policy "+name+" of role "+r.Name, document, policytest.Identity)
	}
	r.Tags, r.Inline, r.Attached = maps.Clone(r.Tags), maps.Clone(r.Inline), slices.Clone(r.Attached)
}

func (a *Account) putRole(r Role) *role {
	key := strings.ToLower(r.Name)
	in := a.roles[key]
	if in == nil {
		in = &role{id: "AROA" + random(17), account: a}
		a.roles[key] = in
		a.order = nil
		if r.Created.IsZero() {
			r.Created = a.cloud.now()
		}
	} else {
		a.count(in, -1)
		r.Name = in.Name
		if r.Created.IsZero() {
			r.Created = in.Created
		}
	}
	in.Role = r
	in.arn = a.arn("role" + r.Path + r.Name)
	in.pin()
	a.count(in, 1)
	return in
}

// count keeps the numbers of attachments.
func (a *Account) count(r *role, n int) {
	for _, arn := range r.Attached {
		a.attached[arn] += n
	}
	if r.PermissionsBoundary != "" {
		a.bounding[r.PermissionsBoundary] += n
	}
}

// DeleteRole deletes the role, if there is one. Its sessions end at once.
func (a *Account) DeleteRole(name string) {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	if r := a.role(name); r != nil {
		a.count(r, -1)
		r.deleted = true
		delete(a.roles, strings.ToLower(name))
		a.order = nil
	}
}

// TagRole sets a tag. Keys are kept as written first and compared ignoring case.
func (a *Account) TagRole(name, key, value string) {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	a.mustRole(name).tag(key, value)
}

func (r *role) tag(key, value string) {
	if r.Tags == nil {
		r.Tags = make(map[string]string)
	}
	for k := range r.Tags {
		if strings.EqualFold(k, key) {
			key = k
		}
	}
	r.Tags[key] = value
}

// UntagRole removes a tag, if there is one; the key's case does not matter.
func (a *Account) UntagRole(name, key string) {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	maps.DeleteFunc(a.mustRole(name).Tags, func(k, _ string) bool { return strings.EqualFold(k, key) })
}

// SetTrust replaces the role's trust policy.
func (a *Account) SetTrust(name, trust string) {
	mustParse("trust of role "+name, trust, policytest.Trust)
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	r := a.mustRole(name)
	r.Trust = trust
	r.pin()
}

// pin remembers which roles the trust policy means. AWS keeps a role it trusts by its RoleId, so that one made
// again under the same name is not trusted, and shows the bare id once the role is gone:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html
// A role that does not exist yet is trusted by its ARN here, so that roles can be made in any order.
func (r *role) pin() {
	r.pinned = nil
	for _, arn := range r.account.cloud.policy(r.Trust, policytest.Trust).Named() {
		if named := r.account.cloud.roleByARN(arn); named != nil {
			if r.pinned == nil {
				r.pinned = make(map[string]*role)
			}
			r.pinned[arn] = named
		}
	}
}

// trusted returns the trust policy as AWS shows it.
func (r *role) trusted() string {
	text := r.Trust
	for arn, named := range r.pinned {
		if named.deleted {
			text = strings.ReplaceAll(text, strconv.Quote(arn), strconv.Quote(named.id))
		}
	}
	return text
}

// SetMaxSession replaces the longest session, in seconds.
func (a *Account) SetMaxSession(name string, seconds int32) {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	a.mustRole(name).MaxSessionDuration = seconds
}

// SetInline sets one inline policy of the role, and removes it where the document is empty.
func (a *Account) SetInline(name, policyName, document string) {
	if document != "" {
		mustParse("policy "+policyName+" of role "+name, document, policytest.Identity)
	}
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	r := a.mustRole(name)
	if document == "" {
		delete(r.Inline, policyName)
		return
	}
	r.setInline(policyName, document)
}

func (r *role) setInline(name, document string) {
	if r.Inline == nil {
		r.Inline = make(map[string]string)
	}
	r.Inline[name] = document
}

// RoleARN returns the ARN of the role; of one that does not exist, as it would be without a path.
func (a *Account) RoleARN(name string) string {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	if r := a.role(name); r != nil {
		return r.arn
	}
	return a.arn("role/" + name)
}

// RoleID returns the RoleId, "" where there is no such role.
func (a *Account) RoleID(name string) string {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	if r := a.role(name); r != nil {
		return r.id
	}
	return ""
}

func (a *Account) role(name string) *role { return a.roles[strings.ToLower(name)] }

func (a *Account) mustRole(name string) *role {
	r := a.role(name)
	if r == nil {
		panic("awstest: account " + a.id + " has no role " + strconv.Quote(name))
	}
	return r
}

// inOrder returns the roles by name.
func (a *Account) inOrder() []*role {
	if a.order == nil {
		a.order = slices.SortedFunc(maps.Values(a.roles), func(x, y *role) int { return strings.Compare(x.Name, y.Name) })
	}
	return a.order
}

// roleByARN finds the role of whatever account; nil where there is none.
func (c *Cloud) roleByARN(arn string) *role {
	m := accountInARN.FindStringSubmatch(arn)
	if m == nil || c.accounts[m[1]] == nil {
		return nil
	}
	if r := c.accounts[m[1]].role(arn[strings.LastIndex(arn, "/")+1:]); r != nil && r.arn == arn {
		return r
	}
	return nil
}
