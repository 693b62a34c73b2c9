// Package wire holds every JSON shape of the HTTP API, once: what the bridge
// answers, what the worker pushes and what a client sends. Times are RFC 3339
// in UTC; what is not known is null or empty, never absent.
//
// The shapes of an inventory and of a role in it are the dictionary's own
// (serval.Inventory, serval.Role): they are what is digested and compared.
// Here is only how they stream.
package wire

import (
	"fmt"
	"io"
	"time"
)

// An Error is the body of every refused request.
type Error struct {
	Code    string            `json:"code"`
	Message string            `json:"message"`
	Detail  map[string]string `json:"detail"`
}

// Me is who is signed in.
type Me struct {
	ID       string   `json:"id"`
	Email    string   `json:"email"`
	Groups   []string `json:"groups"`
	GroupsAt Time     `json:"groups_at"`
	Admin    bool     `json:"admin"`
	Auditor  bool     `json:"auditor"`
	LoginID  string   `json:"login_id"`
	// LoginEndsAt is when the login ends by itself; IDTokenEndsAt when opening
	// a session needs a new sign-in.
	LoginEndsAt   Time   `json:"login_ends_at"`
	IDTokenEndsAt Time   `json:"id_token_ends_at"`
	Suspended     string `json:"suspended"`
	GroupsNote    string `json:"groups_note"` // why groups are missing; empty where they are not
}

// A Time is an instant or null.
type Time struct{ time.Time }

// MarshalJSON writes RFC 3339 in UTC, or null for the zero time.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return t.UTC().MarshalJSON()
}

// UnmarshalJSON reads RFC 3339 or null.
func (t *Time) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		t.Time = time.Time{}
		return nil
	}
	return t.Time.UnmarshalJSON(data)
}

// A Role is a role in the catalogue of the person who asks.
type Role struct {
	ARN               string            `json:"arn"`
	RoleID            string            `json:"role_id"`
	AccountID         string            `json:"account_id"`
	AccountName       string            `json:"account_name"`
	Name              string            `json:"name"`
	Description       string            `json:"description"`
	MaxSessionSeconds int               `json:"max_session_seconds"`
	Tags              map[string]string `json:"tags"`
	Policy            string            `json:"policy"` // name of the access policy that decides
	Trust             Trust             `json:"trust"`
	Completeness      string            `json:"completeness"` // complete or incomplete
	StaleSince        Time              `json:"stale_since"`
	StaleReason       string            `json:"stale_reason"`
	Held              bool              `json:"held"`
	Blocked           string            `json:"blocked"` // why no session is opened for now; empty where one is
	MyRequest         *Request          `json:"my_request"`

	Entitlement          Entitlement `json:"entitlement"`
	MaxMinutes           int         `json:"max_minutes"`
	RecommendedMinutes   int         `json:"recommended_minutes"`
	RequireJustification bool        `json:"require_justification"`
	BreakGlass           bool        `json:"break_glass"`
	Approval             Approval    `json:"approval"`

	// Marks are the kinds of what is dangerous that the role can do, the gravest
	// first; MarksAtLeast says that not all of it could be looked at, or nothing
	// was yet.
	Marks        []string `json:"marks"`
	MarksAtLeast bool     `json:"marks_at_least"`
	LastUsedAt   Time     `json:"last_used_at"`

	// Insight is there when one role is asked for, and null in lists.
	Insight *Insight `json:"insight"`
	// Documents is there when one role is asked for, and null in lists.
	Documents *Documents `json:"documents"`
}

// An Entitlement is what can be requested of a role.
type Entitlement struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// Approval says who will be asked.
type Approval struct {
	Automatic bool     `json:"automatic"`
	Steps     []People `json:"steps"`
}

// People are groups and emails.
type People struct {
	Groups []string `json:"groups"`
	Emails []string `json:"emails"`
}

