package awstest_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
)

func TestListRolesPages(t *testing.T) {
	const many = 2500
	c, a, keys := admin(t, awstest.Options{})
	for n := range many {
		a.PutRole(awstest.Role{Name: fmt.Sprintf("role-%05d", n), Path: []string{"/", "/team/"}[n%2]})
	}
	client := iamClient(c.Start(t), keys)
	tests := []struct {
		name  string
		in    iam.ListRolesInput
		short int
		pages int
		roles int
	}{
		{name: "default", pages: 25, roles: many},
		{name: "most", in: iam.ListRolesInput{MaxItems: aws.Int32(1000)}, pages: 3, roles: many},
		{name: "short pages", in: iam.ListRolesInput{MaxItems: aws.Int32(1000)}, short: 500, pages: 5, roles: many},
		{name: "path", in: iam.ListRolesInput{MaxItems: aws.Int32(1000), PathPrefix: aws.String("/team/")}, pages: 2, roles: many / 2},
		{name: "no such path", in: iam.ListRolesInput{PathPrefix: aws.String("/other/")}, pages: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c.ShortPages(tt.short)
			pages, last := 0, ""
			seen := make(map[string]bool)
			for p := iam.NewListRolesPaginator(client, &tt.in); p.HasMorePages(); pages++ {
				page, err := p.NextPage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range page.Roles {
					if *r.RoleName <= last {
						t.Fatalf("%s after %s", *r.RoleName, last)
					}
					last = *r.RoleName
					seen[last] = true
				}
				if page.Roles == nil {
					t.Error("a page without Roles: an empty list has the element too")
				}
			}
			if pages != tt.pages || len(seen) != tt.roles {
				t.Errorf("%d roles on %d pages, want %d on %d", len(seen), pages, tt.roles, tt.pages)
			}
		})
	}
	for name, in := range map[string]iam.ListRolesInput{
		"marker": {Marker: aws.String("x")}, "none": {MaxItems: aws.Int32(0)}, "too many": {MaxItems: aws.Int32(1001)}, "path": {PathPrefix: aws.String("team/")},
	} {
		_, err := client.ListRoles(t.Context(), &in)
		if code(err) != "ValidationError" {
			t.Errorf("%s: %v, want a ValidationError", name, err)
		}
	}
}

func TestRolesOfOneNameInTwoAccounts(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{})
	b := c.AddAccount(hub, "Hub")
	first := a.PutRole(awstest.Role{Name: "Admin", Description: "spoke"})
	other := b.PutRole(awstest.Role{Name: "Admin", Description: "hub"})
	client := iamClient(c.Start(t), keys)
	get := func() types.Role {
		t.Helper()
		out, err := client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("ADMIN")})
		if err != nil {
			t.Fatal(err)
		}
		return *out.Role
	}
	if r := get(); *r.RoleId != first || first == other || *r.Description != "spoke" {
		t.Errorf("role %s %s, want the caller's account's %s", *r.RoleId, *r.Description, first)
	}
	if again := a.PutRole(awstest.Role{Name: "Admin"}); again != first {
		t.Errorf("RoleId %s after a change in place, want %s still", again, first)
	}
	a.DeleteRole("Admin")
	if anew := a.PutRole(awstest.Role{Name: "Admin"}); anew == first || anew != *get().RoleId {
		t.Errorf("RoleId %s of a role made again, want a new one", anew)
	}
}

