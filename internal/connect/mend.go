package connect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Paste is a text that mends something, and where it belongs.
type Paste struct {
	Title  string
	Format string // json, terraform, yaml or shell
	Text   string
}

// Mends returns the texts that mend what a check of the account found, with the
// account's own values; none where nothing is to be pasted. The trusted account
// is the one that assumes the account's roles; where it is not known, nothing
// that needs it is offered.
func Mends(f serval.Finding, a serval.Account, trustedAccount string) []Paste {
	hop := hopOf(f.Target, a, trustedAccount)
	var out []Paste
	add := func(p Paste) {
		if p.Text != "" && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, c := range f.Causes {
		switch c {
		case serval.CauseNoRole:
			if hop.ingestion {
				add(hop.terraform())
			}
		case serval.CauseTrustedAccount, serval.CauseExternalID, serval.CauseExternalIDOpen, serval.CauseTagSessionTrust:
			add(hop.trust())
		case serval.CauseWorkerPolicy, serval.CauseTagSessionWorker:
			add(Paste{"Policy of who assumes " + hop.arn, "json", AssumePolicy(hop.arn)})
		case serval.CauseActionsDenied, serval.CauseRetiredActions:
			add(permissions(f, a))
		case serval.CausePackedPolicy:
			add(Paste{"The worker's Pod Identity association, without session tags", "shell",
				"aws eks update-pod-identity-association --cluster-name CLUSTER --association-id ASSOCIATION_ID --disable-session-tags\n"})
		case serval.CauseMetadataHopLimit:
			add(Paste{"The instance's metadata options", "shell",
				"aws ec2 modify-instance-metadata-options --instance-id INSTANCE_ID --http-put-response-hop-limit 2 --http-tokens required --http-endpoint enabled\n"})
		case serval.CauseRegionDisabled:
			add(Paste{"The account in the configuration file, with a region that is turned on", "yaml", fmt.Sprintf("accounts:\n  - id: %s\n    sts: {region: us-east-1}\n", quote(a.ID))})
		}
	}
	return out
}

// A hop is one role on the way into an account, with what its trust policy must
// have.
type hop struct {
	arn, trusted, externalID string
	ingestion                bool // it is the last one
	account                  serval.Account
}

// hopOf finds the role that a finding is about; where it names none of the way,
// that is the ingestion role.
func hopOf(target string, a serval.Account, trusted string) hop {
	for _, via := range a.Via {
		if via.RoleARN == target {
			return hop{arn: target, trusted: trusted, externalID: via.ExternalID, account: a}
		}
		arn, err := serval.ParseRoleARN(via.RoleARN)
		if err != nil {
			return hop{arn: a.RoleARN, ingestion: true, account: a}
		}
		trusted = arn.AccountID
	}
	arn := a.RoleARN
	if a.WorkflowRoleARN != "" && target == a.WorkflowRoleARN {
		arn = target
	}
	return hop{arn: arn, trusted: trusted, externalID: a.ExternalID, ingestion: arn == a.RoleARN, account: a}
}

func (h hop) trust() Paste {
	if h.trusted == "" || h.externalID == "" {
		return Paste{}
	}
	arn, err := serval.ParseRoleARN(h.arn)
	if err != nil {
		return Paste{}
	}
	return Paste{"Trust policy of " + h.arn, "json", TrustPolicy(arn.Partition, h.trusted, h.externalID)}
}

func (h hop) terraform() Paste {
	arn, err := serval.ParseRoleARN(h.arn)
	if err != nil || h.trusted == "" {
		return Paste{}
	}
	r := Role{Partition: arn.Partition, TrustedAccount: h.trusted, ExternalID: h.externalID, Name: arn.Name, Path: arn.Path}
	if h.account.Name != "" {
		r.AccountID, r.AccountName = h.account.ID, h.account.Name
	}
	return Paste{"The role " + h.arn, "terraform", Terraform(r)}
}

// permissions returns the policy that has the actions a finding is about.
func permissions(f serval.Finding, a serval.Account) Paste {
	switch {
	case slices.Contains(f.Actions, serval.ListAccounts):
		return Paste{"A further policy of " + a.RoleARN, "json", allow([]string{serval.ListAccounts}, "*")}
	case slices.ContainsFunc(f.Actions, func(action string) bool { return slices.Contains(serval.WorkflowActions(), action) }):
		return Paste{"Policy of " + a.WorkflowRoleARN, "json", WorkflowPolicy(a.Partition, a.ID)}
	}
	return Paste{"Policy of " + a.RoleARN, "json", PermissionPolicy()}
}

// AssumePolicy returns what a worker's own role needs to assume a role.
func AssumePolicy(roleARN string) string {
	return allow([]string{"sts:AssumeRole", "sts:TagSession"}, roleARN)
}

// WorkflowPolicy returns the permissions of the role under which "Create AWS IAM
// Role" runs: what it makes is under /serval/ and bounded.
func WorkflowPolicy(partition, accountID string) string {
	return allow(serval.WorkflowActions(), fmt.Sprintf("arn:%s:iam::%s:role%s*", partition, accountID, serval.WorkflowPath))
}

func allow(actions []string, resource string) string {
	quoted := make([]string, len(actions))
	for i, action := range actions {
		quoted[i] = "        " + quote(action)
	}
	return fmt.Sprintf(`{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": [
%s
      ],
      "Resource": %s
    }
  ]
}
`, strings.Join(quoted, ",\n"), quote(resource))
}

// GrantTrust returns the trust policy of a role that people may be given: whoever
// bears an ID token of the issuer for the client may assume it.
func GrantTrust(partition, accountID, issuer, clientID string) string {
	_, provider, _ := strings.Cut(issuer, "://")
	return fmt.Sprintf(`{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Principal": {
        "Federated": %s
      },
      "Action": "sts:AssumeRoleWithWebIdentity",
      "Condition": {
        "StringEquals": {
          %s: %s
        }
      }
    }
  ]
}
`, quote(fmt.Sprintf("arn:%s:iam::%s:oidc-provider/%s", partition, accountID, provider)), quote(provider+":aud"), quote(clientID))
}