// Trust says whether the role's trust policy accepts the person who asks:
// works, fails or unknown, and why. It is about the trust policy; NotChecked
// names what could still refuse.
type Trust struct {
	Verdict    string   `json:"verdict"`
	Reason     string   `json:"reason"`
	Statement  string   `json:"statement"`
	Condition  string   `json:"condition"`
	NotChecked []string `json:"not_checked"`
	Mend       *Mend    `json:"mend"` // null where nothing has to be mended, or nothing can
	// Provider is what the account of the role lacks; absent where nothing is known to be lacking.
	Provider *Lack `json:"provider,omitempty"`
}

// A Preflight says whether a role's trust policy, and the OIDC provider of its account
// where that is known, accept whoever asked for the role: works, fails or unknown. Why is
// told to them alone, and while they may come to use it: it is empty once the request
// has ended, is suspended, or they are.
type Preflight struct {
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
}

// A Lack is what is wrong with the OIDC provider of a role's account, and what mends
// it: a command line, and Terraform.
type Lack struct {
	Reason    string `json:"reason"`
	CLI       string `json:"cli"`
	Terraform string `json:"terraform"`
}

// A Mend is a trust policy that works, as JSON and as Terraform.
type Mend struct {
	JSON      string `json:"json"`
	Terraform string `json:"terraform"`
}

// A TrustFinding is something to know about a role's trust policy, whoever asks. Id
// is stable; severity is high, medium or low.
type TrustFinding struct {
	ID        string `json:"id"`
	Severity  string `json:"severity"`
	Sentence  string `json:"sentence"`
	Statement string `json:"statement"`
	Mend      string `json:"mend"`
}

// A TrustAnswer answers POST /explain/trust, whose body is an object of a policy
// (a trust policy as JSON, or its text) and a context (trust.Context).
type TrustAnswer struct {
	Trust
	Findings []TrustFinding `json:"findings"`
}

// A RoleFindings is a role with what is to be known about its trust policy.
type RoleFindings struct {
	RoleARN     string         `json:"role_arn"`
	RoleID      string         `json:"role_id"`
	AccountID   string         `json:"account_id"`
	AccountName string         `json:"account_name"`
	Findings    []TrustFinding `json:"findings"`
	Unreadable  string         `json:"unreadable"` // why the policy could not be looked at; else empty
}

// A FindingsPage answers GET /findings.
type FindingsPage struct {
	Roles         []RoleFindings `json:"roles"`
	NextPageToken string         `json:"next_page_token"`
}

// Documents are a role's policy documents as they were read; a document is null
// where it could not be.
type Documents struct {
	TrustPolicy         any    `json:"trust_policy"`
	PermissionsBoundary string `json:"permissions_boundary"`
	InlinePolicies      any    `json:"inline_policies"`
	ManagedPolicies     any    `json:"managed_policies"`
	BoundaryPolicy      any    `json:"permissions_boundary_policy"` // null where there is none, and where nobody reads it
}

// A Roles is a page of the catalogue.
type Roles struct {
	Roles         []Role `json:"roles"`
	NextPageToken string `json:"next_page_token"`
}

// A NewRequest is the body of POST /requests. Exactly one of RoleARN and
// RoleARNs is given.
type NewRequest struct {
	RoleARN       string   `json:"role_arn,omitempty"`
	RoleARNs      []string `json:"role_arns,omitempty"`
	Minutes       int      `json:"minutes"`
	Justification string   `json:"justification"`
	Ticket        string   `json:"ticket,omitempty"`
	StartAt       Time     `json:"start_at,omitzero"`
	// BreakGlass approves it at once, by the one who asks, where the policy
	// allows that; the justification has 30 characters then.
	BreakGlass bool `json:"break_glass,omitempty"`
}

// A Batch answers a POST /requests for several roles.
type Batch struct {
	BatchID  string    `json:"batch_id"`
	Requests []Request `json:"requests"`
}

