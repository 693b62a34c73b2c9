package awstest

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/policytest"
)

// members is a list as the Query protocol has it, present even where empty.
type members[T any] struct {
	Member []T `xml:"member"`
}

type roleXML struct {
	Path                     string
	RoleName                 string
	RoleId                   string
	Arn                      string
	CreateDate               string
	AssumeRolePolicyDocument string
	Description              string `xml:",omitempty"`
	MaxSessionDuration       int32
	PermissionsBoundary      *boundaryXML
	Tags                     *members[tagXML]
	RoleLastUsed             *lastUsedXML
}

type boundaryXML struct {
	PermissionsBoundaryType string
	PermissionsBoundaryArn  string
}

type tagXML struct{ Key, Value string }

type lastUsedXML struct {
	LastUsedDate string `xml:",omitempty"`
	Region       string `xml:",omitempty"`
}

type attachedXML struct{ PolicyName, PolicyArn string }

type inlineXML struct{ PolicyName, PolicyDocument string }

// roleDetailXML says neither Description nor MaxSessionDuration: AWS does not.
type roleDetailXML struct {
	Path                     string
	RoleName                 string
	RoleId                   string
	Arn                      string
	CreateDate               string
	AssumeRolePolicyDocument string
	InstanceProfileList      members[string]
	RolePolicyList           members[inlineXML]
	AttachedManagedPolicies  members[attachedXML]
	PermissionsBoundary      *boundaryXML
	Tags                     members[tagXML]
	RoleLastUsed             lastUsedXML
}

type userDetailXML struct {
	Path                    string
	UserName                string
	UserId                  string
	Arn                     string
	CreateDate              string
	UserPolicyList          members[inlineXML]
	GroupList               members[string]
	AttachedManagedPolicies members[attachedXML]
	Tags                    members[tagXML]
}

type policyXML struct {
	PolicyName                    string
	PolicyId                      string
	Arn                           string
	Path                          string
	DefaultVersionId              string
	AttachmentCount               int
	PermissionsBoundaryUsageCount int
	IsAttachable                  bool
	Description                   string `xml:",omitempty"`
	CreateDate                    string
	UpdateDate                    string
	Tags                          *members[tagXML]
	PolicyVersionList             *members[versionXML]
}

type versionXML struct {
	Document         string
	VersionId        string
	IsDefaultVersion bool
	CreateDate       string
}

// pageXML ends every list.
type pageXML struct {
	IsTruncated bool
	Marker      string `xml:",omitempty"`
}

// encode writes a document as IAM does: percent-encoded as RFC 3986 has it, with upper-case digits and
// %20 for a space.
func encode(document string) string {
	return strings.ReplaceAll(url.QueryEscape(document), "+", "%20")
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func tagsXML(tags map[string]string) members[tagXML] {
	var m members[tagXML]
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		m.Member = append(m.Member, tagXML{key, tags[key]})
	}
	return m
}

func inlinesXML(documents map[string]string) members[inlineXML] {
	var m members[inlineXML]
	for _, name := range slices.Sorted(maps.Keys(documents)) {
		m.Member = append(m.Member, inlineXML{name, encode(documents[name])})
	}
	return m
}

// key is what attached policies are in order of. One of AWS's and one of the
// account's may share a name.
func (a attachedXML) key() string { return a.PolicyName + "\n" + a.PolicyArn }

func (r *role) attachedXML() []attachedXML {
	var out []attachedXML
	for _, arn := range r.Attached {
		out = append(out, attachedXML{arn[strings.LastIndex(arn, "/")+1:], arn})
	}
	slices.SortFunc(out, func(x, y attachedXML) int { return strings.Compare(x.key(), y.key()) })
	return out
}

func (r *role) boundaryXML() *boundaryXML {
	if r.PermissionsBoundary == "" {
		return nil
	}
	return &boundaryXML{"Policy", r.PermissionsBoundary}
}

func (r *role) lastUsedXML() lastUsedXML {
	if r.LastUsed.IsZero() {
		return lastUsedXML{}
	}
	return lastUsedXML{date(r.LastUsed), "us-east-1"}
}

