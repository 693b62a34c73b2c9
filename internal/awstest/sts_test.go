//lint:file-ignore SA1019 AWS still answers PackedPolicySize, and so does the fake.

package awstest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
)

// trustOf lets the principal do the actions.
func trustOf(principal string, actions ...string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":%s,"Action":["%s"]}]}`,
		principal, strings.Join(actions, `","`))
}

func allowing(actions ...string) map[string]string {
	return map[string]string{"p": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}]}`}
}

func TestAssumeRole(t *testing.T) {
	const (
		hubRoot    = `{"AWS":"arn:aws:iam::` + hub + `:root"}`
		hubWorker  = `{"AWS":"arn:aws:iam::` + hub + `:role/worker"}`
		assume     = "sts:AssumeRole"
		tagSession = "sts:TagSession"
	)
	tests := []struct {
		name    string
		account string            // of the target, spoke unless set
		trust   string            // of the target
		own     map[string]string // the caller's policies
		caller  string            // "role" unless "user" or "pod"
		in      sts.AssumeRoleInput
		code    string
		part    string
	}{
		{name: "both sides", trust: trustOf(hubRoot, assume), own: allowing(assume)},
		{name: "both sides, by role", trust: trustOf(hubWorker, assume), own: allowing(assume)},
		{name: "own side refuses", trust: trustOf(hubWorker, assume), own: allowing("iam:*"), code: "AccessDenied", part: "because no identity-based policy allows the sts:AssumeRole action"},
		{name: "trust refuses", trust: trustOf(`{"AWS":"`+spoke+`"}`, assume), own: allowing(assume), code: "AccessDenied", part: "is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::" + spoke + ":role/target"},
		{name: "no such role", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::" + spoke + ":role/nobody")}, code: "AccessDenied", part: "sts:AssumeRole on resource: arn:aws:iam::" + spoke + ":role/nobody"},
		{name: "no such account", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::999999999999:role/target")}, code: "AccessDenied"},
		{name: "trust denies", trust: strings.Replace(trustOf(hubRoot, assume), `"Statement":[`, `"Statement":[{"Effect":"Deny","Principal":"*","Action":"sts:*","Condition":{"StringNotEquals":{"sts:ExternalId":"x1"}}},`, 1), own: allowing(assume), code: "AccessDenied", part: "with an explicit deny in a resource-based policy"},
		{name: "own side denies", trust: trustOf(hubRoot, assume), own: map[string]string{"a": allowAll, "d": strings.Replace(allowAll, "Allow", "Deny", 1)}, code: "AccessDenied", part: "with an explicit deny in an identity-based policy"},
		{name: "same account, account trusted", account: hub, trust: trustOf(hubRoot, assume), own: allowing("iam:*"), code: "AccessDenied", part: "no identity-based policy"},
		{name: "same account, role trusted", account: hub, trust: trustOf(hubWorker, assume), own: allowing("iam:*")},
		{name: "user", trust: trustOf(hubRoot, assume), own: allowing(assume), caller: "user", in: sts.AssumeRoleInput{DurationSeconds: aws.Int32(7200)}},
		{name: "user, too long", trust: trustOf(hubRoot, assume), own: allowing(assume), caller: "user", in: sts.AssumeRoleInput{DurationSeconds: aws.Int32(7201)}, code: "ValidationError", part: "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."},
		{name: "chained, too long", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{DurationSeconds: aws.Int32(3601)}, code: "ValidationError", part: "exceeds the 1 hour session limit for roles assumed by role chaining"},
		{name: "chained, an hour", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{DurationSeconds: aws.Int32(3600)}},
		{name: "too short", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{DurationSeconds: aws.Int32(899)}, code: "ValidationError", part: "900"},
		{name: "session name", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{RoleSessionName: aws.String("o'brien")}, code: "ValidationError", part: "roleSessionName"},
		{name: "session name too long", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{RoleSessionName: aws.String(strings.Repeat("x", 65))}, code: "ValidationError"},
		{name: "external id's form", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{ExternalId: aws.String("a b")}, code: "ValidationError", part: "externalId"},
		{name: "external id unasked", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{ExternalId: aws.String("any")}},
		{name: "pod, nobody tags", trust: trustOf(hubRoot, assume), own: allowing(assume), caller: "pod", code: "AccessDenied", part: "is not authorized to perform: sts:TagSession on resource: arn:aws:iam::" + spoke + ":role/target"},
		{name: "pod, trust does not tag", trust: trustOf(hubRoot, assume), own: allowing(assume, tagSession), caller: "pod", code: "AccessDenied", part: "sts:TagSession"},
		{name: "pod, own side does not tag", trust: trustOf(hubRoot, assume, tagSession), own: allowing(assume), caller: "pod", code: "AccessDenied", part: "no identity-based policy allows the sts:TagSession action"},
		{name: "pod, both sides tag", trust: trustOf(hubRoot, assume, tagSession), own: allowing(assume, tagSession), caller: "pod"},
		{name: "pod, transitive tag again", trust: trustOf(hubRoot, "sts:*"), own: allowing("sts:*"), caller: "pod", in: sts.AssumeRoleInput{Tags: tag("EKS-cluster-name", "x")}, code: "InvalidParameterValue", part: "transitive"},
		{name: "pod and too many tags", trust: trustOf(hubRoot, "sts:*"), own: allowing("sts:*"), caller: "pod", in: sts.AssumeRoleInput{Tags: tag("a", strings.Repeat("x", 200))}, code: "PackedPolicyTooLarge"},
		{name: "tagged", trust: trustOf(hubRoot, assume), own: allowing("sts:*"), in: sts.AssumeRoleInput{Tags: tag("a", "b")}, code: "AccessDenied", part: "sts:TagSession"},
		{name: "tagged by both", trust: trustOf(hubRoot, "sts:*"), own: allowing("sts:*"), in: sts.AssumeRoleInput{Tags: tag("a", "b"), TransitiveTagKeys: []string{"a"}}},
		{name: "transitive tag not there", trust: trustOf(hubRoot, "sts:*"), own: allowing("sts:*"), in: sts.AssumeRoleInput{TransitiveTagKeys: []string{"a"}}, code: "InvalidParameterValue"},
		{name: "source identity", trust: trustOf(hubRoot, assume), own: allowing("sts:*"), in: sts.AssumeRoleInput{SourceIdentity: aws.String("ann")}, code: "AccessDenied", part: "sts:SetSourceIdentity"},
		{name: "policy is no JSON", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{Policy: aws.String("{")}, code: "MalformedPolicyDocument"},
		{name: "policy too long", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{Policy: aws.String(allowAll + strings.Repeat(" ", 2048))}, code: "ValidationError", part: "2048"},
		{name: "no such managed policy", trust: trustOf(hubRoot, assume), own: allowing(assume), in: sts.AssumeRoleInput{PolicyArns: []types.PolicyDescriptorType{{Arn: aws.String("arn:aws:iam::aws:policy/Nothing")}}}, code: "ValidationError"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := awstest.New(awstest.Options{})
			from := c.AddAccount(hub, "Hub")
			c.AddAccount(spoke, "Spoke")
			from.PutRole(awstest.Role{Name: "worker", Inline: tt.own})
			account := c.Account(spoke)
			if tt.account != "" {
				account = c.Account(tt.account)
			}
			account.PutRole(awstest.Role{Name: "target", Trust: tt.trust, MaxSessionDuration: 7200})
			keys := from.Session("worker", "w", time.Hour)
			switch tt.caller {
			case "user":
				keys = from.PutUser("ann", tt.own["p"])
			case "pod":
				keys = from.PodIdentity("worker", time.Now())
			}
			in := tt.in
			if in.RoleArn == nil {
				in.RoleArn = aws.String(account.RoleARN("target"))
			}
			if in.RoleSessionName == nil {
				in.RoleSessionName = aws.String("w@example.com")
			}
			out, err := stsClient(c.Start(t), keys).AssumeRole(context.Background(), &in)
			wantError(t, err, tt.code, tt.part)
			if err != nil {
				return
			}
			id := account.RoleID("target") + ":w@example.com"
			if *out.AssumedRoleUser.AssumedRoleId != id || !strings.HasPrefix(*out.Credentials.AccessKeyId, "ASIA") {
				t.Errorf("AssumedRoleId %s, key %s; want %s and ASIA...", *out.AssumedRoleUser.AssumedRoleId, *out.Credentials.AccessKeyId, id)
			}
		})
	}
}

func tag(key, value string) []types.Tag { return []types.Tag{{Key: &key, Value: &value}} }

// TestSessionPolicies says what a session may do that was narrowed: inline and managed session policies
// allow what either allows, and every Deny counts.
func TestSessionPolicies(t *testing.T) {
	statement := func(s ...string) string {
		return `{"Version":"2012-10-17","Statement":[` + strings.Join(s, ",") + `]}`
	}
	const (
		all     = `{"Effect":"Allow","Action":"*","Resource":"*"}`
		noRoles = `{"Effect":"Deny","Action":"iam:ListRoles","Resource":"*"}`
		over    = `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateGreaterThanEquals":{"aws:CurrentTime":"2020-01-01T00:00:00Z"}}}`
		later   = `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateGreaterThanEquals":{"aws:CurrentTime":"2999-01-01T00:00:00Z"}}}`
	)
	tests := []struct {
		name     string
		role     map[string]string
		boundary string
		inline   string
		managed  []string
		code     string // of ListRoles
		part     string
	}{
		{name: "none", role: allowing("*")},
		{name: "role has no rights", role: allowing("s3:*"), code: "AccessDenied", part: "on resource: arn:aws:iam::" + spoke + ":role/ because no identity-based policy allows the iam:ListRoles action"},
		{name: "inline allows", role: allowing("*"), inline: statement(all)},
		{name: "inline allows more than the role", role: allowing("s3:*"), inline: statement(all), code: "AccessDenied", part: "identity-based"},
		{name: "inline allows other things", role: allowing("*"), inline: statement(`{"Effect":"Allow","Action":"s3:*","Resource":"*"}`), code: "AccessDenied", part: "because no session policy allows the iam:ListRoles action"},
		{name: "only a Deny allows nothing", role: allowing("*"), inline: statement(later), code: "AccessDenied", part: "no session policy"},
		{name: "inline denies", role: allowing("*"), inline: statement(all, noRoles), code: "AccessDenied", part: "with an explicit deny in a session policy"},
		{name: "the end is not yet", role: allowing("*"), inline: statement(all, later)},
		{name: "the end is past", role: allowing("*"), inline: statement(all, over), code: "AccessDenied", part: "session policy"},
		{name: "managed allows", role: allowing("*"), managed: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}},
		{name: "managed or inline", role: allowing("*"), inline: statement(later), managed: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}},
		{name: "managed allows, inline denies", role: allowing("*"), inline: statement(noRoles), managed: []string{"arn:aws:iam::aws:policy/AdministratorAccess"}, code: "AccessDenied", part: "explicit deny in a session policy"},
		{name: "boundary", role: allowing("*"), boundary: "arn:aws:iam::aws:policy/ReadOnlyAccess"},
		{name: "boundary has no rights", role: allowing("*"), boundary: "arn:aws:iam::" + spoke + ":policy/none", code: "AccessDenied", part: "because no permissions boundary allows the iam:ListRoles action"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := awstest.New(awstest.Options{})
			a := c.AddAccount(spoke, "Spoke")
			a.PutPolicy(awstest.Policy{Name: "none", Document: statement(`{"Effect":"Allow","Action":"s3:*","Resource":"*"}`)})
			a.PutRole(awstest.Role{Name: "r", Inline: tt.role, PermissionsBoundary: tt.boundary, Trust: trustOf(`{"AWS":"`+spoke+`"}`, "sts:AssumeRole")})
			url := c.Start(t)
			in := sts.AssumeRoleInput{RoleArn: aws.String(a.RoleARN("r")), RoleSessionName: aws.String("ann")}
			if tt.inline != "" {
				in.Policy = &tt.inline
			}
			for _, arn := range tt.managed {
				in.PolicyArns = append(in.PolicyArns, types.PolicyDescriptorType{Arn: aws.String(arn)})
			}
			out, err := stsClient(url, a.PutUser("ann", allowAll)).AssumeRole(context.Background(), &in)
			keys := session(t, out, err)
			if narrowed := tt.inline != "" || tt.managed != nil; narrowed != (out.PackedPolicySize != nil) {
				t.Errorf("PackedPolicySize %v, want one only for a narrowed session", out.PackedPolicySize)
			}
			_, err = iamClient(url, keys).ListRoles(context.Background(), &iam.ListRolesInput{})
			wantError(t, err, tt.code, tt.part)
			if _, err := stsClient(url, keys).GetCallerIdentity(context.Background(), nil); err != nil {
				t.Errorf("GetCallerIdentity was refused, which no policy can do: %v", err)
			}
		})
	}
}

