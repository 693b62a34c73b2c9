package insight

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// pathsOf returns the paths that a role shows.
func pathsOf(role serval.Role, boundary ...serval.Document) (ids []string) {
	if len(boundary) > 0 {
		role = within(role, boundary[0])
	}
	for _, m := range AWS().Look(role).escalations(len(paths)) {
		ids = append(ids, m.Path)
	}
	return ids
}

const edge = "arn:aws:iam::111122223333:policy/edge"

// within returns the role with a permissions boundary.
func within(role serval.Role, boundary serval.Document) serval.Role {
	role.PermissionsBoundary = new(edge)
	role.BoundaryPolicy = &serval.BoundaryPolicy{Status: serval.ListRead, Version: "v1", Document: boundary}
	return role
}

// docOf returns a document that allows what the needs are, each on the resource
// that on says.
func docOf(needs []need, on func(need) string, condition string) string {
	var statements []string
	for _, n := range needs {
		c := ""
		if condition != "" {
			c = `,"Condition":` + condition
		}
		statements = append(statements, fmt.Sprintf(`{"Effect":"Allow","Action":%q,"Resource":%q%s}`, n.action, on(n), c))
	}
	return `{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`
}

func onAll(need) string { return "*" }

// resourceOf returns an ARN that names one thing that the action is done to.
func resourceOf(t *testing.T, action string) string {
	i, known := AWS().find(action)
	if !known {
		t.Fatalf("the reference has no action %s", action)
	}
	a := AWS().actions[i]
	if len(a.types) == 0 {
		return "*"
	}
	kind := AWS().services[a.service].types[a.types[0]].pattern
	return strings.NewReplacer("arn:*:", "arn:aws:", ":*:", ":eu-west-1:", "*", "one", "+", "one").Replace(kind)
}

// Each path of the published list has a role that shows it, and roles that miss
// it narrowly.
func TestPaths(t *testing.T) {
	ids := map[string]bool{}
	for _, at := range paths {
		if ids[at.id] {
			t.Errorf("the path %s is there twice", at.id)
		}
		ids[at.id] = true
		t.Run(at.id, func(t *testing.T) {
			shows := func(name string, role serval.Role, boundary ...serval.Document) {
				if at.bounded && boundary == nil {
					boundary = []serval.Document{serval.Document(allow("*", "*"))}
				}
				if !slices.Contains(pathsOf(role, boundary...), at.id) {
					t.Errorf("%s: the path is not there", name)
				}
			}
			misses := func(name string, role serval.Role, boundary ...serval.Document) {
				if at.bounded && boundary == nil {
					boundary = []serval.Document{serval.Document(allow("*", "*"))}
				}
				if slices.Contains(pathsOf(role, boundary...), at.id) {
					t.Errorf("%s: the path is there", name)
				}
			}
			full := docOf(at.needs, onAll, "")
			shows("all of it", roleWith(full))
			shows("all of it, from the office", roleWith(docOf(at.needs, onAll, `{"IpAddress":{"aws:SourceIp":"203.0.113.0/24"}}`)))
			shows("all of it, within a boundary that allows it", roleWith(full), serval.Document(full))
			if at.bounded && slices.Contains(pathsOf(roleWith(full)), at.id) {
				t.Error("without a boundary: the path out of it is there")
			}
			misses("all of it, for what bears a tag", roleWith(docOf(at.needs, onAll, `{"StringEquals":{"aws:ResourceTag/team":"a"}}`)))
			for i, n := range at.needs {
				rest := slices.Delete(slices.Clone(at.needs), i, i+1)
				misses("without "+n.action, roleWith(docOf(rest, onAll, "")))
				misses("denied "+n.action, roleWith(full, one(`"Effect":"Deny","Action":"`+n.action+`","Resource":"*"`)))
				misses("without "+n.action+" in the boundary", roleWith(full), serval.Document(docOf(append(rest, do("s3:ListAllMyBuckets")...), onAll, "")))
				named := docOf(at.needs, func(other need) string {
					if other.action == n.action {
						return resourceOf(t, n.action)
					}
					return "*"
				}, "")
				switch {
				case n.on == anything || n.on == theSame:
					shows("on a thing that is named: "+n.action, roleWith(named))
				case n.on == self || n.on == ownBoundary:
					misses("on another: "+n.action, roleWith(named))
				case resourceOf(t, n.action) != "*":
					misses("on a thing that is named: "+n.action, roleWith(named))
				}
				if n.to == nil {
					continue
				}
				to := func(operator, service string) string {
					return fmt.Sprintf(`"Effect":"Allow","Action":"iam:PassRole","Resource":"*","Condition":{%q:{"iam:PassedToService":%q}}`, operator, service)
				}
				others := docOf(at.needs[1:], onAll, "")
				shows("passed to its service", roleWith(one(to("StringEquals", n.to[0])), others))
				shows("passed to its service, as China names it", roleWith(one(to("StringLike", n.to[0]+"*")), others))
				misses("passed to another service", roleWith(one(to("StringEquals", "monitoring.rds.amazonaws.com")), others))
				misses("passed to other services", roleWith(one(to("StringNotLike", "*.amazonaws.com")), others))
				misses("passed on, but for its service", roleWith(full,
					one(`"Effect":"Deny","Action":"iam:PassRole","Resource":"*","Condition":{"StringNotEquals":{"iam:PassedToService":"monitoring.rds.amazonaws.com"}}`)))
				shows("passed on, but for another service", roleWith(full,
					one(`"Effect":"Deny","Action":"iam:PassRole","Resource":"*","Condition":{"StringEquals":{"iam:PassedToService":"monitoring.rds.amazonaws.com"}}`)))
			}
		})
	}
}

