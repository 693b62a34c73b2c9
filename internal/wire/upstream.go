package wire

import "github.com/serval-bridge/serval-bridge/internal/serval"

// A WorkerAccount is an account as its worker needs it.
type WorkerAccount struct {
	ID              string       `json:"account_id"`
	Name            string       `json:"name"`
	Partition       string       `json:"partition"`
	RoleARN         string       `json:"role_arn"`
	ExternalID      string       `json:"external_id"`
	Via             []serval.Hop `json:"via"`
	DefaultRegion   string       `json:"default_region"`
	STS             serval.STS   `json:"sts"`
	WorkflowRoleARN string       `json:"workflow_role_arn"`

	// Generation is the last that was issued, LastSyncAt when the last accepted
	// full sync of the account started.
	Generation int64 `json:"generation"`
	LastSyncAt Time  `json:"last_sync_at"`
	// SyncRequested says that somebody asked for a sync since then.
	SyncRequested bool `json:"sync_requested"`
}

// Account returns the account in the dictionary's form.
func (a WorkerAccount) Account() serval.Account {
	return serval.Account{
		ID: a.ID, Name: a.Name, Partition: a.Partition, RoleARN: a.RoleARN, ExternalID: a.ExternalID,
		Via: a.Via, DefaultRegion: a.DefaultRegion, STS: a.STS, WorkflowRoleARN: a.WorkflowRoleARN,
	}
}

// A WorkerAccounts answers GET /upstream/accounts. Version changes whenever the
// list does; a worker sends it back as ?version= with ?wait=SECONDS to be
// answered when there is something new, and at the latest when the time is up.
type WorkerAccounts struct {
	Version  string          `json:"version"`
	Accounts []WorkerAccount `json:"accounts"`
}

// An OpenSync is the body of POST /upstream/accounts/{id}/syncs.
type OpenSync struct {
	Worker string `json:"worker"` // who claims it, for people to read
	// Kind is full or delta; full where it is absent.
	Kind serval.SyncKind `json:"kind,omitempty"`
}

// A Sync answers it: the generation that was issued, and until when it is
// claimed. Refused with conflict, the error's detail has until.
type Sync struct {
	Generation int64 `json:"generation"`
	Until      Time  `json:"until"`
	// LookedAt is when the account was last looked at, by a sync of either kind:
	// what was created since is new.
	LookedAt Time `json:"looked_at"`
	// Known are the roles that are listed for the account: what the worker has to
	// say "untagged" of when it sees them without the tag.
	Known []serval.KnownRole `json:"known"`
	// TakesBoundaries says that roles may have permissions_boundary_policy. An
	// upstream of before that field refuses what it does not know.
	TakesBoundaries bool `json:"takes_boundaries"`
	// Issuer is whose OIDC provider a full sync asks for: the inventory may have
	// oidc_provider then. Absent where it may not.
	Issuer string `json:"issuer,omitempty"`
}

// A Push answers an accepted inventory or delta.
type Push struct {
	Generation int64 `json:"generation"`
	Repeated   bool  `json:"repeated"` // the same push was accepted before
	Added      int   `json:"added"`
	Changed    int   `json:"changed"`
	Removed    int   `json:"removed"`
	Held       int   `json:"held"`
	Stale      int   `json:"stale"`
}