// A Request is a request as its person, its approvers and admins see it.
type Request struct {
	ID             string  `json:"id"`
	BatchID        *string `json:"batch_id"`
	Person         Person  `json:"person"`
	RoleARN        string  `json:"role_arn"`
	AccountID      string  `json:"account_id"`
	Status         string  `json:"status"`
	EndedBy        *string `json:"ended_by"`
	Minutes        int     `json:"minutes"`
	ClockStartedAt Time    `json:"clock_started_at"`
	EndsAt         Time    `json:"ends_at"`
	Policy         string  `json:"policy"`
	Steps          []Step  `json:"steps"`
	Justification  string  `json:"justification"`
	Ticket         string  `json:"ticket"`
	CreatedAt      Time    `json:"created_at"`

	StartAt     Time         `json:"start_at"`
	ExpiresAt   Time         `json:"expires_at"`
	EndedAt     Time         `json:"ended_at"`
	Allocations []Allocation `json:"allocations"`
	// MayDecide tells the one who asks that the open decision is theirs;
	// MayBreakGlass that they may approve it although it is their own.
	MayDecide     bool `json:"may_decide"`
	MayBreakGlass bool `json:"may_break_glass"`

	AccountName  string   `json:"account_name"`
	RoleName     string   `json:"role_name"`
	PolicyDigest string   `json:"policy_digest"`
	Suspended    string   `json:"suspended"`   // why what is approved cannot be used now; empty where it can
	BreakGlass   bool     `json:"break_glass"` // what is in force was approved by its requester, past the steps
	Notices      []Notice `json:"notices"`     // empty in lists

	// Insight is what the role can do now, and SinceApproval what changed since
	// what is in force was approved: null where nobody knows, in lists and in
	// answers to writes.
	Insight       *Insight `json:"insight"`
	SinceApproval *Change  `json:"since_approval"`

	// ToDecide is what there is to know at a glance for whoever decides: in the
	// list of approvals, and where one request is asked for by who may decide it;
	// null otherwise.
	ToDecide *ToDecide `json:"to_decide"`

	// Trust is there in the list of approvals, and where one request is asked for;
	// null otherwise, and where the role is gone.
	Trust *Preflight `json:"trust"`

	// Live is there when one request is asked for and sessions under it still
	// work, and null otherwise.
	Live *Live `json:"live"`
}

// A Notice is what people had to be told, and whether they were.
type Notice struct {
	Kind       string `json:"kind"`
	Channel    string `json:"channel"`
	Recipients People `json:"recipients"`
	CreatedAt  Time   `json:"created_at"`
	State      string `json:"state"` // pending, sent or failed
	Attempts   int    `json:"attempts"`
	EndedAt    Time   `json:"ended_at"`
	Error      string `json:"error"`
}

// SentNotices are a page of notices, for admins.
type SentNotices struct {
	Notices       []SentNotice `json:"notices"`
	NextPageToken string       `json:"next_page_token"`
}

// A SentNotice is a notice as admins see it.
type SentNotice struct {
	ID         string `json:"id"`
	Kind       string `json:"kind"`
	Purpose    string `json:"purpose"`
	RequestID  string `json:"request_id"`
	Channel    string `json:"channel"`
	Recipients People `json:"recipients"`
	CreatedAt  Time   `json:"created_at"`
	State      string `json:"state"`
	Attempts   int    `json:"attempts"`
	NextAt     Time   `json:"next_at"`
	EndedAt    Time   `json:"ended_at"`
	Error      string `json:"error"`
}

// Live are the sessions of a request that still work, and what cuts them off at
// once: the policy is for whoever owns the role to attach to it.
type Live struct {
	Sessions   []LiveSession `json:"sessions"`
	DenyPolicy string        `json:"deny_policy"` // JSON, as text
	// OutlivesAccess reports that some of them work longer than the access does.
	OutlivesAccess bool `json:"outlives_access"`
}

// A LiveSession is a session that still works.
type LiveSession struct {
	ID            string `json:"id"`
	Kind          string `json:"kind"`
	SessionName   string `json:"session_name"`
	AssumedRoleID string `json:"assumed_role_id"`
	StartedAt     Time   `json:"started_at"`
	EndsAt        Time   `json:"ends_at"`
}

// A Person is somebody else, as far as others need to know.
type Person struct {
	Email string `json:"email"`
}

