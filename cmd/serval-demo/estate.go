package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/connect"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
)

// The accounts of the demo: the worker's own, and four that are connected.
const (
	hubAccount     = "999988887777"
	prodAccount    = "111122223333"
	stagingAccount = "444455556666"
	sandboxAccount = "123456789012"
	// workshopAccount has a role of each common mistake.
	workshopAccount = "210987654321"
)

// The people who can sign in.
const (
	requester = "requester@example.com"
	approver  = "approver@example.com"
	admin     = "admin@example.com"
)

func people() []idptest.Person {
	return []idptest.Person{
		{Subject: "demo-requester", Name: "Requester", Email: requester, EmailVerified: true,
			Groups: []string{"engineering"}, Title: "An engineer who needs a role now and then"},
		{Subject: "demo-approver", Name: "Approver", Email: approver, EmailVerified: true,
			Groups: []string{"engineering", "sre-leads"}, Title: "Decides on production access"},
		{Subject: "demo-admin", Name: "Admin", Email: admin, EmailVerified: true,
			Groups: []string{"serval-admins", "security"}, Title: "Connects accounts and reads the audit log"},
	}
}

// clientID is the bridge's at the identity provider, and the audience that the
// accounts' OIDC providers know.
const clientID = "serval-demo"

// An account of the demo, with its roles.
type account struct {
	id, name string
	roles    []role
}

// A role of the demo. Tag is the tag key it carries; empty for none.
type role struct {
	name, path, description string
	hours                   int32 // of its maximum session duration
	tag                     string
	tags                    map[string]string
	attached                []string          // names of AWS-managed policies
	inline                  map[string]string // documents
	service                 string            // a service that the trust is for, and not people
	mistake                 *mistake          // in its trust policy; nil for none
}

func estate() []account {
	team := func(t string) map[string]string { return map[string]string{"team": t} }
	workshop := account{id: workshopAccount, name: "workshop"}
	for _, m := range mistakes() {
		workshop.roles = append(workshop.roles, role{name: m.role, description: m.description, hours: 4, tag: "serval",
			tags: team("everyone"), attached: []string{"ReadOnlyAccess"}, mistake: &m})
	}
	return []account{
		{prodAccount, "prod", []role{
			{name: "prod-readonly", description: "Look at everything in production, change nothing", hours: 4, tag: "serval", tags: team("platform"), attached: []string{"ReadOnlyAccess"}},
			{name: "prod-oncall", description: "Restart and scale services during an incident", hours: 2, tag: "serval", tags: team("platform"), inline: oncall()},
			{name: "prod-database-operator", description: "Operate the production databases", hours: 1, tag: "serval", tags: team("data"), inline: databases()},
			{name: "prod-payments-support", path: "/payments/", description: "Answer payment tickets", hours: 8, tag: "serval", tags: team("payments"), inline: payments()},
			{name: "prod-admin", description: "Everything in production; for emergencies", hours: 1, tag: "serval", tags: team("platform"), attached: []string{"AdministratorAccess"}},
			{name: "prod-security-audit", description: "Review configuration and access", hours: 12, tag: "serval", tags: team("security"), attached: []string{"SecurityAudit"}},
			{name: "prod-billing", description: "Invoices and cost reports", hours: 4, tag: "Serval", tags: team("finance"), inline: billing()},
			{name: "prod-web-instance", description: "What the web servers run as", service: "ec2.amazonaws.com", inline: payments()},
			{name: "prod-deploy-pipeline", description: "What the pipeline deploys with", service: "codebuild.amazonaws.com", attached: []string{"PowerUserAccess"}},
		}},
		{stagingAccount, "staging", []role{
			{name: "staging-developer", description: "Build and debug in staging", hours: 12, tag: "serval", tags: team("platform"), attached: []string{"PowerUserAccess"}},
			{name: "staging-readonly", description: "Look at everything in staging", hours: 12, tag: "serval", tags: team("platform"), attached: []string{"ReadOnlyAccess"}},
			{name: "staging-database-operator", description: "Operate the staging databases", hours: 4, tag: "serval", tags: team("data"), inline: databases()},
			{name: "staging-load-test", path: "/tests/", description: "Run load tests against staging", hours: 6, tag: "serval", tags: team("quality"), inline: oncall()},
			{name: "staging-data-science", description: "Query the anonymised copies", hours: 8, tag: "serval", tags: team("data"), inline: queries()},
			{name: "staging-cache-warmer", description: "What the cache warmer runs as", service: "lambda.amazonaws.com", inline: queries()},
			{name: "staging-web-instance", description: "What the web servers run as", service: "ec2.amazonaws.com", inline: payments()},
		}},
		{sandboxAccount, "sandbox", []role{
			{name: "sandbox-admin", description: "Try anything; wiped every Sunday", hours: 12, tag: "serval", tags: team("everyone"), attached: []string{"AdministratorAccess"}},
			{name: "sandbox-readonly", description: "Look around in the sandbox", hours: 12, tag: "serval", tags: team("everyone"), attached: []string{"ReadOnlyAccess"}},
			{name: "sandbox-machine-learning", path: "/research/", description: "Train and serve models", hours: 12, tag: "serval", tags: team("research"), inline: models()},
			{name: "sandbox-networking", description: "Networks, routes and firewalls", hours: 4, tag: "serval", tags: team("platform"), inline: networks()},
			{name: "sandbox-training", description: "For workshops", hours: 8, tag: "serval ", tags: team("everyone"), attached: []string{"ReadOnlyAccess"}},
			{name: "sandbox-scheduler", description: "What the clean-up runs as", service: "lambda.amazonaws.com", attached: []string{"AdministratorAccess"}},
			{name: "sandbox-notebook", description: "What notebooks run as", service: "sagemaker.amazonaws.com", inline: models()},
			{name: "sandbox-build", description: "What builds run as", service: "codebuild.amazonaws.com", attached: []string{"PowerUserAccess"}},
		}},
		workshop,
	}
}

