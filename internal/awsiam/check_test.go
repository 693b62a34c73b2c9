package awsiam_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const ingestion = "serval-ingest"

// checkOf runs the check, which must come to an end.
func checkOf(t *testing.T, e *estate, a serval.Account) serval.Check {
	t.Helper()
	c, err := e.reader(t).Check(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// found returns the finding with the cause; the zero one where there is none.
func found(c serval.Check, cause serval.Cause) serval.Finding {
	for _, f := range c.Findings {
		if slices.Contains(f.Causes, cause) {
			return f
		}
	}
	return serval.Finding{}
}

func TestCheckPasses(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		c := checkOf(t, e, a)
		if !c.Passed || c.Text != "Successfully authenticated with AWS" || c.Name != "Test AWS Connection" || len(c.Findings) != 0 || c.AccountID != spoke {
			t.Errorf("check %+v, want it passed without findings", c)
		}
		// S-87: nothing beyond the seven is asked, and the two probes are refused.
		for _, call := range e.Calls() {
			if call.Service == "iam" && (!slices.Contains(serval.IngestionActions(), "iam:"+call.Action) || call.Status != 200 && call.Code != "NoSuchEntity") {
				t.Errorf("%s answered %d %s, want one of the seven, and allowed", call.Action, call.Status, call.Code)
			}
		}
	})
}

// Each of the seven that is denied is named, alone and together, and that
// something is not there is not called denied.
func TestCheckNamesWhatIsDenied(t *testing.T) {
	seven := serval.IngestionActions()
	try := func(name string, denied []string) {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				left := slices.DeleteFunc(slices.Clone(seven), func(s string) bool { return slices.Contains(denied, s) })
				owner.SetInline(ingestion, "read", allow(append(left, "s3:GetObject")...))
				c := checkOf(t, e, a)
				passes := !slices.Contains(denied, "iam:ListRoles")
				want := serval.TextConnected
				if !passes {
					want = "Connection successful, but IAM role lacks iam:ListRoles permission."
				}
				if c.Passed != passes || c.Text != want {
					t.Errorf("passed %v with %q, want %v with %q", c.Passed, c.Text, passes, want)
				}
				got := found(c, serval.CauseActionsDenied)
				slices.Sort(got.Actions)
				slices.Sort(denied)
				if diff := cmp.Diff(denied, got.Actions); diff != "" || len(c.Findings) != 1 {
					t.Errorf("findings %+v; denied (-want +got):\n%s", c.Findings, diff)
				}
			})
		})
	}
	for _, action := range seven {
		try(action, []string{action})
	}
	try("all", slices.Clone(seven))
}

// What AWS does not answer is neither allowed nor denied.
func TestCheckSaysWhatItCouldNotTry(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		e.Inject(awstest.Fault{Action: "GetRolePolicy", Code: "ServiceFailure", Status: 500, Message: "later"})
		c := checkOf(t, e, a)
		f := found(c, serval.CauseOther)
		if !c.Passed || !strings.Contains(f.Text, "iam:GetRolePolicy (ServiceFailure)") || found(c, serval.CauseActionsDenied).Text != "" {
			t.Errorf("check %+v, want it passed, with one action that could not be tried", c)
		}
	})
}

// S-22: with the right External ID it must work, with none and with a wrong one
// it must fail; otherwise the account is refused with the reason.
func TestConfusedDeputy(t *testing.T) {
	statement := func(condition string) string {
		return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:root"},"Action":["sts:AssumeRole","sts:TagSession"]%s}]}`, hub, condition)
	}
	for _, tt := range []struct {
		name, trust, how string
	}{
		{"asks for it", trust(hub, external, "sts:AssumeRole", "sts:TagSession"), ""},
		{"asks for nothing", statement(""), "without any External ID and with a wrong External ID"},
		{"asks for any", statement(`,"Condition":{"StringLike":{"sts:ExternalId":"*"}}`), "with a wrong External ID"},
		{"asks for it where there is one", statement(`,"Condition":{"StringEqualsIfExists":{"sts:ExternalId":"` + external + `"}}`), "without any External ID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				owner.SetTrust(ingestion, tt.trust)
				c := checkOf(t, e, a)
				f := found(c, serval.CauseExternalIDOpen)
				if c.Passed != (tt.how == "") || (tt.how == "") != (f.Text == "") || !strings.Contains(f.Text, tt.how) {
					t.Errorf("check %+v, want the role open %q", c, tt.how)
				}
				if !c.Passed && (c.Text != serval.TextNotAssumed || c.TrustedAccount() != hub) {
					t.Errorf("text %q, trusted account %q; want the refusal's, and the worker's account", c.Text, c.TrustedAccount())
				}
				err := e.reader(t).Guard(t.Context(), a)
				if tt.how == "" {
					if err != nil {
						t.Errorf("Guard: %v", err)
					}
					return
				}
				if g := failureOf(t, err); g.Code != "ExternalIDNotRequired" || !strings.Contains(g.Error(), tt.how) {
					t.Errorf("Guard: %v, want the reason", err)
				}
			})
		})
	}
}

