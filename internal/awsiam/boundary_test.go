package awsiam_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// bound adds tagged roles whose boundaries are: none, a policy of the account's,
// the same, one of AWS's, and one that is attached to its role too.
func bound(e *estate, owner *awstest.Account) {
	edge := owner.PutPolicy(awstest.Policy{Name: "edge", Document: allow("s3:*")})
	owner.PutPolicy(awstest.Policy{Name: "edge", Document: allow("sqs:*")})
	theirs := e.PutAWSPolicy("Everybody", allow("sns:*"))
	both := owner.PutPolicy(awstest.Policy{Name: "both", Document: allow("ec2:*")})
	for i, b := range []string{"", edge, edge, theirs, both} {
		r := awstest.Role{Name: fmt.Sprint("role", i), Trust: trustOf(hub, "sts:AssumeRole"), Tags: map[string]string{"serval": ""}, PermissionsBoundary: b}
		if b == both {
			r.Attached = []string{both}
		}
		owner.PutRole(r)
	}
}

// A boundary's policy costs at most two calls for an account, however many roles
// have it, one of AWS's for all accounts; and none where it was read anyway.
func TestBoundaries(t *testing.T) {
	for _, by := range []string{serval.ByRoles, serval.ByAuthorizationDetails} {
		t.Run(by, func(t *testing.T) {
			e := newEstate(t)
			r := e.reader(t)
			for n, id := range []string{spoke, "555566667777"} {
				owner, a := e.connect(id)
				bound(e, owner)
				if by == serval.ByAuthorizationDetails {
					allowDetails(owner)
				}
				e.ResetCalls()
				inv, err := r.Inventory(t.Context(), a, nil, "", nil)
				if err != nil || !inv.Complete || len(inv.Roles) != 5 || len(inv.Problems) != 0 || inv.ReadBy != by {
					t.Fatalf("account %s: %v, complete %v, %d roles by %s, problems %v", id, err, inv.Complete, len(inv.Roles), inv.ReadBy, inv.Problems)
				}
				for i, want := range []string{"", "v2 sqs:*", "v2 sqs:*", "v1 sns:*", "v1 ec2:*"} {
					r := inv.Roles[i]
					b := r.BoundaryPolicy
					switch version, action, _ := strings.Cut(want, " "); {
					case want == "":
						if b != nil || r.PermissionsBoundary != nil {
							t.Errorf("account %s: %s has the boundary %v", id, r.Name, b)
						}
					case b == nil || b.Status != serval.ListRead || b.Action != "" || b.Version != version || string(b.Document) != allow(action):
						t.Errorf("account %s: %s has the boundary %+v, want %s", id, r.Name, b, want)
					}
				}
				want := 3 - n // the account's two, and AWS's for the first
				if by == serval.ByAuthorizationDetails {
					want = 1 - n
				}
				if get, version := e.CountCalls("GetPolicy"), e.CountCalls("GetPolicyVersion"); get != want || version != want {
					t.Errorf("account %s: %d and %d calls for policies, want %d and %d", id, get, version, want, want)
				}
			}
		})
	}
}

// A boundary whose policy cannot be read is not none: its role says so, and the
// problem is named. The role's own policies were read nevertheless.
func TestBoundaryThatCannotBeRead(t *testing.T) {
	for action, status := range map[string]serval.ListStatus{"GetPolicy": serval.ListDenied, "GetPolicyVersion": serval.ListDenied, "": serval.ListFailed} {
		t.Run("without "+action, func(t *testing.T) {
			e := newEstate(t)
			owner, a := e.connect(spoke)
			b := owner.PutPolicy(awstest.Policy{Name: "edge", Document: allow("s3:*")})
			if action == "" {
				b += "-that-is-gone"
			}
			owner.PutRole(awstest.Role{Name: "role", Trust: trustOf(hub, "sts:AssumeRole"), Tags: map[string]string{"serval": ""}, PermissionsBoundary: b})
			var rest []string
			for _, allowed := range serval.IngestionActions() {
				if allowed != "iam:"+action {
					rest = append(rest, allowed)
				}
			}
			owner.SetInline("serval-ingest", "read", allow(rest...))
			inv := e.inventory(t, a)
			if !inv.Complete || len(inv.Roles) != 1 || len(inv.Problems) != 1 || inv.Problems[0].Target != b {
				t.Fatalf("complete %v, %d roles, problems %+v; want the role, and the boundary's policy named", inv.Complete, len(inv.Roles), inv.Problems)
			}
			r := inv.Roles[0]
			want := "iam:" + action
			if action == "" {
				want = "iam:GetPolicy"
			}
			if got := r.BoundaryPolicy; got == nil || got.Status != status || got.Action != want || got.Document != "" || !r.PoliciesComplete() {
				t.Errorf("the boundary is %+v, want %s by %s", got, status, want)
			}
		})
	}
}
