package serval

import (
	"fmt"
	"strings"
	"time"
)

// A CheckName is what is checked. Its text is what people read.
type CheckName string

// The checks there are.
const (
	CheckConnection   CheckName = "Test AWS Connection"
	CheckOrganization CheckName = "List accounts"
)

// The outcomes of checks, exactly as they are shown.
const (
	TextConnected   = "Successfully authenticated with AWS"
	TextNotAssumed  = "Unable to authenticate with AWS. Please verify your cross-account role ARN and external ID are correct."
	TextNoListRoles = "Connection successful, but IAM role lacks iam:ListRoles permission."

	// Not in the product's table: the listing failed, and not for want of leave.
	TextListFailed  = "Connection successful, but AWS did not list the roles."
	TextListedOther = "AWS listed a role of another account. Nothing of it was taken over."

	TextNoOrganizations = "Unable to access AWS Organizations. Ensure the IAM role has organizations:ListAccounts permission."
	TextNoListAccounts  = "Connection successful, but IAM role lacks organizations:ListAccounts permission."
	TextNoOrganization  = "This AWS account is not part of an AWS Organization."
)

// TextAccountsListed returns the text of a list of n accounts.
func TextAccountsListed(n int) string {
	return fmt.Sprintf("Successfully retrieved %d accounts from AWS Organizations", n)
}

// Texts returns the texts that a check which does not pass can have.
func (n CheckName) Texts() []string {
	if n == CheckOrganization {
		return []string{TextNoOrganizations, TextNoListAccounts, TextNoOrganization}
	}
	return []string{TextNotAssumed, TextNoListRoles, TextListFailed, TextListedOther}
}

// ListAccounts is the action that "List accounts" needs.
const ListAccounts = "organizations:ListAccounts"

// A Check is what came of a check of one account.
type Check struct {
	Name      CheckName `json:"name"`
	AccountID string    `json:"account_id"`
	At        time.Time `json:"at"`
	Passed    bool      `json:"passed"`
	Text      string    `json:"text"`     // exact
	Findings  []Finding `json:"findings"` // below it
	// Identity is the ARN that assumes the account's role; empty where it is not
	// known.
	Identity string `json:"identity"`
	// Accounts are those of the organization, where they were listed.
	Accounts []OrganizationAccount `json:"accounts,omitempty"`
}

// TrustedAccount returns the account that the identity is of, which trust
// policies must name; empty where it is not known.
func (c Check) TrustedAccount() string {
	parts := strings.SplitN(c.Identity, ":", 6)
	if len(parts) != 6 {
		return ""
	}
	if _, err := ParseAccountID(parts[4]); err != nil {
		return ""
	}
	return parts[4]
}

// A Finding is one thing that a check found: why it failed, or what should be
// otherwise.
type Finding struct {
	// Causes it may be. Where AWS's answer does not tell several apart they are
	// all here, and the text says so; none of them is asserted.
	Causes []Cause `json:"causes"`
	Text   string  `json:"text"`
	Target string  `json:"target"` // the ARN it is about; may be empty
	// Actions it is about: those denied, or those granted for nothing.
	Actions []string `json:"actions"`
	Code    string   `json:"code"` // AWS's, or one of the reader's own; may be empty
}

// A Cause is a known reason why a check does not pass, or a thing found besides.
type Cause string

// The known causes.
const (
	CauseNoCredentials    Cause = "no_credentials"     // the worker has none
	CauseMetadataHopLimit Cause = "metadata_hop_limit" // perhaps, where instance metadata gives none
	CauseNoRole           Cause = "role_missing"
	CauseTrustedAccount   Cause = "trusted_account"          // the trust policy names another
	CauseExternalID       Cause = "external_id"              // the trust policy asks for another
	CauseExternalIDOpen   Cause = "external_id_not_required" // the role can be assumed without it, or with any
	CauseTagSessionTrust  Cause = "tag_session_trust"        // sts:TagSession is missing in the trust policy
	CauseTagSessionWorker Cause = "tag_session_worker"       // … in the policy of who assumes the role
	CauseSourceIdentity   Cause = "source_identity"
	CauseWorkerPolicy     Cause = "worker_policy" // the policy of who assumes the role does not allow it
	CauseExplicitDeny     Cause = "explicit_deny"
	CauseRegionDisabled   Cause = "region_disabled"
	CauseClockSkew        Cause = "clock_skew"
	CausePackedPolicy     Cause = "packed_policy"
	CauseEgress           Cause = "egress"
	CauseTLS              Cause = "tls"
	CauseIntercepted      Cause = "intercepted" // something answers in AWS's place
	CauseWrongAccount     Cause = "wrong_account"
	CauseWrongKey         Cause = "wrong_key" // AWS does not know the worker's access key
	CauseExpired          Cause = "expired"
	CauseThrottled        Cause = "throttled"
	CauseSettings         Cause = "settings"       // the account's settings, or its partition
	CauseActionsDenied    Cause = "actions_denied" // of those an ingestion role needs
	CauseRetiredActions   Cause = "retired_actions"
	CauseNotManagement    Cause = "not_management_account"
	CauseNoOrganization   Cause = "no_organization"
	CauseOther            Cause = "other"
)

// Causes returns all known causes: the same list for whoever shows them and for
// whoever takes them in.
func Causes() []Cause {
	return []Cause{
		CauseNoCredentials, CauseMetadataHopLimit, CauseNoRole, CauseTrustedAccount, CauseExternalID, CauseExternalIDOpen,
		CauseTagSessionTrust, CauseTagSessionWorker, CauseSourceIdentity, CauseWorkerPolicy, CauseExplicitDeny,
		CauseRegionDisabled, CauseClockSkew, CausePackedPolicy, CauseEgress, CauseTLS, CauseIntercepted, CauseWrongAccount,
		CauseWrongKey, CauseExpired, CauseThrottled, CauseSettings, CauseActionsDenied, CauseRetiredActions,
		CauseNotManagement, CauseNoOrganization, CauseOther,
	}
}

// An OrganizationAccount is an account that AWS Organizations lists.
type OrganizationAccount struct {
	ID     string `json:"account_id"`
	Name   string `json:"name"`
	Status string `json:"status"` // as AWS says it, such as ACTIVE or SUSPENDED
}

// RetiredActions returns the actions that older setup guides asked for and
// nobody needs: tags come with iam:GetRole.
func RetiredActions() []string {
	return []string{
		"iam:ListRoleTags",
		"rds:DescribeDBInstances",
		"rds:DescribeDBClusters",
		"ec2:DescribeInstances",
		"eks:DescribeCluster",
		"eks:ListClusters",
	}
}
