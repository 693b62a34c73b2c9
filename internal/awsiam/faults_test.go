package awsiam_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// inBubble runs f with a small account, without sockets and without waiting.
func inBubble(t *testing.T, f func(t *testing.T, e *estate, owner *awstest.Account, account serval.Account)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := newEstateInMemory(t, awstest.Options{})
		owner, account := e.connect(spoke)
		own := owner.PutPolicy(awstest.Policy{Name: "own", Document: allow("ec2:*")})
		for i := range 6 {
			owner.PutRole(awstest.Role{
				Name: fmt.Sprintf("role%d", i), Tags: map[string]string{"serval": "yes"},
				Inline:   map[string]string{"one": allow("s3:GetObject"), "two": allow("s3:PutObject")},
				Attached: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess", own},
			})
		}
		f(t, e, owner, account)
	})
}

// failureOf returns the failure there must be.
func failureOf(t *testing.T, err error) *awsiam.Failure {
	t.Helper()
	f, ok := errors.AsType[*awsiam.Failure](err)
	if !ok {
		t.Fatalf("error %v, want a Failure", err)
	}
	return f
}

// whichever page fails, no other role is lost, and the inventory is not called complete.
func TestEachPageFailingInTurn(t *testing.T) {
	for page := range 4 { // seven roles, two on a page
		inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
			e.ShortPages(2)
			e.Inject(awstest.Fault{Action: "ListRoles", After: page, Status: 500, Code: "ServiceFailure", Message: "try later"})
			inv, err := e.reader(t).Inventory(t.Context(), a, nil, "", nil)
			if page == 0 {
				if f := failureOf(t, err); f.Check != awsiam.StageList || f.Code != "ServiceFailure" {
					t.Errorf("failure %+v, want one of the listing", f)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := []serval.Problem{{Action: "iam:ListRoles", Target: spoke, Code: "ServiceFailure", Message: "try later"}}
			if inv.Complete || len(inv.Roles) != 2*page || cmp.Diff(want, inv.Problems) != "" {
				t.Errorf("page %d: complete %v, roles %v, problems %v; want incomplete with %d roles", page, inv.Complete, names(inv), inv.Problems, 2*page)
			}
		})
	}
}

func TestShortPagesAreFollowed(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		whole := asText(t, e.inventory(t, a))
		e.ShortPages(1)
		if diff := cmp.Diff(whole, asText(t, e.inventory(t, a))); diff != "" {
			t.Errorf("pages of one item give another inventory (-pages of many +pages of one):\n%s", diff)
		}
	})
}

// an answer that is good by its status only.
func TestListingThatIsNotWhole(t *testing.T) {
	empty := func(body string) awstest.Fault { return awstest.Fault{Action: "ListRoles", Status: 200, Body: body} }
	cut := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte {
			i, j := strings.Index(string(b), from), strings.Index(string(b), to)
			return []byte(string(b[:i]) + string(b[j+len(to):]))
		}
	}
	const head, foot = `<ListRolesResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">`, `</ListRolesResponse>`
	for _, tt := range []struct {
		name  string
		fault awstest.Fault
		code  string
		roles int // -1 for an error
	}{
		{"nothing", awstest.Fault{Action: "ListRoles", Status: 200}, "EmptyAnswer", -1},
		{"no result", empty(head + foot), "MalformedAnswer", -1},
		{"empty result", empty(head + `<ListRolesResult></ListRolesResult>` + foot), "EmptyAnswer", -1},
		{"no roles element", empty(head + `<ListRolesResult><IsTruncated>false</IsTruncated></ListRolesResult>` + foot), "EmptyAnswer", -1},
		{"captive portal", awstest.Fault{Action: "ListRoles", Status: 200, Body: "<html><body>Sign in</body></html>", ContentType: "text/html"}, "MalformedAnswer", -1},
		{"cut off", awstest.Fault{Action: "ListRoles", Mutate: func(b []byte) []byte { return b[:len(b)/2] }}, "MalformedAnswer", -1},
		{"no marker", awstest.Fault{Action: "ListRoles", Mutate: cut("<Marker>", "</Marker>")}, "MissingMarker", 3},
		{"same page again", awstest.Fault{Action: "ListRoles", Match: func(r *awstest.Request) bool { r.Params.Del("Marker"); return false }}, "RepeatedMarker", 3},
		{"nothing on the second page", awstest.Fault{Action: "ListRoles", After: 1, Status: 200}, "EmptyAnswer", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
				e.ShortPages(3)
				e.Inject(tt.fault)
				inv, err := e.reader(t).Inventory(t.Context(), a, nil, "", nil)
				if tt.roles < 0 {
					if f := failureOf(t, err); f.Code != tt.code {
						t.Errorf("code %s, want %s: %v", f.Code, tt.code, err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if inv.Complete || len(inv.Roles) != tt.roles || len(inv.Problems) != 1 || inv.Problems[0].Code != tt.code {
					t.Errorf("complete %v, roles %v, problems %v; want incomplete, %d roles, %s", inv.Complete, names(inv), inv.Problems, tt.roles, tt.code)
				}
			})
		})
	}
}