// An Identity is a person as an admin sees them: who the identity provider says
// they are, and why they are suspended, if they are.
type Identity struct {
	ID         string   `json:"id"`
	Email      string   `json:"email"`
	NewEmail   string   `json:"new_email"` // that the provider says now; empty where it is the same
	Issuer     string   `json:"issuer"`
	Subject    string   `json:"subject"`
	Groups     []string `json:"groups"`
	GroupsAt   Time     `json:"groups_at"`
	GroupsNote string   `json:"groups_note"`
	Suspended  string   `json:"suspended"`
	CreatedAt  Time     `json:"created_at"`
}

// An Identities is a page of people.
type Identities struct {
	People        []Identity `json:"people"`
	NextPageToken string     `json:"next_page_token"`
}

// A Relinking is the body of POST /people/{id}/relink.
type Relinking struct {
	SamePerson bool   `json:"same_person,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

// A Relinked answers it.
type Relinked struct {
	Person    Identity   `json:"person"`
	Suspended []Identity `json:"suspended"` // who had the email before
	Carried   []string   `json:"carried"`   // ids of requests that are the person's now
	Revoked   []string   `json:"revoked"`   // ids of requests that ended
}

// A Step is one approval.
type Step struct {
	Approvers People  `json:"approvers"`
	DecidedBy *string `json:"decided_by"`
	Outcome   *string `json:"outcome"` // approve or deny
	At        Time    `json:"at"`
}

// An Allocation is a stretch of time asked for or approved.
type Allocation struct {
	Minutes       int     `json:"minutes"`
	State         string  `json:"state"`
	Justification string  `json:"justification"`
	AskedAt       Time    `json:"asked_at"`
	DecidedBy     *string `json:"decided_by"`
	DecidedAt     Time    `json:"decided_at"`
	SupersededAt  Time    `json:"superseded_at"`
	Reason        string  `json:"reason"`
	BreakGlass    bool    `json:"break_glass"`
}

// A Requests is a page of requests.
type Requests struct {
	Requests      []Request `json:"requests"`
	NextPageToken string    `json:"next_page_token"`
}

// Approvals are the requests that wait for a decision of the one who asks.
type Approvals struct {
	Requests      []Request `json:"requests"`
	NextPageToken string    `json:"next_page_token"`
}

// A Decision is the body of POST /requests/{id}/decisions.
type Decision struct {
	Outcome string `json:"outcome"` // approve or deny
	Minutes int    `json:"minutes,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Round   *int   `json:"round,omitempty"` // what was looked at: see Request.Round
}

// Round is the number of what was asked for last: 0 for the request itself, one
// more for each extension. A decision that names it decides nothing that was asked
// for later.
func (r Request) Round() int { return len(r.Allocations) - 1 }

// An Extension is the body of POST /requests/{id}/extensions.
type Extension struct {
	Minutes       int    `json:"minutes"`
	Justification string `json:"justification"`
}

// A Shortening is the body of POST /requests/{id}/shorten: minutes from now, or
// the new end.
type Shortening struct {
	Minutes int  `json:"minutes,omitempty"`
	EndsAt  Time `json:"ends_at,omitzero"`
}

// A Revocation is the body of POST /requests/{id}/revoke.
type Revocation struct {
	Reason string `json:"reason"`
}

// A NewSession is the body of POST /sessions.
type NewSession struct {
	RequestID string  `json:"request_id"`
	Narrow    *Narrow `json:"narrow,omitempty"`
}

// Narrow asks for a session that may do less than the role.
type Narrow struct {
	ReadOnly   bool   `json:"read_only,omitempty"`
	NoChaining bool   `json:"no_chaining,omitempty"`
	Network    string `json:"network,omitempty"`
}