// listed is the role as ListRoles has it: without tags, boundary and last use.
func (r *role) listed() roleXML {
	return roleXML{
		Path: r.Path, RoleName: r.Name, RoleId: r.id, Arn: r.arn, CreateDate: date(r.Created),
		AssumeRolePolicyDocument: encode(r.trusted()), Description: r.Description, MaxSessionDuration: r.MaxSessionDuration,
	}
}

// full is the role as GetRole has it. One without tags has no Tags at all.
func (r *role) full() roleXML {
	x := r.listed()
	if len(r.Tags) > 0 {
		tags := tagsXML(r.Tags)
		x.Tags = &tags
	}
	used := r.lastUsedXML()
	x.RoleLastUsed = &used
	x.PermissionsBoundary = r.boundaryXML()
	return x
}

func (r *role) detail() roleDetailXML {
	return roleDetailXML{
		Path: r.Path, RoleName: r.Name, RoleId: r.id, Arn: r.arn, CreateDate: date(r.Created),
		AssumeRolePolicyDocument: encode(r.trusted()),
		RolePolicyList:           inlinesXML(r.Inline),
		AttachedManagedPolicies:  members[attachedXML]{r.attachedXML()},
		PermissionsBoundary:      r.boundaryXML(),
		Tags:                     tagsXML(r.Tags),
		RoleLastUsed:             r.lastUsedXML(),
	}
}

func (u *user) detail() userDetailXML {
	return userDetailXML{
		Path: "/", UserName: u.name, UserId: u.id, Arn: u.arn, CreateDate: date(u.created),
		UserPolicyList: inlinesXML(u.inline),
	}
}

func (a *Account) policyXML(m *managed) policyXML {
	return policyXML{
		PolicyName: m.name, PolicyId: m.id, Arn: m.arn, Path: m.path, DefaultVersionId: m.current().id,
		AttachmentCount: a.attached[m.arn], PermissionsBoundaryUsageCount: a.bounding[m.arn], IsAttachable: true,
		Description: m.description, CreateDate: date(m.created), UpdateDate: date(m.updated),
	}
}

func (m *managed) versionXML(v version) versionXML {
	return versionXML{encode(v.document), v.id, v.id == m.current().id, date(v.created)}
}

// An iamCall is one call of IAM on its way, with the state locked.
type iamCall struct {
	cloud   *Cloud
	req     *Request
	caller  *credential
	account *Account
}

// actions are those of IAM that are played here:
// https://docs.aws.amazon.com/IAM/latest/APIReference/API_Operations.html
var actions = map[string]func(iamCall) (any, *failure){
	"ListRoles":                      iamCall.listRoles,
	"GetRole":                        iamCall.getRole,
	"ListRolePolicies":               iamCall.listRolePolicies,
	"GetRolePolicy":                  iamCall.getRolePolicy,
	"ListAttachedRolePolicies":       iamCall.listAttachedRolePolicies,
	"GetPolicy":                      iamCall.getPolicy,
	"GetPolicyVersion":               iamCall.getPolicyVersion,
	"GetAccountAuthorizationDetails": iamCall.getAccountAuthorizationDetails,
	"CreateRole":                     iamCall.createRole,
	"PutRolePolicy":                  iamCall.putRolePolicy,
	"TagRole":                        iamCall.tagRole,
	"ListOpenIDConnectProviders":     iamCall.listOpenIDConnectProviders,
	"GetOpenIDConnectProvider":       iamCall.getOpenIDConnectProvider,
}

func (c *Cloud) actIAM(req *Request, k *credential) (any, *failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	act := actions[req.Action]
	switch {
	case req.Action == "":
		return nil, fail(400, "MissingAction", "Could not find operation Action")
	case req.Params.Get("Version") != "2010-05-08":
		return nil, fail(400, "InvalidAction", "Could not find operation %s for version %s", req.Action, req.Params.Get("Version"))
	case act == nil:
		return nil, refuseUnknown(k, "iam:"+req.Action, "*")
	}
	return act(iamCall{c, req, k, k.account})
}