func TestTransitiveTagsGoOn(t *testing.T) {
	c := awstest.New(awstest.Options{})
	a := c.AddAccount(hub, "Hub")
	b := c.AddAccount(spoke, "Spoke")
	a.PutRole(awstest.Role{Name: "worker", Inline: allowing("*")})
	all := trustOf(`{"AWS":["`+hub+`","`+spoke+`"]}`, "sts:*")
	b.PutRole(awstest.Role{Name: "first", Trust: all, Inline: allowing("sts:*")})
	// The second hop sees the pod's tags as its principal's, and passes them too.
	b.PutRole(awstest.Role{Name: "second", Inline: allowing("*"), Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + spoke + `"},
		"Action":["sts:AssumeRole","sts:TagSession"],"Condition":{"StringEquals":{"aws:PrincipalTag/kubernetes-namespace":"serval"}}}]}`})
	url := c.Start(t)
	keys := a.PodIdentity("worker", time.Now())
	for _, name := range []string{"first", "second"} {
		out, err := stsClient(url, keys).AssumeRole(context.Background(), &sts.AssumeRoleInput{
			RoleArn: aws.String(b.RoleARN(name)), RoleSessionName: aws.String("worker"),
		})
		keys = session(t, out, err)
		if n := *out.PackedPolicySize; n < 60 || n > 90 {
			t.Errorf("PackedPolicySize %d%% for six pod tags, want about 74%%", n)
		}
	}
}