// policy returns the document that allows actions on everything.
func policy(actions ...string) string {
	return document(map[string]any{"Effect": "Allow", "Action": actions, "Resource": "*"})
}

// document returns a policy document of statements.
func document(statements ...map[string]any) string {
	text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		panic("serval-demo: a policy: " + err.Error()) // maps of strings
	}
	return string(text)
}

func oncall() map[string]string {
	return map[string]string{"operate": policy("ecs:UpdateService", "ecs:Describe*", "autoscaling:SetDesiredCapacity", "cloudwatch:GetMetricData", "logs:FilterLogEvents", "iam:ListRoles")}
}

func databases() map[string]string {
	return map[string]string{"databases": policy("rds:Describe*", "rds:RebootDBInstance", "rds:CreateDBSnapshot")}
}

func payments() map[string]string {
	return map[string]string{"tickets": policy("dynamodb:GetItem", "dynamodb:Query", "s3:GetObject")}
}

func billing() map[string]string {
	return map[string]string{"billing": policy("ce:Get*", "cur:DescribeReportDefinitions")}
}

func queries() map[string]string {
	return map[string]string{"queries": policy("athena:StartQueryExecution", "athena:GetQueryResults", "s3:GetObject", "glue:GetTable")}
}

func models() map[string]string {
	return map[string]string{"models": policy("sagemaker:*", "s3:GetObject", "s3:PutObject")}
}

func networks() map[string]string {
	return map[string]string{"networks": policy("ec2:*Vpc*", "ec2:*Route*", "ec2:*SecurityGroup*", "ec2:Describe*")}
}

// ingestionRole is the role that the worker assumes in each account.
const ingestionRole = "serval-ingestion"