// S-85: not a byte of another account, even where it has no roles.
func TestWrongAccount(t *testing.T) {
	const other = "999999999999"
	swap := func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), spoke, other)) }
	for _, action := range []string{"AssumeRole", "ListRoles", "GetRole", details} {
		t.Run(action, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				if action == details {
					allowDetails(owner)
				}
				e.Inject(awstest.Fault{Action: action, Mutate: swap})
				inv, err := e.reader(t).Inventory(t.Context(), a, nil, "", nil)
				if f := failureOf(t, err); f.Code != "WrongAccount" || len(inv.Roles) != 0 {
					t.Errorf("%v with roles %v, want WrongAccount and nothing else", err, names(inv))
				}
			})
		})
	}
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		a.ID = other
		_, err := e.reader(t).Inventory(t.Context(), a, nil, "", nil)
		if !serval.IsRefusal(err, serval.Invalid) || e.CountCalls("") != 0 {
			t.Errorf("%v after %d calls, want a refusal before the first", err, e.CountCalls(""))
		}
	})
}

// S-88, R-7: exactly the key, any value; what is close is said; what was known and is untagged is said too.
func TestTags(t *testing.T) {
	e := newEstate(t)
	owner, a := e.connect(spoke)
	for name, tags := range map[string]map[string]string{
		"empty":  {"serval": ""},
		"value":  {"serval": "Anything", "team": "x"},
		"upper":  {"Serval": "true"},
		"spaced": {"serval ": "true"},
		"longer": {"serval-x": "true"},
		"value2": {"x": "serval"},
		"none":   nil,
	} {
		owner.PutRole(awstest.Role{Name: name, Tags: tags})
	}
	known := []string{owner.RoleID("upper"), owner.RoleID("none"), owner.RoleID("value"), "AROAOFSOMEBODYELSE000"}
	inv := e.inventory(t, a, known...)
	if diff := cmp.Diff([]string{"empty", "value"}, names(inv)); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
	want := []serval.NearMiss{{ARN: owner.RoleARN("spaced"), TagKey: "serval "}, {ARN: owner.RoleARN("upper"), TagKey: "Serval"}}
	if diff := cmp.Diff(want, inv.NearMisses); diff != "" {
		t.Errorf("near misses (-want +got):\n%s", diff)
	}
	untagged := []string{owner.RoleID("upper"), owner.RoleID("none")}
	slices.Sort(untagged)
	if diff := cmp.Diff(untagged, inv.Untagged); diff != "" || !inv.Complete {
		t.Errorf("complete %v, untagged (-want +got):\n%s", inv.Complete, diff)
	}
}

// R-5 for the lists of a role: what came before the fault is kept, and the list is not called read.
func TestRoleListsThatDoNotEnd(t *testing.T) {
	for _, action := range []string{"ListRolePolicies", "ListAttachedRolePolicies"} {
		for name, fault := range map[string]awstest.Fault{
			"no marker": {Mutate: func(b []byte) []byte {
				before, rest, _ := strings.Cut(string(b), "<Marker>")
				_, after, _ := strings.Cut(rest, "</Marker>")
				return []byte(before + after)
			}},
			"same page again": {Match: func(r *awstest.Request) bool { r.Params.Del("Marker"); return false }},
		} {
			t.Run(action+"/"+name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
					e.ShortPages(1)
					fault.Action = action
					e.Inject(fault)
					inv := e.inventory(t, a)
					r := role(t, inv, "role0")
					status, denied := r.InlinePolicies.Status, r.InlinePolicies.Action
					if action == "ListAttachedRolePolicies" {
						status, denied = r.ManagedPolicies.Status, r.ManagedPolicies.Action
					}
					if status != serval.ListFailed || denied != "iam:"+action || r.PoliciesComplete() || len(inv.Problems) == 0 || inv.Problems[0].Code != "EndlessList" {
						t.Errorf("status %s by %s, problems %v; want it failed", status, denied, inv.Problems)
					}
					if n := e.CountCalls(action); n > 20 {
						t.Errorf("%d pages asked for, want it to stop", n)
					}
				})
			})
		}
	}
}