func TestExternalID(t *testing.T) {
	c, url, worker := estate(t)
	for id, want := range map[string]string{"right": "", "wrong": "AccessDenied", "": "AccessDenied"} {
		in := &sts.AssumeRoleInput{RoleArn: aws.String(c.Account(spoke).RoleARN("ingest")), RoleSessionName: aws.String("worker")}
		if id != "" {
			in.ExternalId = &id
		}
		_, err := stsClient(url, worker).AssumeRole(context.Background(), in)
		if code(err) != want {
			t.Errorf("External ID %q: %v, want %q", id, err, want)
		}
	}
}

// TestTrustedRoleMadeAgain says that a role made again under the same name is another role.
func TestTrustedRoleMadeAgain(t *testing.T) {
	c := awstest.New(awstest.Options{})
	a, b := c.AddAccount(hub, "Hub"), c.AddAccount(spoke, "Spoke")
	old := a.PutRole(awstest.Role{Name: "worker", Inline: allowing("*")})
	trust := trustOf(`{"AWS":"`+a.RoleARN("worker")+`"}`, "sts:AssumeRole")
	b.PutRole(awstest.Role{Name: "ingest", Trust: trust})
	url := c.Start(t)
	assume := func() error {
		_, err := stsClient(url, a.Session("worker", "worker", time.Hour)).AssumeRole(t.Context(), &sts.AssumeRoleInput{
			RoleArn: aws.String(b.RoleARN("ingest")), RoleSessionName: aws.String("worker"),
		})
		return err
	}
	wantError(t, assume(), "", "")
	a.DeleteRole("worker")
	a.PutRole(awstest.Role{Name: "worker", Inline: allowing("*")})
	wantError(t, assume(), "AccessDenied", "sts:AssumeRole")
	out, err := iamClient(url, b.PutUser("admin", allowAll)).GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("ingest")})
	if err != nil || !strings.Contains(*out.Role.AssumeRolePolicyDocument, "%22"+old+"%22") {
		t.Errorf("role %+v, %v; want the old RoleId %s in its trust policy", out, err, old)
	}
	b.SetTrust("ingest", trust)
	wantError(t, assume(), "", "")
}