// may refuses what the caller may not do. The action is that of the call unless named.
func (i iamCall) may(resource string, about *role, more ...func(map[string][]string)) *failure {
	return i.mayDo(i.req.Action, resource, about, more...)
}

func (i iamCall) mayDo(action, resource string, about *role, more ...func(map[string][]string)) *failure {
	q := policytest.Question{Action: "iam:" + action, Resource: resource, Context: i.cloud.context(i.req, i.caller)}
	if about != nil {
		describe(q.Context, about)
	}
	for _, f := range more {
		f(q.Context)
	}
	return i.cloud.authorize(i.caller, q)
}

func noSuchEntity(format string, args ...any) *failure {
	return fail(404, "NoSuchEntity", format, args...)
}

// role returns the role the call is about, if the caller may do that with it. Whether it may comes first:
// to whom nothing is allowed, nothing is missing.
func (i iamCall) role() (*role, *failure) {
	name := i.req.Params.Get("RoleName")
	if !roleName.MatchString(name) {
		return nil, invalid("roleName", name, `Member must satisfy regular expression pattern: [\w+=,.@-]+`)
	}
	r := i.account.role(name)
	arn := i.account.arn("role/" + name)
	if r != nil {
		arn = r.arn
	}
	if f := i.may(arn, r); f != nil {
		return nil, f
	}
	if r == nil {
		return nil, noSuchEntity("The role with name %s cannot be found.", name)
	}
	return r, nil
}

// A cursor is where a page begins and how long it is.
type cursor struct {
	after string
	limit int
}

const markerPrefix = "serval-test-marker:"

// cursor reads Marker and MaxItems. Markers say after which item to go on, so that a list survives changes.
func (i iamCall) cursor() (cursor, *failure) {
	cur := cursor{limit: 100}
	if s := i.req.Params.Get("MaxItems"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 1000 {
			return cur, invalid("maxItems", s, "Member must have value between 1 and 1000")
		}
		cur.limit = n
	}
	cur.limit = i.cloud.page(cur.limit)
	if s := i.req.Params.Get("Marker"); s != "" {
		b, err := base64.URLEncoding.DecodeString(s)
		after, ok := strings.CutPrefix(string(b), markerPrefix)
		if err != nil || !ok {
			return cur, fail(400, "ValidationError", "Invalid Marker: %s", s)
		}
		cur.after = after
	}
	return cur, nil
}

func marker(after string) string {
	return base64.URLEncoding.EncodeToString([]byte(markerPrefix + after))
}

// cut takes one page of the items that wanted wants, from those in the order of their names.
func cut[T any](items []T, cur cursor, name func(T) string, wanted func(T) bool) ([]T, pageXML) {
	from, _ := slices.BinarySearchFunc(items, cur.after, func(item T, after string) int {
		if name(item) <= after && after != "" {
			return -1
		}
		return 1
	})
	var out []T
	for _, item := range items[from:] {
		if wanted != nil && !wanted(item) {
			continue
		}
		if len(out) == cur.limit {
			last := cur.after
			if len(out) > 0 {
				last = name(out[len(out)-1])
			}
			return out, pageXML{true, marker(last)}
		}
		out = append(out, item)
	}
	return out, pageXML{}
}

func (i iamCall) listRoles() (any, *failure) {
	prefix := i.req.Params.Get("PathPrefix")
	if prefix != "" && !strings.HasPrefix(prefix, "/") {
		return nil, invalid("pathPrefix", prefix, `Member must satisfy regular expression pattern: (\u002F)|(\u002F[\u0021-\u007F]+)`)
	}
	resource := prefix
	if resource == "" {
		resource = "/"
	}
	if f := i.may(i.account.arn("role"+resource), nil); f != nil {
		return nil, f
	}
	cur, f := i.cursor()
	if f != nil {
		return nil, f
	}
	roles, page := cut(i.account.inOrder(), cur,
		func(r *role) string { return r.Name },
		func(r *role) bool { return strings.HasPrefix(r.Path, prefix) })
	out := struct {
		pageXML
		Roles members[roleXML]
	}{pageXML: page}
	for _, r := range roles {
		out.Roles.Member = append(out.Roles.Member, r.listed())
	}
	return out, nil
}