// one action denied for one role, or for all, in turn.
func TestOneActionDeniedInTurn(t *testing.T) {
	for _, tt := range []struct {
		action          string
		inline, managed serval.ListStatus
	}{
		{"ListRolePolicies", serval.ListDenied, serval.ListRead},
		{"GetRolePolicy", serval.ListDenied, serval.ListRead},
		{"ListAttachedRolePolicies", serval.ListRead, serval.ListDenied},
		{"GetPolicy", serval.ListRead, serval.ListDenied},
		{"GetPolicyVersion", serval.ListRead, serval.ListDenied},
	} {
		t.Run(tt.action, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				var rest []string
				for _, action := range serval.IngestionActions() {
					if action != "iam:"+tt.action {
						rest = append(rest, action)
					}
				}
				owner.SetInline("serval-ingest", "read", allow(rest...))
				inv := e.inventory(t, a)
				if !inv.Complete || len(inv.Roles) != 6 || len(inv.Problems) == 0 {
					t.Errorf("complete %v, roles %v, problems %v; want all roles, and the problem named", inv.Complete, names(inv), inv.Problems)
				}
				for _, r := range inv.Roles {
					in, man := r.InlinePolicies, r.ManagedPolicies
					if in.Status != tt.inline || man.Status != tt.managed || r.PoliciesComplete() {
						t.Errorf("%s: inline %s, managed %s; want %s, %s", r.Name, in.Status, man.Status, tt.inline, tt.managed)
					}
					if in.Status != serval.ListRead && in.Action != "iam:"+tt.action || man.Status != serval.ListRead && man.Action != "iam:"+tt.action {
						t.Errorf("%s: actions %q and %q, want the denied one", r.Name, in.Action, man.Action)
					}
				}
				if tt.action == "GetPolicyVersion" {
					p := role(t, inv, "role0").ManagedPolicies.Policies
					if len(p) != 2 || p[0].Version != "v1" || p[0].Document != "" {
						t.Errorf("policies %+v, want both with their version, without a document", p)
					}
				}
			})
		})
	}
	t.Run("GetRole of one", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
			e.Inject(awstest.Fault{Action: "GetRole", Status: 403, Code: "AccessDenied", Message: "no",
				Match: func(r *awstest.Request) bool { return r.Params.Get("RoleName") == "role3" }})
			inv := e.inventory(t, a, owner.RoleID("role3"))
			want := []serval.Unreadable{{ARN: owner.RoleARN("role3"), RoleID: owner.RoleID("role3"), Action: "iam:GetRole", Code: "AccessDenied"}}
			if diff := cmp.Diff(want, inv.Unreadable); diff != "" || inv.Complete || len(inv.Roles) != 5 || len(inv.Untagged) != 0 {
				t.Errorf("complete %v, roles %v, untagged %v, unreadable (-want +got):\n%s", inv.Complete, names(inv), inv.Untagged, diff)
			}
		})
	})
}

// Many alike problems are a few and a number.
func TestProblemsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstateInMemory(t, awstest.Options{})
		owner, a := e.connect(spoke)
		shape{roles: 101, tagged: 0}.fill(e, owner)
		e.Inject(awstest.Fault{Action: "GetRole", Status: 403, Code: "AccessDenied", Message: "no"})
		inv := e.inventory(t, a)
		if len(inv.Unreadable) != 101 || len(inv.Problems) != 21 || !slices.ContainsFunc(inv.Problems, func(p serval.Problem) bool {
			return p.Message == "and 81 more targets"
		}) {
			t.Errorf("%d unreadable, problems %v; want 101, and 20 problems with the number of the others", len(inv.Unreadable), inv.Problems)
		}
	})
}