// TestContextKeys judges a session's calls by what it says of itself.
func TestContextKeys(t *testing.T) {
	c := awstest.New(awstest.Options{SourceIP: "203.0.113.7"})
	a := c.AddAccount(spoke, "Spoke")
	id := a.PutRole(awstest.Role{Name: "r", Path: "/p/", Tags: map[string]string{"Team": "blue"}})
	url := c.Start(t)
	keys := a.Session("r", "ann@example.com", time.Hour)
	user := a.PutUser("bob", "")
	for condition, want := range map[string]bool{
		`"StringEquals":{"aws:userid":"` + id + `:ann@example.com"}`:                       true,
		`"StringEquals":{"aws:username":"ann@example.com"}`:                                false,
		`"StringEquals":{"aws:PrincipalTag/team":"blue"}`:                                  true,
		`"StringEquals":{"aws:PrincipalAccount":"` + spoke + `"}`:                          true,
		`"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::` + spoke + `:role/p/r"}`:           true,
		`"IpAddress":{"aws:SourceIp":"203.0.113.0/24"},"Bool":{"aws:ViaAWSService":false}`: true,
		`"NotIpAddress":{"aws:SourceIp":"203.0.113.0/24"}`:                                 false,
		`"Null":{"aws:TokenIssueTime":"false"}`:                                            true,
		`"DateGreaterThan":{"aws:TokenIssueTime":"2020-01-01T00:00:00Z"}`:                  true,
		`"NumericGreaterThan":{"aws:EpochTime":"1"}`:                                       true,
	} {
		a.SetInline("r", "p", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:ListRoles","Resource":"*","Condition":{`+condition+`}}]}`)
		_, err := iamClient(url, keys).ListRoles(t.Context(), nil)
		if got := err == nil; got != want {
			t.Errorf("%s: allowed %v, want %v: %v", condition, got, want, err)
		}
	}
	_, err := iamClient(url, user).ListRoles(t.Context(), nil)
	wantError(t, err, "AccessDenied", "User: arn:aws:iam::"+spoke+":user/bob is not authorized to perform: iam:ListRoles")
}