func (i iamCall) getRole() (any, *failure) {
	r, f := i.role()
	if f != nil {
		return nil, f
	}
	return struct{ Role roleXML }{r.full()}, nil
}

func (i iamCall) listRolePolicies() (any, *failure) {
	r, f := i.role()
	if f != nil {
		return nil, f
	}
	cur, f := i.cursor()
	if f != nil {
		return nil, f
	}
	names, page := cut(slices.Sorted(maps.Keys(r.Inline)), cur, func(s string) string { return s }, nil)
	return struct {
		pageXML
		PolicyNames members[string]
	}{page, members[string]{names}}, nil
}

func (i iamCall) getRolePolicy() (any, *failure) {
	r, f := i.role()
	if f != nil {
		return nil, f
	}
	name := i.req.Params.Get("PolicyName")
	document, ok := r.Inline[name]
	if !ok {
		return nil, noSuchEntity("The role policy with name %s cannot be found.", name)
	}
	return struct{ RoleName, PolicyName, PolicyDocument string }{r.Name, name, encode(document)}, nil
}

func (i iamCall) listAttachedRolePolicies() (any, *failure) {
	r, f := i.role()
	if f != nil {
		return nil, f
	}
	cur, f := i.cursor()
	if f != nil {
		return nil, f
	}
	policies, page := cut(r.attachedXML(), cur, attachedXML.key, nil)
	return struct {
		pageXML
		AttachedPolicies members[attachedXML]
	}{page, members[attachedXML]{policies}}, nil
}

// managed returns the policy the call is about, if the caller may do that with it.
func (i iamCall) managed() (*managed, *failure) {
	arn := i.req.Params.Get("PolicyArn")
	if len(arn) < 20 {
		return nil, invalid("policyArn", arn, "Member must have length greater than or equal to 20")
	}
	if f := i.may(arn, nil); f != nil {
		return nil, f
	}
	m := i.account.findPolicy(arn)
	if m == nil {
		return nil, noSuchEntity("Policy %s was not found.", arn)
	}
	return m, nil
}

func (i iamCall) getPolicy() (any, *failure) {
	m, f := i.managed()
	if f != nil {
		return nil, f
	}
	x := i.account.policyXML(m)
	x.Tags = &members[tagXML]{}
	return struct{ Policy policyXML }{x}, nil
}

func (i iamCall) getPolicyVersion() (any, *failure) {
	m, f := i.managed()
	if f != nil {
		return nil, f
	}
	id := i.req.Params.Get("VersionId")
	for _, v := range m.versions {
		if v.id == id {
			return struct{ PolicyVersion versionXML }{m.versionXML(v)}, nil
		}
	}
	return nil, noSuchEntity("Policy %s version %s does not exist or is not attachable.", m.arn, id)
}

type detailsXML struct {
	pageXML
	UserDetailList  members[userDetailXML]
	GroupDetailList members[string]
	RoleDetailList  members[roleDetailXML]
	Policies        members[policyXML]
}