// Credentials answer POST /sessions, once. The first five fields are the form
// that credential_process reads (AWS CLI User Guide, sourcing credentials with
// an external process).
type Credentials struct {
	Version         int    `json:"Version"`
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string `json:"SecretAccessKey"`
	SessionToken    string `json:"SessionToken"`
	Expiration      Time   `json:"Expiration"`

	SessionID   string `json:"session_id"`
	RoleARN     string `json:"role_arn"`
	SessionName string `json:"session_name"`
	EndsAt      Time   `json:"ends_at"`
	// ConsolePath opens the console, narrowed alike, when a browser of the same
	// person posts to it.
	ConsolePath string `json:"console_path"`
	// RenewAt is from when on another session is to be opened in place of this
	// one; null where it ends with the access.
	RenewAt Time   `json:"renew_at"`
	Note    string `json:"note"` // what the person should know; empty for nothing
}

// Format writes [redacted] for every verb: credentials are handed over as JSON
// and in no other way.
func (c Credentials) Format(f fmt.State, _ rune) { io.WriteString(f, "[redacted]") }

// ProcessCredentials are what credential_process reads, and no more.
type ProcessCredentials struct {
	Version         int
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      string
}

// Format writes [redacted] for every verb.
func (c ProcessCredentials) Format(f fmt.State, _ rune) { io.WriteString(f, "[redacted]") }

// Process returns the credentials as credential_process reads them.
func (c Credentials) Process() ProcessCredentials {
	return ProcessCredentials{1, c.AccessKeyID, c.SecretAccessKey, c.SessionToken, c.Expiration.UTC().Format(time.RFC3339)}
}

// Variables returns the names and values that AWS's tools read from the
// environment.
func (c Credentials) Variables() [][2]string {
	return [][2]string{
		{"AWS_ACCESS_KEY_ID", c.AccessKeyID},
		{"AWS_SECRET_ACCESS_KEY", c.SecretAccessKey},
		{"AWS_SESSION_TOKEN", c.SessionToken},
		{"AWS_CREDENTIAL_EXPIRATION", c.Expiration.UTC().Format(time.RFC3339)},
	}
}

// A NewConsoleLink is the body of POST /console-links.
type NewConsoleLink struct {
	RequestID string  `json:"request_id"`
	Narrow    *Narrow `json:"narrow,omitempty"`
	Service   string  `json:"service,omitempty"`
	Region    string  `json:"region,omitempty"`
}

// A ConsoleLink is a path of the bridge that opens the console once, in a browser
// of the same person.
type ConsoleLink struct {
	Path      string `json:"path"`
	ExpiresAt Time   `json:"expires_at"`
}

// Format writes [redacted] for every verb.
func (c ConsoleLink) Format(f fmt.State, _ rune) { io.WriteString(f, "[redacted]") }

// A Session is a session that was opened, without its credentials.
type Session struct {
	ID            string `json:"id"`
	RequestID     string `json:"request_id"`
	Kind          string `json:"kind"`  // credentials or console
	State         string `json:"state"` // started, issued, failed, dropped or unknown
	RoleARN       string `json:"role_arn"`
	SessionName   string `json:"session_name"`
	AccessKeyID   string `json:"access_key_id"`
	AssumedRoleID string `json:"assumed_role_id"`
	StartedAt     Time   `json:"started_at"`
	EndsAt        Time   `json:"ends_at"`
	Expiration    Time   `json:"expiration"`
	Error         string `json:"error"`
}

// A Sessions is a page of sessions.
type Sessions struct {
	Sessions      []Session `json:"sessions"`
	NextPageToken string    `json:"next_page_token"`
}

// A Login is a browser or a client that a person is signed in with.
type Login struct {
	ID        string `json:"id"`
	Kind      string `json:"kind"`
	CreatedAt Time   `json:"created_at"`
	SeenAt    Time   `json:"seen_at"`
	EndsAt    Time   `json:"ends_at"`
	Address   string `json:"address"`
	Agent     string `json:"agent"`
	Current   bool   `json:"current"`
}

// A Logins lists a person's logins.
type Logins struct {
	Logins        []Login `json:"logins"`
	NextPageToken string  `json:"next_page_token"` // empty: this is the last page
}

// A NewClientToken is the body of POST /client/token: what a client was let in
// with.
type NewClientToken struct {
	GrantType    string `json:"grant_type"`             // authorization_code or urn:ietf:params:oauth:grant-type:device_code
	Code         string `json:"code,omitempty"`         // of the first
	RedirectURI  string `json:"redirect_uri,omitempty"` // of the first, as it was asked with
	DeviceCode   string `json:"device_code,omitempty"`  // of the second
	CodeVerifier string `json:"code_verifier"`
}