// build puts the estate into the cloud: roles that trust the identity provider,
// an ingestion role in each account that trusts the worker's account with the
// External ID, and the worker's own role.
func build(cloud *awstest.Cloud, issuer, externalID string, now time.Time) {
	hub := cloud.AddAccount(hubAccount, "shared-services")
	hub.PutRole(awstest.Role{
		Name: "serval-worker", Description: "What the worker runs as, by EKS Pod Identity",
		Inline: map[string]string{"assume": policy("sts:AssumeRole", "sts:TagSession")},
	})
	for n, a := range estate() {
		in := cloud.AddAccount(a.id, a.name)
		in.PutOIDCProvider(issuer, clientID)
		in.PutRole(awstest.Role{
			Name: ingestionRole, Description: "What Serval reads roles with",
			Trust:  connect.TrustPolicy("aws", hubAccount, externalID),
			Inline: map[string]string{"serval-ingestion": connect.PermissionPolicy()},
		})
		if a.id == stagingAccount { // in the others the worker is refused
			in.SetInline(ingestionRole, "provider", policy("iam:GetOpenIDConnectProvider"))
		}
		for i, r := range a.roles {
			in.PutRole(awstest.Role{
				Name: r.name, Path: r.path, Description: r.description, MaxSessionDuration: max(r.hours, 1) * 3600,
				Tags: r.allTags(), Trust: r.trust(a.id, issuer), Inline: r.inline, Attached: r.policies(),
				Created: now.AddDate(0, -n-1, -i), LastUsed: now.AddDate(0, 0, -i),
			})
		}
	}
}

func (r role) allTags() map[string]string {
	tags := map[string]string{}
	for k, v := range r.tags {
		tags[k] = v
	}
	if r.tag != "" {
		tags[r.tag] = ""
	}
	return tags
}

func (r role) policies() (arns []string) {
	for _, name := range r.attached {
		arns = append(arns, "arn:aws:iam::aws:policy/"+name)
	}
	return arns
}

func (r role) trust(accountID, issuer string) string {
	if r.service != "" {
		return document(map[string]any{"Effect": "Allow", "Principal": map[string]any{"Service": r.service}, "Action": "sts:AssumeRole"})
	}
	_, name, _ := strings.Cut(issuer, "://") // as IAM names providers: without the scheme
	if r.mistake != nil {
		return r.mistake.trust(accountID, name)
	}
	return document(map[string]any{
		"Effect":    "Allow",
		"Principal": map[string]any{"Federated": "arn:aws:iam::" + accountID + ":oidc-provider/" + name},
		"Action":    "sts:AssumeRoleWithWebIdentity",
		"Condition": map[string]any{"StringEquals": map[string]any{name + ":aud": clientID}},
	})
}

// configuration returns the bridge's configuration file.
func configuration(tokenFile string) string {
	text := "# What a configuration file looks like: accounts, and who may have what.\nteam: demo\naccounts:\n"
	for _, a := range estate() {
		text += fmt.Sprintf("  - {id: %q, name: %s, role_arn: \"arn:aws:iam::%s:role/%s\"}\n", a.id, a.name, a.id, ingestionRole)
	}
	return text + fmt.Sprintf(`access_policies:
  - name: sandbox-for-everyone
    roles: {accounts: [%q, %q]}
    eligible: {groups: [engineering]}
    approval: {automatic: true}
    max_minutes: 480
    recommended_minutes: 120
  - name: staging-for-engineers
    roles: {accounts: [%q]}
    eligible: {groups: [engineering]}
    approval: {automatic: true}
    max_minutes: 480
    recommended_minutes: 60
    require_justification: true
  - name: production-with-approval
    roles: {accounts: [%q]}
    eligible: {groups: [engineering]}
    approval: {steps: [{groups: [sre-leads]}]}
    max_minutes: 240
    recommended_minutes: 60
    require_justification: true
admins: {groups: [serval-admins]}
auditors: {groups: [security]}
upstream_tokens:
  - {name: demo-worker, accounts: [%q, %q, %q, %q], secret_file: %q}
`, sandboxAccount, workshopAccount, stagingAccount, prodAccount, prodAccount, stagingAccount, sandboxAccount, workshopAccount, tokenFile)
}