// What a path needs of the role itself, and of what two needs share.
func TestPathsOfOneself(t *testing.T) {
	attached := func(arn, doc string) serval.Role {
		r := roleWith(doc)
		r.ManagedPolicies.Policies = []serval.ManagedPolicy{{ARN: arn, Name: "app", Document: serval.Document(allow("s3:ListAllMyBuckets", "*"))}}
		return r
	}
	const policy = "arn:aws:iam::111122223333:policy/app"
	for _, c := range []struct {
		name string
		role serval.Role
		path string
		want bool
	}{
		{"its own ARN", roleWith(allow("iam:PutRolePolicy", roleARN)), "iam-005", true},
		{"a pattern that has it", roleWith(allow("iam:PutRolePolicy", "arn:aws:iam::*:role/app/*")), "iam-005", true},
		{"a pattern that has not", roleWith(allow("iam:PutRolePolicy", "arn:aws:iam::*:role/web/*")), "iam-005", false},
		{"all roles, but not itself", roleWith(allow("iam:PutRolePolicy", "*"), one(`"Effect":"Deny","Action":"iam:*","Resource":"`+roleARN+`"`)), "iam-005", false},
		{"all roles, but not those of another path", roleWith(allow("iam:PutRolePolicy", "*"), one(`"Effect":"Deny","Action":"iam:*","Resource":"arn:aws:iam::*:role/web/*"`)), "iam-005", true},
		{"only with a boundary", roleWith(allow("iam:PutRolePolicy", "*", `"Condition":{"StringEquals":{"iam:PermissionsBoundary":"arn:aws:iam::111122223333:policy/edge"}}`)), "iam-005", false},
		{"denied without a boundary", roleWith(allow("iam:*", "*"), one(`"Effect":"Deny","Action":"iam:Put*","Resource":"*","Condition":{"StringNotEquals":{"iam:PermissionsBoundary":"arn:aws:iam::111122223333:policy/edge"}}`)), "iam-005", false},
		{"any policy but one", roleWith(allow("iam:AttachRolePolicy", "*", `"Condition":{"ArnNotEquals":{"iam:PolicyARN":"arn:aws:iam::aws:policy/AdministratorAccess"}}`)), "iam-009", true},
		{"one policy", roleWith(allow("iam:AttachRolePolicy", "*", `"Condition":{"ArnEquals":{"iam:PolicyARN":"arn:aws:iam::aws:policy/ReadOnlyAccess"}}`)), "iam-009", false},
		{"a policy of its own", attached(policy, allow("iam:CreatePolicyVersion", policy)), "iam-001", true},
		{"a policy of another", attached(policy, allow("iam:CreatePolicyVersion", policy+"2")), "iam-001", false},
		{"a role that it strengthens and assumes", roleWith(allow("iam:AttachRolePolicy", "arn:aws:iam::*:role/ops"), allow("sts:AssumeRole", "arn:aws:iam::111122223333:role/ops")), "iam-014", true},
		{"one that it strengthens, another that it assumes", roleWith(allow("iam:AttachRolePolicy", "arn:aws:iam::*:role/ops"), allow("sts:AssumeRole", "arn:aws:iam::111122223333:role/dev")), "iam-014", false},
		{"roles of a kind", roleWith(allow("sts:AssumeRole", "arn:aws:iam::*:role/ci-*")), "sts-001", true},
		{"a role in any account", roleWith(allow("sts:AssumeRole", "arn:aws:iam::*:role/ci")), "sts-001", false},
		{"keys of one's own", roleWith(allow("iam:CreateAccessKey", "arn:aws:iam::*:user/${aws:username}")), "iam-002", false},
	} {
		if got := slices.Contains(pathsOf(c.role), c.path); got != c.want {
			t.Errorf("%s: %s is there: %v, want %v", c.name, c.path, got, c.want)
		}
	}
}

// A boundary that allows what a path needs for some targets only takes it away.
func TestPathsWithinABoundary(t *testing.T) {
	role := roleWith(allow("iam:PutRolePolicy", "*"))
	for doc, want := range map[string]bool{
		allow("iam:PutRolePolicy", "*"):                         true,
		allow("iam:PutRolePolicy", "arn:aws:iam::*:role/web/*"): false,
		allow("iam:PutRolePolicy", "arn:aws:iam::*:role/app/*"): true,
		allow("iam:PutRolePolicy", "*", `"Condition":{"StringEquals":{"iam:PermissionsBoundary":"arn:aws:iam::111122223333:policy/edge"}}`): false,
	} {
		if got := slices.Contains(pathsOf(role, serval.Document(doc)), "iam-005"); got != want {
			t.Errorf("within %s: iam-005 is there: %v, want %v", doc, got, want)
		}
	}
}

// Every action that paths and marks name is one that AWS has.
func TestNamedActionsExist(t *testing.T) {
	var named []string
	for _, at := range paths {
		for _, n := range at.needs {
			named = append(named, n.action)
		}
	}
	for _, action := range slices.Concat(named, credentialActions, dataActions, crown) {
		if i, known := AWS().find(action); !known || AWS().actionName(i) != action {
			t.Errorf("the reference has no action %s", action)
		}
	}
}