// what is deleted meanwhile is gone, and the inventory is complete.
func TestDeletedMeanwhile(t *testing.T) {
	for _, action := range []string{"GetRole", "ListRolePolicies", "GetRolePolicy", "ListAttachedRolePolicies"} {
		t.Run(action, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				e.Inject(awstest.Fault{Action: action, Times: 1, Hook: func(r *awstest.Request) { owner.DeleteRole("role2") },
					Match: func(r *awstest.Request) bool { return r.Params.Get("RoleName") == "role2" }})
				inv := e.inventory(t, a)
				if !inv.Complete || len(inv.Roles) != 5 || len(inv.Unreadable)+len(inv.Problems) != 0 {
					t.Errorf("complete %v, roles %v, unreadable %v, problems %v; want the other five", inv.Complete, names(inv), inv.Unreadable, inv.Problems)
				}
			})
		})
	}
	t.Run("an inline policy", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
			e.Inject(awstest.Fault{Action: "GetRolePolicy", Times: 1, Hook: func(r *awstest.Request) { owner.SetInline("role2", "two", "") },
				Match: func(r *awstest.Request) bool {
					return r.Params.Get("RoleName") == "role2" && r.Params.Get("PolicyName") == "two"
				}})
			r := role(t, e.inventory(t, a), "role2")
			if r.InlinePolicies.Status != serval.ListRead || len(r.InlinePolicies.Policies) != 1 {
				t.Errorf("inline policies %+v, want the one that is left", r.InlinePolicies)
			}
		})
	})
	t.Run("a policy that stays attached", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
			owner.DeletePolicy("arn:aws:iam::" + spoke + ":policy/own")
			r := role(t, e.inventory(t, a), "role2")
			if r.ManagedPolicies.Status != serval.ListFailed || r.ManagedPolicies.Action != "iam:GetPolicy" || len(r.ManagedPolicies.Policies) != 2 {
				t.Errorf("managed policies %+v, want them failed by iam:GetPolicy", r.ManagedPolicies)
			}
		})
	})
}

// the default version changes between GetPolicy and GetPolicyVersion.
func TestVersionChangesInBetween(t *testing.T) {
	for times, want := range map[int]serval.ListStatus{1: serval.ListRead, 2: serval.ListFailed} {
		inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
			var n atomic.Int64
			e.Inject(awstest.Fault{Action: "GetPolicyVersion", Times: times,
				Hook: func(*awstest.Request) {
					owner.PutPolicy(awstest.Policy{Name: "own", Document: allow(fmt.Sprintf("ec2:Change%d", n.Add(1)))})
				},
				Match: func(r *awstest.Request) bool { return strings.HasSuffix(r.Params.Get("PolicyArn"), "/own") }})
			m := role(t, e.inventory(t, a), "role0").ManagedPolicies
			if m.Status != want {
				t.Errorf("changed %d times: status %s, want %s", times, m.Status, want)
			}
			if own := m.Policies[0]; want == serval.ListRead && (own.Version != "v2" || !strings.Contains(string(own.Document), "Change1")) {
				t.Errorf("policy %+v, want the second version", own)
			}
		})
	}
}

// R-16, 4.2: what is tried again, and what is not.
func TestTriesAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  awstest.Fault
		tries  int // of GetRole of role1
		status string
	}{
		{"bare 429", awstest.Fault{Status: 429, Body: "slow down", Times: 3}, 4, ""},
		{"Throttling", awstest.Fault{Status: 400, Code: "Throttling", Times: 6}, 7, ""},
		{"TooManyRequestsException", awstest.Fault{Status: 429, Code: "TooManyRequestsException", Times: 6}, 7, ""},
		{"RequestLimitExceeded", awstest.Fault{Status: 503, Code: "RequestLimitExceeded", Times: 6}, 7, ""},
		{"unknown 429", awstest.Fault{Status: 429, Code: "Whatever", Times: 6}, 7, ""},
		{"503", awstest.Fault{Status: 503, Times: 6}, 7, ""},
		{"reset", awstest.Fault{Reset: true, Times: 2}, 3, ""},
		{"throttled for good", awstest.Fault{Status: 400, Code: "Throttling"}, 10, "Throttling"},
		{"LimitExceeded", awstest.Fault{Status: 409, Code: "LimitExceeded"}, 1, "LimitExceeded"},
		{"AccessDenied", awstest.Fault{Status: 403, Code: "AccessDenied"}, 1, "AccessDenied"},
		{"never", awstest.Fault{Hang: true}, 3, "Timeout"},
		{"a minute", awstest.Fault{Delay: time.Minute}, 3, "Timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				var tries atomic.Int64
				tt.fault.Action = "GetRole"
				tt.fault.Match = func(r *awstest.Request) bool {
					if r.Params.Get("RoleName") != "role1" {
						return false
					}
					tries.Add(1)
					return true
				}
				e.Inject(tt.fault)
				inv := e.inventory(t, a)
				code := ""
				if len(inv.Unreadable) > 0 {
					code = inv.Unreadable[0].Code
				}
				if int(tries.Load()) != tt.tries || code != tt.status || inv.Complete != (tt.status == "") {
					t.Errorf("%d tries, complete %v, unreadable %v; want %d tries and code %q", tries.Load(), inv.Complete, inv.Unreadable, tt.tries, tt.status)
				}
			})
		})
	}
}