// A ClientToken is the login of a client. AccessToken is seen here and never
// again.
type ClientToken struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"` // Bearer
	ExpiresIn   int    `json:"expires_in"` // seconds
	EndsAt      Time   `json:"ends_at"`
	LoginID     string `json:"login_id"`
	Email       string `json:"email"`
}

// A NewDevice is the body of POST /client/device.
type NewDevice struct {
	ClientName    string `json:"client_name"`
	ClientHost    string `json:"client_host"`
	CodeChallenge string `json:"code_challenge"` // S256
}

// A Device is a device that waits to be let in: UserCode is shown, and typed at
// VerificationURI; DeviceCode is brought to POST /client/token.
type Device struct {
	DeviceCode      string `json:"device_code"`
	UserCode        string `json:"user_code"`
	VerificationURI string `json:"verification_uri"`
	ExpiresIn       int    `json:"expires_in"` // seconds
	Interval        int    `json:"interval"`   // seconds between two polls
}

// An Event is a row of the audit log.
type Event struct {
	Seq       int64             `json:"seq"`
	At        Time              `json:"at"`
	ActorKind string            `json:"actor_kind"`
	Actor     string            `json:"actor"`
	ActorID   string            `json:"actor_id"`
	Action    string            `json:"action"`
	Target    string            `json:"target"`
	Outcome   string            `json:"outcome"`
	Reason    string            `json:"reason"`
	RequestID string            `json:"request_id"`
	Address   string            `json:"address"`
	Detail    map[string]string `json:"detail"`
	KeyID     string            `json:"key_id"`
	Hash      string            `json:"hash"`
}

// An Events is a page of the audit log, newest first, with the chain's head.
type Events struct {
	Events        []Event `json:"events"`
	NextPageToken string  `json:"next_page_token"`
	Head          Head    `json:"head"`
}

// A Head is the last row of the audit chain.
type Head struct {
	Seq  int64  `json:"seq"`
	Hash string `json:"hash"`
}

// A Removed answers POST /accounts/{id}/confirm-removals.
type Removed struct {
	Removed int `json:"removed"` // how many roles
}

// An ExportEnd is the last line of GET /audit/export.
type ExportEnd struct {
	Head Head `json:"head"`
}

// An AccessReport answers GET /reports/access: who could have and who had what.
type AccessReport struct {
	From          Time         `json:"from"`
	To            Time         `json:"to"`
	AsOf          Time         `json:"as_of"` // who could is as of then
	Roles         []RoleAccess `json:"roles"`
	NextPageToken string       `json:"next_page_token"`
}

// A RoleAccess is who could have and who had one role.
type RoleAccess struct {
	RoleARN     string  `json:"role_arn"`
	RoleID      string  `json:"role_id"`
	AccountID   string  `json:"account_id"`
	AccountName string  `json:"account_name"`
	RemovedAt   Time    `json:"removed_at"` // null while it is in the catalogue
	Could       []Could `json:"could"`
	Had         []Had   `json:"had"`      // the newest first
	HadMore     bool    `json:"had_more"` // there were more, longer ago: ask for a shorter period
}

// A Could is people who may ask for the role, by the access policy that decides
// for them.
type Could struct {
	Policy string   `json:"policy"`
	Emails []string `json:"emails"`
}

// A Had is an access that somebody used.
type Had struct {
	RequestID    string   `json:"request_id"`
	Email        string   `json:"email"`
	Policy       string   `json:"policy"`
	PolicyDigest string   `json:"policy_digest"`
	DecidedBy    []string `json:"decided_by"` // who approved; system for what is approved automatically
	From         Time     `json:"from"`
	Until        Time     `json:"until"` // when it ended, or ends
	Status       string   `json:"status"`
	EndedBy      *string  `json:"ended_by"`
	Sessions     int      `json:"sessions"` // that were opened
}