// Guard costs three calls once a day: what is good is remembered for the account
// as it is declared, what is bad or not known is not.
func TestGuardRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstateInMemory(t, awstest.Options{})
		owner, a := e.connect(spoke)
		r := e.reader(t)
		calls := func(want int) {
			t.Helper()
			e.ResetCalls()
			if err := r.Guard(t.Context(), a); (err != nil) != (want == 1) { // the first of three must work
				t.Errorf("Guard: %v", err)
			}
			if n := e.CountCalls(""); n != want {
				t.Errorf("%d calls, want %d", n, want)
			}
		}
		remove := e.Inject(awstest.Fault{Action: "AssumeRole", After: 1, Code: "ServiceUnavailable", Status: 400})
		calls(2) // the second says nothing
		remove()
		// What the first has shown to be open is not forgotten because of the second.
		owner.SetTrust(ingestion, trustOf(hub, "sts:AssumeRole", "sts:TagSession"))
		remove = e.Inject(awstest.Fault{Action: "AssumeRole", After: 2, Code: "ServiceUnavailable", Status: 400})
		if g := failureOf(t, r.Guard(t.Context(), a)); g.Code != "ExternalIDNotRequired" {
			t.Errorf("Guard: %v, want it refused", g)
		}
		remove()
		owner.SetTrust(ingestion, trust(hub, external, "sts:AssumeRole", "sts:TagSession"))
		calls(3)
		calls(0)
		time.Sleep(25 * time.Hour)
		keys := e.Account(hub).PodIdentity("worker", time.Now())
		e.config.Credentials = staticKeys(keys)
		r = e.reader(t)
		calls(3)
		calls(0)
		a.Name = "another name"
		calls(0)
		a.ExternalID = "another-one"
		calls(1) // it cannot be assumed at all
		a.ExternalID = external
		owner.SetTrust(ingestion, strings.Replace(trust(hub, external, "sts:AssumeRole", "sts:TagSession"), "StringEquals", "StringNotEquals", 1))
		a.STS.Region = "eu-central-1" // declared anew
		calls(1)
	})
}

// Retired actions are read out of the ingestion role's policies, and never tried.
func TestRetiredActions(t *testing.T) {
	for _, tt := range []struct {
		name     string
		inline   string
		attached string
		want     []string
	}{
		{"the seven", allow("s3:Get*"), "", nil},
		{"by name", allow("iam:ListRoleTags", "ec2:DescribeInstances"), "", []string{"iam:ListRoleTags", "ec2:DescribeInstances"}},
		{"in another case", allow("IAM:listroletags"), "", []string{"iam:ListRoleTags"}},
		{"by a pattern", allow("eks:*", "rds:Describe?BInstances"), "", []string{"rds:DescribeDBInstances", "eks:DescribeCluster", "eks:ListClusters"}},
		{"attached", allow("s3:Get*"), allow("iam:ListRoleTags"), []string{"iam:ListRoleTags"}},
		{"denied again", allow("eks:*"), `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"eks:Describe*","Resource":"*"}}`, []string{"eks:ListClusters"}},
		{"a pattern of no pattern", allow(`iam:[Ll]istRoleTags`), "", nil},
		{"everything", allow("*"), "", serval.RetiredActions()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				role := awstest.Role{Name: ingestion, Trust: trust(hub, external, "sts:AssumeRole", "sts:TagSession"),
					Inline: map[string]string{"more": tt.inline, "read": allow(serval.IngestionActions()...)}}
				if tt.attached != "" {
					role.Attached = []string{owner.PutPolicy(awstest.Policy{Name: "old-guide", Document: tt.attached})}
				}
				owner.PutRole(role)
				c := checkOf(t, e, a)
				if diff := cmp.Diff(tt.want, found(c, serval.CauseRetiredActions).Actions); diff != "" || !c.Passed {
					t.Errorf("passed %v, retired (-want +got):\n%s", c.Passed, diff)
				}
				for _, call := range e.Calls() {
					if call.Service == "iam" && !slices.Contains(serval.IngestionActions(), "iam:"+call.Action) {
						t.Errorf("%s was tried", call.Action)
					}
				}
			})
		})
	}
}

// A check ends, whatever does not answer.
func TestCheckEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		e.Inject(awstest.Fault{Hang: true})
		began := time.Now()
		c := checkOf(t, e, a)
		if c.Passed || c.Text != serval.TextNotAssumed || found(c, serval.CauseEgress).Text == "" {
			t.Errorf("check %+v, want it failed for want of a way", c)
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

// A 200 without anything in it is no answer: above all it does not say that the role can be assumed without its
// External ID.
func TestEmptyAnswerOpensNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		e.Inject(awstest.Fault{Action: "AssumeRole", After: 1, Status: 200})
		if err := e.reader(t).Guard(t.Context(), a); err != nil {
			t.Errorf("%v, want nothing held against the account", err)
		}
	})
}