// an account that never answers ends, with what is known.
func TestAccountThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstateInMemory(t, awstest.Options{})
		owner, a := e.connect(spoke)
		shape{roles: 2000, tagged: 10}.fill(e, owner)
		e.Inject(awstest.Fault{Action: "GetRole", Hang: true})
		start := time.Now()
		inv := e.inventory(t, a)
		if took := time.Since(start); took > 21*time.Minute {
			t.Errorf("it took %v, want twenty minutes at most", took)
		}
		if inv.Complete || len(inv.Unreadable) != 2000 || inv.Unreadable[1999].Code != "Timeout" {
			t.Errorf("complete %v, %d unreadable; want all of them", inv.Complete, len(inv.Unreadable))
		}
	})
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		e.Inject(awstest.Fault{Action: "ListRoles", Hang: true})
		if f := failureOf(t, e.reader(t).Connect(t.Context(), a)); f.Code != "Timeout" {
			t.Errorf("code %s, want Timeout", f.Code)
		}
	})
	// a reading that is broken off is none.
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		e.Inject(awstest.Fault{Action: "GetRole", Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.reader(t).Inventory(ctx, a, nil, "", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the caller's own deadline", err)
		}
	})
}

// half of all calls refused at random.
func TestThrottledHalfOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstateInMemory(t, awstest.Options{})
		owner, a := e.connect(spoke)
		shape{roles: 300, tagged: 30, inline: 1, attached: 1, aws: 3}.fill(e, owner)
		e.SetLatency(func() time.Duration { return 40 * time.Millisecond })
		var n atomic.Int64
		e.Inject(awstest.Fault{Status: 400, Code: "Throttling", Match: func(r *awstest.Request) bool {
			return r.Service == "iam" && n.Add(1)%2 == 0
		}})
		start := time.Now()
		inv := e.inventory(t, a)
		t.Logf("%v for 300 roles, complete %v, %d unreadable", time.Since(start), inv.Complete, len(inv.Unreadable))
		if inv.Complete != (len(inv.Unreadable) == 0) || len(inv.Roles)+len(inv.Unreadable) < 30 {
			t.Errorf("complete %v, %d roles, %d unreadable; want nothing lost silently", inv.Complete, len(inv.Roles), len(inv.Unreadable))
		}
		if most := e.MaxInFlight(spoke); most > 16 {
			t.Errorf("%d in flight, want at most 16", most)
		}
	})
}

// documents as AWS may hold them, kept as they are.
func TestHostileDocuments(t *testing.T) {
	big := `{"Version":"2012-10-17","Id":"` + strings.Repeat("+ %20é", 131072/7) + `"}`
	for name, text := range map[string]string{
		"big":         big,
		"deep":        strings.Repeat(`{"a":[`, 5000) + strings.Repeat(`]}`, 5000),
		"not JSON":    "Version: 2012-10-17\n\tStatement: none & <all>",
		"BOM":         "\ufeff{}",
		"just a plus": "+",
		"twice":       "%2520",
		"string":      `"text"`,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
				const was = "s3%3AGetObject"
				e.Inject(awstest.Fault{Mutate: func(b []byte) []byte {
					i := strings.Index(string(b), "<PolicyDocument>")
					if i < 0 || !strings.Contains(string(b), was) {
						return b
					}
					j := strings.Index(string(b), "</PolicyDocument>")
					return []byte(string(b[:i]) + "<PolicyDocument>" + encode(text) + string(b[j:]))
				}})
				inv := e.inventory(t, a)
				r := role(t, inv, "role0")
				if got := r.InlinePolicies.Policies[0].Document; string(got) != text || r.InlinePolicies.Status != serval.ListRead || !inv.Complete {
					t.Errorf("status %s, %d characters, want %d as they were", r.InlinePolicies.Status, len(got), len(text))
				}
				mustJSON(t, inv)
			})
		})
	}
}

