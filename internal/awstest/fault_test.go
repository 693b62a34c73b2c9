package awstest_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
)

// admin is a cloud with one account, whose administrator has the keys.
func admin(t *testing.T, o awstest.Options) (*awstest.Cloud, *awstest.Account, awstest.Keys) {
	c := awstest.New(o)
	a := c.AddAccount(spoke, "Spoke")
	return c, a, a.PutUser("admin", allowAll)
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name  string
		fault awstest.Fault
		codes []string // of the calls of GetRole in order, a part of the error where it has no code
	}{
		{"error", awstest.Fault{Action: "GetRole", Status: 500, Code: "ServiceFailure", Message: "Sorry"}, []string{"ServiceFailure", "ServiceFailure"}},
		{"code alone", awstest.Fault{Code: "Throttling"}, []string{"Throttling"}},
		{"once", awstest.Fault{Code: "Throttling", Times: 1}, []string{"Throttling", ""}},
		{"later", awstest.Fault{Code: "Throttling", After: 1, Times: 1}, []string{"", "Throttling", ""}},
		{"other action", awstest.Fault{Action: "ListRoles", Code: "Throttling"}, []string{""}},
		{"other account", awstest.Fault{Account: hub, Code: "Throttling"}, []string{""}},
		{"this account", awstest.Fault{Account: spoke, Code: "Throttling"}, []string{"Throttling"}},
		{"match", awstest.Fault{Match: func(r *awstest.Request) bool { return r.Params.Get("RoleName") == "r" }, Code: "Throttling"}, []string{"Throttling"}},
		{"no match", awstest.Fault{Match: func(r *awstest.Request) bool { return r.Caller == "nobody" }, Code: "Throttling"}, []string{""}},
		{"reset", awstest.Fault{Reset: true}, []string{"EOF"}},
		{"captive portal", awstest.Fault{Status: 200, Body: "<html><p>Log in", ContentType: "text/html"}, []string{"deserialization"}},
		{"bare 429", awstest.Fault{Status: 429}, []string{"UnknownError"}},
		{"cut off", awstest.Fault{Mutate: func(b []byte) []byte { return b[:len(b)/2] }}, []string{"deserialization"}},
		{"late", awstest.Fault{Delay: 20 * time.Millisecond}, []string{""}},
		{"hang", awstest.Fault{Hang: true}, []string{"deadline exceeded"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, a, keys := admin(t, awstest.Options{})
			a.PutRole(awstest.Role{Name: "r"})
			client := iamClient(c.Start(t), keys)
			remove := c.Inject(tt.fault)
			get := func() error {
				ctx := t.Context()
				if tt.fault.Hang {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
					defer cancel()
				}
				_, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("r")})
				return err
			}
			for n, want := range tt.codes {
				if got := code(get()); got != want && (want == "" || !strings.Contains(got, want)) {
					t.Errorf("call %d: %q, want %q", n+1, got, want)
				}
			}
			remove()
			if err := get(); err != nil && !tt.fault.Hang {
				t.Errorf("after the fault was removed: %v", err)
			}
		})
	}
}

// TestEmptyBody pins what makes an empty answer dangerous: the SDK takes it for a list of nothing.
func TestEmptyBody(t *testing.T) {
	c, _, keys := admin(t, awstest.Options{})
	c.Inject(awstest.Fault{Status: 200})
	out, err := iamClient(c.Start(t), keys).ListRoles(t.Context(), &iam.ListRolesInput{})
	if err != nil || out.Roles != nil {
		t.Errorf("roles %v, error %v; want neither", out, err)
	}
}

func TestFailedButHappened(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{})
	url := c.Start(t)
	c.Inject(awstest.Fault{Action: "CreateRole", Happened: true, Reset: true, Times: 1})
	_, err := iamClient(url, keys).CreateRole(t.Context(), &iam.CreateRoleInput{
		RoleName: aws.String("new"), AssumeRolePolicyDocument: aws.String(trustOf(`"*"`, "sts:AssumeRole")),
	})
	if err == nil || a.RoleID("new") == "" {
		t.Errorf("error %v, RoleId %q; want an error and a role", err, a.RoleID("new"))
	}
}

func TestHookChangesStateInMidRead(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{})
	for _, name := range []string{"a", "b", "c"} {
		a.PutRole(awstest.Role{Name: name})
	}
	c.ShortPages(1)
	c.Inject(awstest.Fault{Action: "ListRoles", After: 1, Times: 1, Hook: func(*awstest.Request) { a.DeleteRole("b"); a.DeleteRole("a") }})
	var names []string
	for p := iam.NewListRolesPaginator(iamClient(c.Start(t), keys), &iam.ListRolesInput{}); p.HasMorePages(); {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Roles {
			names = append(names, *r.RoleName)
		}
	}
	if got := strings.Join(names, " "); got != "a c" {
		t.Errorf("roles %q, want those there were: a c", got)
	}
}