func TestReadingOneRole(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{})
	document := "{\n\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"s3:*\",\"Resource\":\"arn:aws:s3:::a+b c%20é~*/'()!\"}]}"
	arn := a.PutPolicy(awstest.Policy{Name: "custom", Path: "/team/", Document: allowAll})
	a.PutPolicy(awstest.Policy{Name: "custom", Path: "/team/", Document: document})
	used := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a.PutRole(awstest.Role{
		Name: "r", Inline: map[string]string{"two": document, "one": allowAll}, Attached: []string{arn, "arn:aws:iam::aws:policy/ReadOnlyAccess"},
		PermissionsBoundary: arn, Tags: map[string]string{"serval": "", "Team": "blue"}, LastUsed: used, Created: used,
	})
	a.TagRole("r", "team", "red")
	a.UntagRole("r", "none")
	client := iamClient(c.Start(t), keys)
	ctx := t.Context()

	role, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("r")})
	if err != nil {
		t.Fatal(err)
	}
	var tags []string
	for _, tag := range role.Role.Tags {
		tags = append(tags, *tag.Key+"="+*tag.Value)
	}
	if got := strings.Join(tags, " "); got != "Team=red serval=" {
		t.Errorf("tags %q, want Team=red serval=", got)
	}
	if r := role.Role; *r.PermissionsBoundary.PermissionsBoundaryArn != arn || !r.RoleLastUsed.LastUsedDate.Equal(used) || !r.CreateDate.Equal(used) {
		t.Errorf("role %+v", r)
	}

	names, err := client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: aws.String("r"), MaxItems: aws.Int32(1)})
	if err != nil || len(names.PolicyNames) != 1 || names.PolicyNames[0] != "one" || !names.IsTruncated {
		t.Fatalf("inline policies %+v, %v; want one of two", names, err)
	}
	rest, err := client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: aws.String("r"), Marker: names.Marker})
	if err != nil || len(rest.PolicyNames) != 1 || rest.PolicyNames[0] != "two" || rest.IsTruncated {
		t.Fatalf("inline policies %+v, %v; want the second", rest, err)
	}
	inline, err := client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: aws.String("r"), PolicyName: aws.String("two")})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := url.PathUnescape(*inline.PolicyDocument); err != nil || got != document || strings.ContainsAny(*inline.PolicyDocument, "+ ") {
		t.Errorf("document %q, %v; want it percent-encoded once", *inline.PolicyDocument, err)
	}

	attached, err := client.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: aws.String("r")})
	if err != nil || len(attached.AttachedPolicies) != 2 || *attached.AttachedPolicies[1].PolicyArn != arn {
		t.Fatalf("attached %+v, %v", attached, err)
	}
	policy, err := client.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: &arn})
	if err != nil || *policy.Policy.DefaultVersionId != "v2" || *policy.Policy.AttachmentCount != 1 || *policy.Policy.PermissionsBoundaryUsageCount != 1 {
		t.Fatalf("policy %+v, %v; want version v2, attached once", policy, err)
	}
	for id, want := range map[string]string{"v1": allowAll, "v2": document} {
		v, err := client.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: &id})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := url.PathUnescape(*v.PolicyVersion.Document); got != want || v.PolicyVersion.IsDefaultVersion != (id == "v2") {
			t.Errorf("%s is %q, default %v", id, got, v.PolicyVersion.IsDefaultVersion)
		}
	}

	for name, call := range map[string]func() error{
		"role": func() error {
			_, err := client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: aws.String("gone")})
			return err
		},
		"inline policy": func() error {
			_, err := client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: aws.String("r"), PolicyName: aws.String("gone")})
			return err
		},
		"policy": func() error {
			_, err := client.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: aws.String(arn + "-gone")})
			return err
		},
		"version": func() error {
			_, err := client.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: aws.String("v9")})
			return err
		},
	} {
		if err := call(); code(err) != "NoSuchEntity" {
			t.Errorf("missing %s: %v, want NoSuchEntity", name, err)
		}
	}
}

func TestAuthorizationDetails(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{})
	for n := range 7 {
		a.PutRole(awstest.Role{
			Name: fmt.Sprintf("r%d", n), Description: "unsaid", MaxSessionDuration: 7200, Tags: map[string]string{"serval": "x"},
			Inline: map[string]string{"p": allowAll}, Attached: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"},
		})
	}
	a.PutPolicy(awstest.Policy{Name: "custom", Document: allowAll})
	client := iamClient(c.Start(t), keys)
	read := func(in iam.GetAccountAuthorizationDetailsInput) (users, roles, policies []string) {
		t.Helper()
		for p := iam.NewGetAccountAuthorizationDetailsPaginator(client, &in); p.HasMorePages(); {
			page, err := p.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range page.UserDetailList {
				users = append(users, *u.UserName)
			}
			for _, r := range page.RoleDetailList {
				roles = append(roles, *r.RoleName)
				if len(r.Tags) != 1 || len(r.RolePolicyList) != 1 || len(r.AttachedManagedPolicies) != 1 {
					t.Errorf("role detail %+v: want its tag and policies", r)
				}
			}
			for _, p := range page.Policies {
				policies = append(policies, *p.PolicyName)
				if len(p.PolicyVersionList) != 1 || p.PolicyVersionList[0].Document == nil {
					t.Errorf("policy detail %+v: want its version", p)
				}
			}
		}
		return users, roles, policies
	}
	const all = "[admin] [r0 r1 r2 r3 r4 r5 r6] [custom ReadOnlyAccess]"
	for limit := range int32(13) {
		in := iam.GetAccountAuthorizationDetailsInput{MaxItems: aws.Int32(limit)}
		if limit == 0 {
			in.MaxItems = nil
		}
		users, roles, policies := read(in)
		if got := fmt.Sprint(users, roles, policies); got != all {
			t.Errorf("%d an answer: %s, want %s", limit, got, all)
		}
	}
	for filter, want := range map[types.EntityType]string{
		types.EntityTypeRole:               "[] [r0 r1 r2 r3 r4 r5 r6] []",
		types.EntityTypeLocalManagedPolicy: "[] [] [custom]",
		types.EntityTypeAWSManagedPolicy:   "[] [] [ReadOnlyAccess]",
		types.EntityTypeGroup:              "[] [] []",
	} {
		users, roles, policies := read(iam.GetAccountAuthorizationDetailsInput{Filter: []types.EntityType{filter}, MaxItems: aws.Int32(3)})
		if got := fmt.Sprint(users, roles, policies); got != want {
			t.Errorf("only %s: %s, want %s", filter, got, want)
		}
	}
}