// encode is percent-encoding by RFC 3986 of all but letters, digits, and the plus, which may stand for itself there
// and is then no space.
func encode(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// The same account has the same bytes; two accounts with a role of one name are two.
func TestSameBytesAndSharedPolicies(t *testing.T) {
	e := newEstate(t)
	r := e.reader(t)
	var texts []string
	for _, id := range []string{spoke, "555566667777"} {
		owner, a := e.connect(id)
		shape{roles: 40, tagged: 20, inline: 2, attached: 3, aws: 5}.fill(e, owner)
		var last string
		for range 2 {
			inv, err := r.Inventory(t.Context(), a, nil, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(inv.Roles) != 20 || !strings.Contains(inv.Roles[0].ARN, id) {
				t.Errorf("account %s: roles %v", id, names(inv))
			}
			text := asText(t, inv)
			if last != "" && text != last {
				t.Errorf("account %s read again differs:\n%s", id, cmp.Diff(last, text))
			}
			last = text
		}
		texts = append(texts, last)
	}
	if texts[0] == texts[1] {
		t.Error("both accounts have the same inventory")
	}
	if get, version := e.CountCalls("GetPolicy"), e.CountCalls("GetPolicyVersion"); get != 5 || version != 5 {
		t.Errorf("%d and %d calls for AWS's five policies in four readings, want 5 and 5", get, version)
	}
}

// S-87: what was asked is the list, of IAM, and AssumeRole.
func TestOnlyTheActions(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		seen := make(map[string]int)
		e.config.Observe = func(c awsiam.Call) {
			if c.AccountID != spoke || (c.Code != "") != (c.Action == "iam:GetAccountAuthorizationDetails") {
				t.Errorf("observed %+v, want a good call of the account, and one refusal", c)
			}
		}
		e.config.Concurrency = 1 // Observe is called one by one
		r := e.reader(t)
		var last awsiam.Progress
		if _, err := r.Inventory(t.Context(), a, nil, "", func(p awsiam.Progress) { last = p }); err != nil {
			t.Fatal(err)
		}
		for _, c := range e.Calls() {
			seen[c.Action]++
			if c.Action == "GetAccountAuthorizationDetails" && c.Code == "AccessDenied" {
				continue // tried
			}
			if c.Service == "iam" && !slices.Contains(serval.IngestionActions(), "iam:"+c.Action) || c.Service == "sts" && c.Action != "AssumeRole" {
				t.Errorf("it called %s", c.Action)
			}
		}
		if len(seen) != 9 || seen["GetAccountAuthorizationDetails"] != 1 {
			t.Errorf("actions %v, want all seven, AssumeRole, and one try", seen)
		}
		want := awsiam.Progress{AccountID: spoke, Listed: 7, AllListed: true, Read: 7, Tagged: 6}
		if last != want {
			t.Errorf("progress %+v, want %+v", last, want)
		}
	})
}

// A policy of AWS's and one of the account's may have the same name; both are read, also where each is on a page of
// its own.
func TestAttachedPoliciesOfOneName(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		ours := owner.PutPolicy(awstest.Policy{Name: "ReadOnlyAccess", Document: allow("ec2:*")})
		for i, attached := range [][]string{{ours, "arn:aws:iam::aws:policy/ReadOnlyAccess"}, {"arn:aws:iam::aws:policy/ReadOnlyAccess", ours}} {
			owner.PutRole(awstest.Role{Name: fmt.Sprintf("twice%d", i), Tags: map[string]string{"serval": ""}, Attached: attached})
		}
		e.ShortPages(1)
		inv := e.inventory(t, a)
		for _, name := range []string{"twice0", "twice1"} {
			if got := role(t, inv, name).ManagedPolicies; len(got.Policies) != 2 || got.Status != serval.ListRead {
				t.Errorf("%s has %v, want both policies", name, got)
			}
		}
	})
}
