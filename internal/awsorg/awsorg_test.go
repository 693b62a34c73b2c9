package awsorg_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awsorg"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const (
	member   = "111122223333"
	boundary = "arn:aws:iam::" + member + ":policy/boundary"
	trust    = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::` + member + `:oidc-provider/login.example.com"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"login.example.com:aud":"serval"}}}]}`
)

var account = serval.Account{
	ID: member, Name: "prod", Partition: "aws", ExternalID: "external-id",
	RoleARN: "arn:aws:iam::" + member + ":role/ingestion", WorkflowRoleARN: "arn:aws:iam::" + member + ":role/workflow",
}

func allow(actions ...string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}]}`
}

// inBubble runs f with a world in which waiting takes no time.
func inBubble(t *testing.T, name string, f func(t *testing.T, w *world)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
	})
}

// A world is a cloud with one account, in which two roles are assumed.
type world struct {
	*awstest.Cloud
	client              *awsorg.Client
	account             *awstest.Account
	ingestion, workflow awsorg.Access
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Cloud: awstest.New(awstest.Options{})}
	w.account = w.AddAccount(member, "prod")
	w.account.PutPolicy(awstest.Policy{Name: "boundary", Document: allow("s3:*")})
	const url = "http://127.0.0.1:1" // in memory, so that time in a bubble passes at once
	t.Cleanup(w.Close)
	var err error
	if w.client, err = awsorg.New(awsorg.Config{OrganizationsEndpoint: url, IAMEndpoint: url}); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: w.Dialer()}
	t.Cleanup(transport.CloseIdleConnections)
	enter := func(name string, actions ...string) awsorg.Access {
		w.account.PutRole(awstest.Role{Name: name, Inline: map[string]string{"may": allow(actions...)}})
		k := w.account.Session(name, "serval-worker", time.Hour)
		return awsorg.Access{HTTP: &http.Client{Transport: transport},
			Credentials: credentials.NewStaticCredentialsProvider(k.AccessKeyID, k.SecretAccessKey, k.SessionToken)}
	}
	w.ingestion = enter("ingestion", append(serval.IngestionActions(), "organizations:ListAccounts")...)
	w.workflow = enter("workflow", serval.WorkflowActions()...)
	return w
}

func (w *world) list(t *testing.T) serval.Check {
	t.Helper()
	c, err := w.client.Accounts(t.Context(), account, w.ingestion)
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "List accounts" || c.AccountID != member {
		t.Errorf("check %q of account %s", c.Name, c.AccountID)
	}
	return c
}

func TestAccounts(t *testing.T) {
	inBubble(t, "listed", func(t *testing.T, w *world) {
		w.SetManagementAccount(member)
		want := []string{member}
		for i := range 45 { // three pages
			id := fmt.Sprintf("2222%08d", i)
			w.AddAccount(id, "account "+id)
			want = append(want, id)
		}
		for _, size := range []int{20, 7, 1} {
			w.ShortPages(size)
			c := w.list(t)
			var got []string
			for _, a := range c.Accounts {
				got = append(got, a.ID)
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" || !c.Passed || c.Text != "Successfully retrieved 46 accounts from AWS Organizations" {
				t.Errorf("pages of %d: %q; accounts (-want +got):\n%s", size, c.Text, diff)
			}
			if a := c.Accounts[0]; a.Name != "prod" || a.Status != "ACTIVE" {
				t.Errorf("account %+v, want its name and status", a)
			}
		}
	})
}

// The rows of the table that are no success, and what is not whole.
func TestAccountsThatAreNotListed(t *testing.T) {
	const other = "Unable to access AWS Organizations. Ensure the IAM role has organizations:ListAccounts permission."
	swap := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), from, to)) }
	}
	for _, tt := range []struct {
		name  string
		mess  func(w *world)
		text  string
		cause serval.Cause
	}{
		{"no action", func(w *world) { w.account.SetInline("ingestion", "may", allow("iam:ListRoles")) },
			"Connection successful, but IAM role lacks organizations:ListAccounts permission.", serval.CauseActionsDenied},
		{"not the management account", func(w *world) { w.AddAccount("999988887777", "hub"); w.SetManagementAccount("999988887777") }, other, serval.CauseNotManagement},
		{"no organization", func(w *world) { w.SetManagementAccount("") }, "This AWS account is not part of an AWS Organization.", serval.CauseNoOrganization},
		{"service error", func(w *world) {
			w.Inject(awstest.Fault{Action: "ListAccounts", Code: "InvalidInputException", Message: "x"})
		}, other, serval.CauseOther},
		{"throttled", func(w *world) {
			w.Inject(awstest.Fault{Action: "ListAccounts", Code: "TooManyRequestsException", Message: "x", Status: 400})
		}, other, serval.CauseThrottled},
		{"throttled, as elsewhere", func(w *world) {
			w.Inject(awstest.Fault{Action: "ListAccounts", Code: "ThrottlingException", Message: "x", Status: 400})
		}, other, serval.CauseThrottled},
		{"another refusal that names the action", func(w *world) {
			w.Inject(awstest.Fault{Action: "ListAccounts", Code: "InvalidInputException", Message: "of organizations:ListAccounts"})
		}, other, serval.CauseOther},
		{"reset", func(w *world) { w.Inject(awstest.Fault{Action: "ListAccounts", Reset: true}) }, other, serval.CauseEgress},
		{"200 and nothing", func(w *world) { w.Inject(awstest.Fault{Action: "ListAccounts", Status: 200}) }, other, serval.CauseIntercepted},
		{"200 and no list", func(w *world) { w.Inject(awstest.Fault{Action: "ListAccounts", Status: 200, Body: "{}"}) }, other, serval.CauseIntercepted},
		{"an id that is none", func(w *world) { w.Inject(awstest.Fault{Action: "ListAccounts", Mutate: swap(member, "x")}) }, other, serval.CauseIntercepted},
		{"the same page for ever", func(w *world) {
			w.ShortPages(1)
			w.AddAccount("222233334444", "b")
			w.Inject(awstest.Fault{Action: "ListAccounts", Mutate: func(b []byte) []byte {
				var page map[string]any
				_ = json.Unmarshal(b, &page)
				page["NextToken"] = "again"
				b, _ = json.Marshal(page)
				return b
			}, Match: func(r *awstest.Request) bool { return true }})
		}, other, ""},
	} {
		inBubble(t, tt.name, func(t *testing.T, w *world) {
			w.SetManagementAccount(member)
			tt.mess(w)
			c := w.list(t)
			if c.Passed || c.Text != tt.text || len(c.Accounts) != 0 || len(c.Findings) != 1 {
				t.Fatalf("check %+v, want %q and nothing of the list", c, tt.text)
			}
			if tt.cause != "" && !slices.Contains(c.Findings[0].Causes, tt.cause) {
				t.Errorf("causes %v (%s), want %s", c.Findings[0].Causes, c.Findings[0].Text, tt.cause)
			}
		})
	}
}

// An organization whose list comes back to its beginning.
func TestRepeatedToken(t *testing.T) {
	inBubble(t, "listed", func(t *testing.T, w *world) {
		w.SetManagementAccount(member)
		w.AddAccount("222233334444", "b")
		w.AddAccount("333344445555", "c")
		w.ShortPages(1)
		var first string
		w.Inject(awstest.Fault{Action: "ListAccounts", Mutate: func(b []byte) []byte {
			var page struct{ NextToken string }
			_ = json.Unmarshal(b, &page)
			if first == "" {
				first = page.NextToken
			}
			return []byte(strings.ReplaceAll(string(b), page.NextToken, first))
		}})
		if c := w.list(t); c.Passed || c.Findings[0].Code != "MalformedAnswer" || w.CountCalls("ListAccounts") > 3 {
			t.Errorf("%+v after %d calls, want it refused when the token comes again", c, w.CountCalls("ListAccounts"))
		}
	})
}

// An account that moves from one page to the next while they are read is one.
func TestMovedAccount(t *testing.T) {
	inBubble(t, "listed", func(t *testing.T, w *world) {
		w.SetManagementAccount(member)
		w.AddAccount("222233334444", "b")
		w.AddAccount("333344445555", "c")
		w.ShortPages(1)
		w.Inject(awstest.Fault{Action: "ListAccounts", Mutate: func(b []byte) []byte {
			return []byte(strings.ReplaceAll(string(b), `"333344445555"`, `"222233334444"`))
		}})
		if c := w.list(t); !c.Passed || len(c.Accounts) != 2 {
			t.Errorf("%+v, want each account once", c.Accounts)
		}
	})
}

func TestEndpointsAreChecked(t *testing.T) {
	for _, c := range []awsorg.Config{{OrganizationsEndpoint: "http://example.com"}, {IAMEndpoint: "ftp://127.0.0.1"}} {
		if _, err := awsorg.New(c); !serval.IsRefusal(err, serval.Invalid) {
			t.Errorf("%+v: %v, want it refused", c, err)
		}
	}
}

func order() awsorg.Order {
	return awsorg.Order{RunID: "run_1", Trust: trust, Role: serval.NewRole{
		Name: "dev", Description: "For developers", MaxSessionSeconds: 7200, PermissionsBoundary: boundary, Policy: allow("s3:GetObject"),
	}}
}

func (w *world) create(t *testing.T, o awsorg.Order) serval.RunResult {
	t.Helper()
	r, err := w.client.CreateRole(t.Context(), account, o, w.workflow, w.ingestion)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// made returns the one role under /serval/ as AWS shows it.
func (w *world) made(t *testing.T, want int) {
	t.Helper()
	n := 0
	for _, call := range w.Calls() {
		if call.Action == "CreateRole" && call.Status == 200 {
			n++
		}
	}
	if n != want {
		t.Errorf("CreateRole went well %d times, want %d", n, want)
	}
}

func TestCreateRole(t *testing.T) {
	inBubble(t, "listed", func(t *testing.T, w *world) {
		w.KeepParams(true)
		r := w.create(t, order())
		if r.Error != "" || r.Role == nil || !r.Role.Tagged || r.Role.Found || r.Role.RoleID != w.account.RoleID("dev") ||
			r.Role.ARN != "arn:aws:iam::"+member+":role/serval/dev" {
			t.Fatalf("result %+v %+v", r, r.Role)
		}
		var actions []string
		for _, c := range w.Calls() {
			actions = append(actions, c.Action)
			if !strings.HasSuffix(c.Caller, ":assumed-role/workflow/serval-worker") {
				t.Errorf("%s was asked as %s: only the workflow role writes", c.Action, c.Caller)
			}
			if c.Action != "CreateRole" {
				continue
			}
			for name, want := range map[string]string{
				"Path": "/serval/", "PermissionsBoundary": boundary, "MaxSessionDuration": "7200", "AssumeRolePolicyDocument": trust,
				"Tags.member.1.Key": "serval", "Tags.member.1.Value": "", "Tags.member.2.Key": "serval-run", "Tags.member.2.Value": "run_1",
			} {
				if got := c.Params.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		}
		if diff := cmp.Diff([]string{"CreateRole", "PutRolePolicy"}, actions); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

// Accept 6: the worker is gone after CreateRole, in each way in which that can
// be; the repeat finishes and makes no second role.
func TestCreateRoleAgain(t *testing.T) {
	for _, tt := range []struct {
		name    string
		actions []string // of the workflow role
		tagged  bool
	}{
		{"tagged", serval.WorkflowActions(), true},
		{"without iam:TagRole", []string{"iam:CreateRole", "iam:PutRolePolicy"}, false},
	} {
		inBubble(t, tt.name, func(t *testing.T, w *world) {
			w.account.SetInline("workflow", "may", allow(tt.actions...))
			dies, cancel := context.WithCancel(t.Context())
			remove := w.Inject(awstest.Fault{Action: "PutRolePolicy", Hook: func(*awstest.Request) { cancel() }, Reset: true})
			if r, err := w.client.CreateRole(dies, account, order(), w.workflow, w.ingestion); err == nil {
				t.Fatalf("result %+v of a worker that was killed", r)
			}
			remove()
			id := w.account.RoleID("dev")
			if id == "" {
				t.Fatal("the first attempt made no role")
			}
			for range 2 { // and once more, for a result that never arrived
				r := w.create(t, order())
				if r.Error != "" || !r.Role.Found || r.Role.Tagged != tt.tagged || r.Role.RoleID != id {
					t.Errorf("result %+v %+v, want the role of the first attempt", r, r.Role)
				}
			}
			w.made(t, 1)
		})
	}
	// It failed, but it happened: the SDK asks again and finds it there.
	inBubble(t, "lost answer", func(t *testing.T, w *world) {
		w.Inject(awstest.Fault{Action: "CreateRole", Times: 1, Happened: true, Reset: true})
		if r := w.create(t, order()); r.Error != "" || !r.Role.Found {
			t.Errorf("result %+v %+v, want the role found", r, r.Role)
		}
	})
}

// A role of that name that is not this run's is left alone.
func TestRolesOfOthers(t *testing.T) {
	for _, tt := range []struct {
		name string
		role awstest.Role
		want string
	}{
		{"somebody's", awstest.Role{Name: "dev"}, "exists already, and this run has not made it"},
		{"another run's", awstest.Role{Name: "dev", Path: "/serval/", PermissionsBoundary: boundary, Trust: trust, Tags: map[string]string{"serval-run": "run_2"}, Description: "x (Serval run run_11)"}, "this run has not made it"},
		{"without its boundary", awstest.Role{Name: "dev", Path: "/serval/", Trust: trust, Tags: map[string]string{"serval-run": "run_1"}}, "was changed since"},
		{"of another path", awstest.Role{Name: "dev", PermissionsBoundary: boundary, Trust: trust, Tags: map[string]string{"serval-run": "run_1"}}, "was changed since"},
		{"of another trust", awstest.Role{Name: "dev", Path: "/serval/", PermissionsBoundary: boundary, Tags: map[string]string{"serval-run": "run_1"}}, "was changed since"},
	} {
		inBubble(t, tt.name, func(t *testing.T, w *world) {
			w.account.PutRole(tt.role)
			r := w.create(t, order())
			if !strings.Contains(r.Error, tt.want) || r.Role != nil || w.CountCalls("PutRolePolicy") != 0 || w.CountCalls("TagRole") != 0 {
				t.Errorf("result %+v, want %q and the role left alone", r, tt.want)
			}
		})
	}
}

func TestCreateRoleRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		actions []string
		error   string // "" where the role is made
		denied  string
		policy  int // calls of PutRolePolicy
	}{
		{"no iam:CreateRole", []string{"iam:PutRolePolicy", "iam:TagRole"}, "iam:CreateRole answered AccessDenied", "iam:CreateRole", 0},
		{"no iam:PutRolePolicy", []string{"iam:CreateRole", "iam:TagRole"}, "is there, without its policy: iam:PutRolePolicy answered AccessDenied", "iam:PutRolePolicy", 1},
		{"no iam:TagRole", []string{"iam:CreateRole", "iam:PutRolePolicy"}, "", "iam:TagRole", 1},
	} {
		inBubble(t, tt.name, func(t *testing.T, w *world) {
			w.account.SetInline("workflow", "may", allow(tt.actions...))
			r := w.create(t, order())
			if (tt.error == "") != (r.Error == "") || !strings.Contains(r.Error, tt.error) || w.CountCalls("PutRolePolicy") != tt.policy {
				t.Errorf("error %q, want %q", r.Error, tt.error)
			}
			if n := w.CountCalls("CreateRole"); n != 1 && tt.denied != "iam:TagRole" {
				t.Errorf("CreateRole was asked %d times, want once: only what is denied to tags is tried without them", n)
			}
			if len(r.Findings) != 1 || !slices.Equal(r.Findings[0].Actions, []string{tt.denied}) || r.Findings[0].Target != account.WorkflowRoleARN {
				t.Errorf("findings %+v, want %s denied to the workflow role", r.Findings, tt.denied)
			}
			if tt.error == "" && (r.Role.Tagged || !strings.Contains(r.Role.Text(), "is created and must be tagged")) {
				t.Errorf("role %+v, %q; want it said that it must be tagged", r.Role, r.Role.Text())
			}
		})
	}
	inBubble(t, "no such boundary", func(t *testing.T, w *world) {
		o := order()
		o.Role.PermissionsBoundary += "-of-nobody"
		if r := w.create(t, o); !strings.Contains(r.Error, "iam:CreateRole answered NoSuchEntity") || w.account.RoleID("dev") != "" {
			t.Errorf("result %+v, want no role without its boundary", r)
		}
	})
	inBubble(t, "another role", func(t *testing.T, w *world) {
		w.Inject(awstest.Fault{Action: "CreateRole", Mutate: func(b []byte) []byte {
			return []byte(strings.ReplaceAll(string(b), ":role/serval/dev", ":role/serval/another"))
		}})
		if r := w.create(t, order()); !strings.Contains(r.Error, "AWS answered with the role") || r.Role != nil || w.CountCalls("PutRolePolicy") != 0 {
			t.Errorf("result %+v, want nothing given to a role that was not asked for", r)
		}
	})
	// IAM does not know yet what it has just made.
	inBubble(t, "not there yet", func(t *testing.T, w *world) {
		w.Inject(awstest.Fault{Action: "PutRolePolicy", Times: 1, Code: "NoSuchEntity", Status: 404})
		if r := w.create(t, order()); r.Error != "" {
			t.Errorf("result %+v, want it to have waited", r)
		}
	})
}