// getAccountAuthorizationDetails pages over users, roles, the account's policies and those of AWS that are
// attached, in this order. A marker names the kind and the item.
func (i iamCall) getAccountAuthorizationDetails() (any, *failure) {
	if f := i.may("*", nil); f != nil {
		return nil, f
	}
	cur, f := i.cursor()
	if f != nil {
		return nil, f
	}
	wanted := make(map[string]bool)
	for n := 1; ; n++ {
		kind, ok := i.req.Params[fmt.Sprintf("Filter.member.%d", n)]
		if !ok {
			break
		}
		wanted[kind[0]] = true
	}
	for kind := range wanted {
		if !slices.Contains([]string{"User", "Role", "Group", "LocalManagedPolicy", "AWSManagedPolicy"}, kind) {
			return nil, invalid("filter", kind, "Member must satisfy enum value set: [AWSManagedPolicy, User, Role, Group, LocalManagedPolicy]")
		}
	}
	all := len(wanted) == 0
	var out detailsXML
	segments := []struct {
		kind string
		take func(cursor) (int, pageXML)
	}{
		{"User", func(cur cursor) (int, pageXML) {
			users, page := cut(sorted(i.account.users), cur, func(u *user) string { return u.name }, nil)
			for _, u := range users {
				out.UserDetailList.Member = append(out.UserDetailList.Member, u.detail())
			}
			return len(users), page
		}},
		{"Role", func(cur cursor) (int, pageXML) {
			roles, page := cut(i.account.inOrder(), cur, func(r *role) string { return r.Name }, nil)
			for _, r := range roles {
				out.RoleDetailList.Member = append(out.RoleDetailList.Member, r.detail())
			}
			return len(roles), page
		}},
		{"LocalManagedPolicy", func(cur cursor) (int, pageXML) {
			return i.takePolicies(&out, sorted(i.account.policies), cur, nil)
		}},
		{"AWSManagedPolicy", func(cur cursor) (int, pageXML) {
			return i.takePolicies(&out, sorted(i.cloud.shared), cur, func(m *managed) bool {
				return i.account.attached[m.arn] > 0 || i.account.bounding[m.arn] > 0
			})
		}},
	}
	kind, after, resumed := strings.Cut(cur.after, "\n")
	left := cur.limit
	for _, s := range segments {
		if resumed && s.kind != kind {
			continue
		}
		from := cursor{limit: left}
		if resumed {
			from.after, resumed = after, false
		}
		if !all && !wanted[s.kind] {
			continue
		}
		n, page := s.take(from)
		left -= n
		if page.IsTruncated {
			out.pageXML = pageXML{true, requalify(page.Marker, s.kind)}
			return out, nil
		}
	}
	return out, nil
}

// requalify puts the kind of item into a marker.
func requalify(m, kind string) string {
	b, _ := base64.URLEncoding.DecodeString(m) // our own
	return marker(kind + "\n" + strings.TrimPrefix(string(b), markerPrefix))
}

func (i iamCall) takePolicies(out *detailsXML, policies []*managed, cur cursor, wanted func(*managed) bool) (int, pageXML) {
	found, page := cut(policies, cur, func(m *managed) string { return m.arn }, wanted)
	for _, m := range found {
		x := i.account.policyXML(m)
		x.PolicyVersionList = &members[versionXML]{}
		for _, v := range slices.Backward(m.versions) {
			x.PolicyVersionList.Member = append(x.PolicyVersionList.Member, m.versionXML(v))
		}
		out.Policies.Member = append(out.Policies.Member, x)
	}
	return len(found), page
}