func TestCreateRole(t *testing.T) {
	c, a, _ := admin(t, awstest.Options{})
	keys := a.PutUser("installer", `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"iam:CreateRole","Resource":"arn:aws:iam::*:role/serval/*","Condition":{"StringEquals":{"iam:PermissionsBoundary":"arn:aws:iam::aws:policy/PowerUserAccess"}}},
		{"Effect":"Allow","Action":["iam:PutRolePolicy","iam:GetRole"],"Resource":"arn:aws:iam::*:role/serval/*"},
		{"Effect":"Allow","Action":"iam:TagRole","Resource":"arn:aws:iam::*:role/serval/*","Condition":{"ForAllValues:StringEquals":{"aws:TagKeys":"serval"}}}]}`)
	client := iamClient(c.Start(t), keys)
	good := func() *iam.CreateRoleInput {
		return &iam.CreateRoleInput{
			RoleName: aws.String("new"), Path: aws.String("/serval/"), AssumeRolePolicyDocument: aws.String(trustOf(`{"AWS":"`+hub+`"}`, "sts:AssumeRole")),
			PermissionsBoundary: aws.String("arn:aws:iam::aws:policy/PowerUserAccess"),
			Tags:                []types.Tag{{Key: aws.String("serval"), Value: aws.String("")}},
		}
	}
	tests := []struct {
		name   string
		change func(*iam.CreateRoleInput)
		code   string
		part   string
	}{
		{"other path", func(in *iam.CreateRoleInput) { in.Path = nil }, "AccessDenied", "iam:CreateRole on resource: arn:aws:iam::" + spoke + ":role/new"},
		{"no boundary", func(in *iam.CreateRoleInput) { in.PermissionsBoundary = nil }, "AccessDenied", "iam:CreateRole"},
		{"other tag", func(in *iam.CreateRoleInput) { in.Tags[0].Key = aws.String("x") }, "AccessDenied", "iam:TagRole"},
		{"malformed trust", func(in *iam.CreateRoleInput) { in.AssumeRolePolicyDocument = aws.String("{}x") }, "MalformedPolicyDocument", ""},
		{"too long a session", func(in *iam.CreateRoleInput) { in.MaxSessionDuration = aws.Int32(43201) }, "ValidationError", "maxSessionDuration"},
		{"good", func(*iam.CreateRoleInput) {}, "", ""},
		{"again", func(*iam.CreateRoleInput) {}, "EntityAlreadyExists", "new"},
		{"again in other letters", func(in *iam.CreateRoleInput) { in.RoleName = aws.String("NEW") }, "EntityAlreadyExists", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := good()
			tt.change(in)
			out, err := client.CreateRole(t.Context(), in)
			wantError(t, err, tt.code, tt.part)
			if err == nil && *out.Role.RoleId != a.RoleID("new") {
				t.Errorf("RoleId %s, want %s", *out.Role.RoleId, a.RoleID("new"))
			}
		})
	}
	_, err := client.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("new"), PolicyName: aws.String("p"), PolicyDocument: aws.String(allowAll)})
	wantError(t, err, "", "")
	_, err = client.TagRole(t.Context(), &iam.TagRoleInput{RoleName: aws.String("new"), Tags: []types.Tag{{Key: aws.String("serval"), Value: aws.String("y")}}})
	wantError(t, err, "", "")
	out, err := client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("new")})
	if err != nil || len(out.Role.Tags) != 1 || *out.Role.Tags[0].Value != "y" {
		t.Errorf("role %+v, %v; want the tag serval=y", out, err)
	}
}

func TestOIDCProviders(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{})
	arn := a.PutOIDCProvider("https://login.example.com/oauth2/x", "client")
	client := iamClient(c.Start(t), keys)
	list, err := client.ListOpenIDConnectProviders(t.Context(), &iam.ListOpenIDConnectProvidersInput{})
	if err != nil || len(list.OpenIDConnectProviderList) != 1 || *list.OpenIDConnectProviderList[0].Arn != arn {
		t.Fatalf("providers %+v, %v; want %s", list, err, arn)
	}
	p, err := client.GetOpenIDConnectProvider(t.Context(), &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: &arn})
	if err != nil || *p.Url != "login.example.com/oauth2/x" || len(p.ClientIDList) != 1 {
		t.Errorf("provider %+v, %v", p, err)
	}
}

// TestLargeAccount reads 5,000 roles while others change them.
func TestLargeAccount(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{})
	const many = 5_000
	for n := range many {
		a.PutRole(awstest.Role{Name: fmt.Sprintf("role-%05d", n), Attached: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}})
	}
	client := iamClient(c.Start(t), keys)
	start := time.Now()
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			seen := 0
			for p := iam.NewListRolesPaginator(client, &iam.ListRolesInput{MaxItems: aws.Int32(1000)}); p.HasMorePages(); {
				page, err := p.NextPage(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				seen += len(page.Roles)
			}
			if seen < many {
				t.Errorf("%d roles, want at least %d", seen, many)
			}
		})
	}
	group.Go(func() {
		for n := range 100 {
			a.PutRole(awstest.Role{Name: fmt.Sprintf("zebra-%d", n)})
			a.TagRole("role-00001", "serval", "x")
			_, _ = client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("role-00001")})
		}
	})
	group.Wait()
	t.Logf("twice %d roles and 100 changes in %v", many, time.Since(start))
}
