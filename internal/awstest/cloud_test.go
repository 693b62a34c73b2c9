package awstest_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/organizations"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
)

const (
	hub   = "111122223333"
	spoke = "444455556666"

	allowAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
)

// config is that of a client with the keys, which does not retry.
func config(k awstest.Keys) aws.Config {
	return aws.Config{
		Region:      "us-west-1",
		Credentials: credentials.NewStaticCredentialsProvider(k.AccessKeyID, k.SecretAccessKey, k.SessionToken),
		Retryer:     func() aws.Retryer { return aws.NopRetryer{} },
	}
}

func iamClient(url string, k awstest.Keys) *iam.Client {
	return iam.NewFromConfig(config(k), func(o *iam.Options) { o.BaseEndpoint = &url })
}

func stsClient(url string, k awstest.Keys) *sts.Client {
	return sts.NewFromConfig(config(k), func(o *sts.Options) { o.BaseEndpoint = &url })
}

func organizationsClient(url string, k awstest.Keys) *organizations.Client {
	return organizations.NewFromConfig(config(k), func(o *organizations.Options) { o.BaseEndpoint = &url })
}

// session returns keys from STS's answer.
func session(t *testing.T, out *sts.AssumeRoleOutput, err error) awstest.Keys {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	c := out.Credentials
	return awstest.Keys{AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken, Expiration: *c.Expiration}
}

// code is that of an AWS error, "" for none, and the error's text where AWS gave none.
func code(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return err.Error()
}

// wantError checks code and a part of the message; "" is success.
func wantError(t *testing.T, err error, wantCode, part string) {
	t.Helper()
	if got := code(err); got != wantCode {
		t.Fatalf("code %q, want %q: %v", got, wantCode, err)
	}
	if err != nil && !strings.Contains(err.Error(), part) {
		t.Fatalf("message %q, want it to contain %q", err, part)
	}
}

// estate is a cloud with a worker's role in the hub and an ingestion role in the spoke.
func estate(t *testing.T) (c *awstest.Cloud, url string, worker awstest.Keys) {
	c = awstest.New(awstest.Options{})
	c.AddAccount(hub, "Hub").PutRole(awstest.Role{Name: "worker", Inline: map[string]string{"hop": allowAll}})
	c.AddAccount(spoke, "Spoke").PutRole(awstest.Role{
		Name: "ingest", Path: "/serval/",
		Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + hub + `:root"},
			"Action":["sts:AssumeRole","sts:TagSession"],"Condition":{"StringEquals":{"sts:ExternalId":"right"}}}]}`,
		Inline: map[string]string{"read": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:List*","iam:Get*"],"Resource":"*"}]}`},
	})
	return c, c.Start(t), c.Account(hub).Session("worker", "w", 3600e9)
}

func TestWorkerReadsAnotherAccount(t *testing.T) {
	c, url, worker := estate(t)
	ctx := context.Background()
	arn := c.Account(spoke).RoleARN("ingest")
	out, err := stsClient(url, worker).AssumeRole(ctx, &sts.AssumeRoleInput{
		RoleArn: &arn, RoleSessionName: aws.String("serval-worker"), ExternalId: aws.String("right"), DurationSeconds: aws.Int32(900),
	})
	keys := session(t, out, err)
	if want := "arn:aws:sts::" + spoke + ":assumed-role/ingest/serval-worker"; *out.AssumedRoleUser.Arn != want {
		t.Errorf("AssumedRoleUser.Arn %s, want %s", *out.AssumedRoleUser.Arn, want)
	}
	who, err := stsClient(url, keys).GetCallerIdentity(ctx, nil)
	if err != nil || *who.Account != spoke {
		t.Fatalf("caller identity %+v, %v; want account %s", who, err, spoke)
	}
	c.Account(spoke).PutRole(awstest.Role{
		Name: "admin", Description: "A & B", MaxSessionDuration: 7200, Tags: map[string]string{"serval": ""},
		Inline:   map[string]string{"a+b": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::a+b c%20/*"}]}`},
		Attached: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}, PermissionsBoundary: "arn:aws:iam::aws:policy/PowerUserAccess",
	})
	client := iamClient(url, keys)
	roles, err := client.ListRoles(ctx, &iam.ListRolesInput{})
	if err != nil || len(roles.Roles) != 2 || *roles.Roles[0].RoleName != "admin" {
		t.Fatalf("roles %+v, %v; want admin and ingest", roles, err)
	}
	if r := roles.Roles[0]; len(r.Tags) > 0 || r.PermissionsBoundary != nil || r.RoleLastUsed != nil || *r.MaxSessionDuration != 7200 {
		t.Errorf("listed role %+v: wants neither tags nor boundary nor last use", r)
	}
	role, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("admin")})
	if err != nil || len(role.Role.Tags) != 1 || *role.Role.Tags[0].Key != "serval" || *role.Role.Description != "A & B" {
		t.Fatalf("role %+v, %v; want one tag", role, err)
	}
	p, err := client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: aws.String("admin"), PolicyName: aws.String("a+b")})
	if err != nil || !strings.Contains(*p.PolicyDocument, "a%2Bb%20c%2520%2F%2A") {
		t.Fatalf("inline policy %+v, %v; want it percent-encoded", p, err)
	}
	if n := c.CountCalls("GetRole"); n != 1 {
		t.Errorf("%d calls of GetRole, want 1", n)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	c := awstest.New(awstest.Options{})
	res, err := http.Post(c.Start(t), "application/x-www-form-urlencoded", strings.NewReader(strings.Repeat("a", 1<<20+1)))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d for more than 1 MiB, want 413", res.StatusCode)
	}
}