// tags reads the tags of a call.
func (i iamCall) tags() (map[string]string, *failure) {
	tags := make(map[string]string)
	for n := 1; ; n++ {
		key, ok := i.req.Params[fmt.Sprintf("Tags.member.%d.Key", n)]
		if !ok {
			break
		}
		value := i.req.Params.Get(fmt.Sprintf("Tags.member.%d.Value", n))
		if f := checkTag(key[0], value); f != nil {
			return nil, f
		}
		if hasFold(tags, key[0]) {
			return nil, fail(400, "InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		tags[key[0]] = value
	}
	if len(tags) > 50 {
		return nil, fail(409, "LimitExceeded", "The number of tags has reached the maximum limit.")
	}
	return tags, nil
}

func (i iamCall) createRole() (any, *failure) {
	p := i.req.Params
	r := Role{
		Name: p.Get("RoleName"), Path: p.Get("Path"), Description: p.Get("Description"), MaxSessionDuration: 3600,
		Trust: p.Get("AssumeRolePolicyDocument"), PermissionsBoundary: p.Get("PermissionsBoundary"),
	}
	if r.Path == "" {
		r.Path = "/"
	}
	if !roleName.MatchString(r.Name) {
		return nil, invalid("roleName", r.Name, `Member must satisfy regular expression pattern: [\w+=,.@-]+`)
	}
	if !strings.HasPrefix(r.Path, "/") || !strings.HasSuffix(r.Path, "/") || len(r.Path) > 512 {
		return nil, fail(400, "ValidationError", "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.")
	}
	if s := p.Get("MaxSessionDuration"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 3600 || n > maxSession {
			return nil, invalid("maxSessionDuration", s, "Member must have value between 3600 and 43200")
		}
		r.MaxSessionDuration = int32(n)
	}
	tags, f := i.tags()
	if f != nil {
		return nil, f
	}
	r.Tags = tags
	asked := func(m map[string][]string) {
		tagging(m, tags)
		if r.PermissionsBoundary != "" {
			m["iam:permissionsboundary"] = []string{r.PermissionsBoundary}
		}
	}
	arn := i.account.arn("role" + r.Path + r.Name)
	if f := i.may(arn, nil, asked); f != nil {
		return nil, f
	}
	if len(tags) > 0 {
		if f := i.mayDo("TagRole", arn, nil, asked); f != nil {
			return nil, f
		}
	}
	if _, err := policytest.Parse(r.Trust, policytest.Trust); err != nil {
		return nil, fail(400, "MalformedPolicyDocument", "%s", sentence(err))
	}
	if b := r.PermissionsBoundary; b != "" && i.account.findPolicy(b) == nil {
		return nil, noSuchEntity("Scope ARN: %s does not exist or is not attachable.", b)
	}
	if i.account.role(r.Name) != nil {
		return nil, fail(409, "EntityAlreadyExists", "Role with name %s already exists.", r.Name)
	}
	in := i.account.putRole(r)
	x := in.full()
	x.RoleLastUsed = nil
	return struct{ Role roleXML }{x}, nil
}

func (i iamCall) putRolePolicy() (any, *failure) {
	r, f := i.role()
	if f != nil {
		return nil, f
	}
	name, document := i.req.Params.Get("PolicyName"), i.req.Params.Get("PolicyDocument")
	if name == "" || len(name) > 128 {
		return nil, invalid("policyName", name, "Member must have length between 1 and 128")
	}
	if _, err := policytest.Parse(document, policytest.Identity); err != nil {
		return nil, fail(400, "MalformedPolicyDocument", "%s", sentence(err))
	}
	r.setInline(name, document)
	return nil, nil
}

func (i iamCall) tagRole() (any, *failure) {
	tags, f := i.tags()
	if f != nil {
		return nil, f
	}
	name := i.req.Params.Get("RoleName")
	r := i.account.role(name)
	arn := i.account.arn("role/" + name)
	if r != nil {
		arn = r.arn
	}
	if f := i.may(arn, r, func(m map[string][]string) { tagging(m, tags) }); f != nil {
		return nil, f
	}
	if r == nil {
		return nil, noSuchEntity("The role with name %s cannot be found.", name)
	}
	for key, value := range tags {
		r.tag(key, value)
	}
	return nil, nil
}

func (i iamCall) listOpenIDConnectProviders() (any, *failure) {
	if f := i.may(i.account.arn("oidc-provider/*"), nil); f != nil {
		return nil, f
	}
	type entry struct{ Arn string }
	var out struct {
		OpenIDConnectProviderList members[entry]
	}
	for _, p := range sorted(i.account.providers) {
		out.OpenIDConnectProviderList.Member = append(out.OpenIDConnectProviderList.Member, entry{p.arn})
	}
	return out, nil
}

func (i iamCall) getOpenIDConnectProvider() (any, *failure) {
	arn := i.req.Params.Get("OpenIDConnectProviderArn")
	if f := i.may(arn, nil); f != nil {
		return nil, f
	}
	p := i.account.providers[arn]
	if p == nil {
		return nil, noSuchEntity("OpenIDConnect Provider not found for arn %s", arn)
	}
	return struct {
		Url            string
		ClientIDList   members[string]
		ThumbprintList members[string]
		CreateDate     string
		Tags           members[tagXML]
	}{
		Url: p.host(), ClientIDList: members[string]{p.audiences},
		ThumbprintList: members[string]{[]string{strings.Repeat("0", 40)}}, CreateDate: date(p.created),
	}, nil
}
