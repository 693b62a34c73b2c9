package wire

import "github.com/serval-bridge/serval-bridge/internal/serval"

// An Account is a connected account as an admin sees it.
type Account struct {
	ID              string       `json:"id"`
	AccountID       string       `json:"account_id"` // the same: what it is called everywhere else
	Name            string       `json:"name"`
	Partition       string       `json:"partition"`
	RoleARN         string       `json:"role_arn"`
	ExternalID      string       `json:"external_id"`
	Via             []serval.Hop `json:"via"`
	DefaultRegion   string       `json:"default_region"`
	STS             serval.STS   `json:"sts"`
	WorkflowRoleARN string       `json:"workflow_role_arn"`
	Source          string       `json:"source"` // file or api
	CreatedAt       Time         `json:"created_at"`

	Roles      int   `json:"roles"`
	Generation int64 `json:"generation"`
	Complete   bool  `json:"complete"`
	LastSyncAt Time  `json:"last_sync_at"`
	LastPushAt Time  `json:"last_push_at"`
	// LastSyncAgeSeconds is null before the first sync.
	LastSyncAgeSeconds *int   `json:"last_sync_age_seconds"`
	SyncRequested      bool   `json:"sync_requested"` // and not read since
	ReadingUntil       Time   `json:"reading_until"`  // a worker has it until then
	ReadBy             string `json:"read_by"`
	Problems           any    `json:"problems"`
	Unreadable         any    `json:"unreadable"`
	NearMisses         any    `json:"near_misses"`
	// OIDCProvider is what the last sync learned of it; absent where nobody asked.
	OIDCProvider any `json:"oidc_provider,omitempty"`
	// Lack is what keeps it from taking our tokens; absent where nothing is known to.
	Lack  *Lack `json:"lack,omitempty"`
	Held  int   `json:"held"`
	Stale int   `json:"stale"`

	// LastCheck is null before the first.
	LastCheck *LastCheck `json:"last_check"`
	// Connect is there when one account is asked for, and null in lists.
	Connect *Connect `json:"connect"`
}

// An Accounts is a page of the connected accounts, with what connects another.
type Accounts struct {
	Accounts      []Account `json:"accounts"`
	NextPageToken string    `json:"next_page_token"`
	Connect       Connect   `json:"connect"`
}

// Connect is what is pasted into AWS so that the worker gets into an account.
// While the trusted account is not known, Note says why, and the texts that name
// it are empty.
type Connect struct {
	TrustedAccount   string `json:"trusted_account"`
	Note             string `json:"note"`
	ExternalID       string `json:"external_id"`
	RoleName         string `json:"role_name"`
	TrustPolicy      string `json:"trust_policy"`
	PermissionPolicy string `json:"permission_policy"`
	Terraform        string `json:"terraform"`
	CloudFormation   string `json:"cloudformation"`
}

// A NewAccount is the body of POST /accounts.
type NewAccount struct {
	ID              string       `json:"id,omitempty"`
	AccountID       string       `json:"account_id,omitempty"` // the same; one of the two is given
	Name            string       `json:"name"`
	RoleARN         string       `json:"role_arn"`
	Partition       string       `json:"partition,omitempty"`
	Via             []serval.Hop `json:"via,omitempty"`
	DefaultRegion   string       `json:"default_region,omitempty"`
	STS             serval.STS   `json:"sts,omitzero"`
	WorkflowRoleARN string       `json:"workflow_role_arn,omitempty"`
	// ExternalID is refused: nobody chooses it.
	ExternalID string `json:"external_id,omitempty"`
}

// An AccountChange is the body of PATCH /accounts/{id}: what is absent or null
// stays as it is.
type AccountChange struct {
	Name            *string       `json:"name,omitempty"`
	RoleARN         *string       `json:"role_arn,omitempty"`
	Via             *[]serval.Hop `json:"via,omitempty"`
	DefaultRegion   *string       `json:"default_region,omitempty"`
	STS             *serval.STS   `json:"sts,omitempty"`
	WorkflowRoleARN *string       `json:"workflow_role_arn,omitempty"`
	// ExternalID is refused: nobody chooses it.
	ExternalID *string `json:"external_id,omitempty"`
}
