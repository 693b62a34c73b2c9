package wire

import "github.com/serval-bridge/serval-bridge/internal/serval"

// An AccessPolicy is an access policy in force. Those of the configuration file
// are tried first, in its order; then those made over the API by priority, the
// smaller first, and name.
type AccessPolicy struct {
	Name     string    `json:"name"`
	Roles    RoleMatch `json:"roles"`
	Eligible People    `json:"eligible"`
	Approval Approval  `json:"approval"`

	MaxMinutes           int  `json:"max_minutes"`
	MaxTotalMinutes      int  `json:"max_total_minutes"`   // 0: three times MaxMinutes
	RecommendedMinutes   int  `json:"recommended_minutes"` // 0: none
	RequireJustification bool `json:"require_justification"`
	AllowSelfApproval    bool `json:"allow_self_approval"`
	AllowChaining        bool `json:"allow_chaining"`
	BreakGlass           bool `json:"break_glass"`
	SuspendOnEscalation  bool `json:"suspend_on_escalation"`

	Priority  int    `json:"priority"`
	Source    string `json:"source"` // file or api
	Digest    string `json:"digest"`
	CreatedAt Time   `json:"created_at"`
	ChangedAt Time   `json:"changed_at"`
}

// A RoleMatch says which roles: all that are given must match.
type RoleMatch struct {
	Accounts []string          `json:"accounts"`
	ARNs     []string          `json:"arns"`
	Tags     map[string]string `json:"tags"`
}

// An AccessPolicies is a page of the access policies, in the order in which they
// are tried.
type AccessPolicies struct {
	AccessPolicies []AccessPolicy `json:"access_policies"`
	NextPageToken  string         `json:"next_page_token"`
}

// A NewAccessPolicy is the body of POST /access-policies and of PUT
// /access-policies/{name}. Without a priority a new one gets 100, and one that is
// changed keeps its own.
type NewAccessPolicy struct {
	serval.AccessPolicy
	Priority *int `json:"priority,omitempty"`
}

// An Explanation answers GET /access/explain: why may somebody have a role, or
// why not.
type Explanation struct {
	May      bool              `json:"may"`
	Why      string            `json:"why"`
	Person   ExplainedPerson   `json:"person"`
	Role     ExplainedRole     `json:"role"`
	Policies []ExplainedPolicy `json:"policies"` // every one, in the order in which they are tried
	Trust    *Trust            `json:"trust"`    // null where person or role is not known
	Blocked  string            `json:"blocked"`  // why no session is opened with the role, whoever asks; empty where one is
}

// An ExplainedPerson is whom the question is about, as last signed in.
type ExplainedPerson struct {
	Email       string   `json:"email"`
	Known       bool     `json:"known"`      // has signed in
	Identities  int      `json:"identities"` // how many have with this email
	Suspended   string   `json:"suspended"`
	Groups      []string `json:"groups"`
	GroupsAt    Time     `json:"groups_at"`
	GroupsFresh bool     `json:"groups_fresh"` // young enough for a decision
	GroupsNote  string   `json:"groups_note"`  // why they are not known
}

// An ExplainedRole is the role that the question is about.
type ExplainedRole struct {
	ARN              string `json:"arn"`
	AccountID        string `json:"account_id"`
	AccountConnected bool   `json:"account_connected"`
	State            string `json:"state"` // listed, stale, held, removed or unknown
	Reason           string `json:"reason"`
	Since            Time   `json:"since"`
}

// An ExplainedPolicy is what one policy says. Miss is the first reason for which
// it does not match: account, arn, tag, group, email or nothing; empty where it
// does.
type ExplainedPolicy struct {
	Name       string   `json:"name"`
	Matches    bool     `json:"matches"`
	Decides    bool     `json:"decides"`
	Miss       string   `json:"miss"`
	Reason     string   `json:"reason"`
	MaxMinutes int      `json:"max_minutes"`
	Approval   Approval `json:"approval"`
}