func TestMutateDropsMarker(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{})
	a.PutRole(awstest.Role{Name: "a"})
	a.PutRole(awstest.Role{Name: "b"})
	c.ShortPages(1)
	c.Inject(awstest.Fault{Action: "ListRoles", Mutate: func(b []byte) []byte {
		from, to := bytes.Index(b, []byte("<Marker>")), bytes.Index(b, []byte("</Marker>"))
		return append(append([]byte{}, b[:from]...), b[to+len("</Marker>"):]...)
	}})
	out, err := iamClient(c.Start(t), keys).ListRoles(t.Context(), &iam.ListRolesInput{})
	if err != nil || !out.IsTruncated || out.Marker != nil {
		t.Errorf("page %+v, %v; want a truncated one without a marker", out, err)
	}
}

func TestThrottle(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{})
	a.PutRole(awstest.Role{Name: "r"})
	url := c.Start(t)
	client := iamClient(url, keys)
	get := func() string {
		_, err := client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("r")})
		return code(err)
	}
	c.Throttle(0.001, 2)
	if got := []string{get(), get(), get()}; got[0] != "" || got[1] != "" || got[2] != "Throttling" {
		t.Errorf("three calls: %q, want the third throttled", got)
	}
	if _, err := stsClient(url, keys).GetCallerIdentity(t.Context(), nil); err != nil {
		t.Errorf("STS is throttled with IAM: %v", err)
	}
	c.Throttle(0, 0)
	c.ThrottleAction("GetRole", 0.001, 1)
	if got := []string{get(), get()}; got[0] != "" || got[1] != "Throttling" {
		t.Errorf("two calls: %q, want the second throttled", got)
	}
	c.ThrottleAction("GetRole", 1000, 1)
	patient := iam.NewFromConfig(config(keys), func(o *iam.Options) {
		o.BaseEndpoint = &url
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = 10 * time.Millisecond })
	})
	for range 20 {
		if _, err := patient.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("r")}); err != nil {
			t.Fatalf("with retries: %v", err)
		}
	}
	var throttled int
	for _, call := range c.Calls() {
		if call.Throttled {
			throttled++
		}
	}
	if throttled < 2 {
		t.Errorf("%d calls recorded as throttled, want at least 2", throttled)
	}
}

func TestCallsAreRecorded(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{})
	a.PutRole(awstest.Role{Name: "r"})
	c.KeepParams(true)
	url := c.Start(t)
	client := iamClient(url, keys)
	_, _ = client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("gone")})
	_, err := client.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: aws.String("r")})
	wantError(t, err, "AccessDenied", "iam:DeleteRole")
	_, err = client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("gone")})
	if _, ok := errors.AsType[*types.NoSuchEntityException](err); !ok {
		t.Errorf("error %v, want NoSuchEntity", err)
	}
	calls := c.Calls()
	if len(calls) != 3 {
		t.Fatalf("%d calls, want 3", len(calls))
	}
	first, second := calls[0], calls[1]
	if first.Status != 404 || first.Code != "NoSuchEntity" || first.Params.Get("RoleName") != "gone" || !first.Signed ||
		first.Account != spoke || first.Caller != "arn:aws:iam::"+spoke+":user/admin" {
		t.Errorf("first call %+v", first)
	}
	if second.Action != "DeleteRole" || second.Status != 403 {
		t.Errorf("second call %+v: want DeleteRole refused", second)
	}
	c.ResetCalls()
	if n := c.CountCalls(""); n != 0 {
		t.Errorf("%d calls after a reset", n)
	}

	var begun atomic.Int32
	both := make(chan struct{})
	c.SetLatency(func() time.Duration { // the first is under way until there is a second
		if begun.Add(1) == 2 {
			close(both)
		}
		select {
		case <-both:
		case <-time.After(time.Minute):
		}
		return 0
	})
	var group sync.WaitGroup
	for range 5 {
		group.Go(func() { _, _ = client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("r")}) })
	}
	group.Wait()
	if n := c.MaxInFlight(spoke); n < 2 || n > 5 {
		t.Errorf("%d calls in flight at most, want 2 to 5", n)
	}
}

func TestFaultsOfTheTargetAccount(t *testing.T) {
	c, url, worker := estate(t)
	c.Inject(awstest.Fault{Action: "AssumeRole", Account: spoke, Status: 403, Code: "RegionDisabledException", Message: "STS is not activated in this region"})
	_, err := stsClient(url, worker).AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: aws.String(c.Account(spoke).RoleARN("ingest")), RoleSessionName: aws.String("worker"), ExternalId: aws.String("right"),
	})
	wantError(t, err, "RegionDisabledException", "not activated")
}
