package shape

import (
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Account returns an account and how its last sync went.
func Account(a control.Account, now time.Time) wire.Account {
	account := wire.Account{
		ID: a.ID, AccountID: a.ID, Name: a.Name, Partition: a.Partition, RoleARN: a.RoleARN, ExternalID: a.ExternalID, Via: List(a.Via),
		DefaultRegion: a.DefaultRegion, STS: a.STS, WorkflowRoleARN: a.WorkflowRoleARN, Source: a.Source, CreatedAt: wire.Time{Time: a.CreatedAt},
		Roles: a.Roles, Generation: a.AcceptedGeneration, Complete: a.Complete,
		LastSyncAt: wire.Time{Time: a.StartedAt}, LastPushAt: wire.Time{Time: a.AcceptedAt}, ReadBy: a.ReadBy,
		SyncRequested: !a.SyncRequestedAt.IsZero(),
		Problems:      List(a.Problems), Unreadable: List(a.Unreadable), NearMisses: List(a.NearMisses), Held: a.Held, Stale: a.Stale,
		LastCheck: lastCheck(a.LastCheck), Lack: (*wire.Lack)(a.Lack),
	}
	if a.OIDCProvider != nil {
		account.OIDCProvider = a.OIDCProvider
	}
	if a.ClaimedUntil.After(now) {
		account.ReadingUntil = wire.Time{Time: a.ClaimedUntil}
	}
	if !a.StartedAt.IsZero() {
		age := int(max(0, now.Sub(a.StartedAt)).Seconds())
		account.LastSyncAgeSeconds = &age
	}
	return account
}

// Connect returns what an admin pastes.
func Connect(c control.Connect) wire.Connect {
	return wire.Connect{
		TrustedAccount: c.TrustedAccount, Note: c.Note, ExternalID: c.ExternalID, RoleName: c.RoleName, TrustPolicy: c.TrustPolicy,
		PermissionPolicy: c.PermissionPolicy, Terraform: c.Terraform, CloudFormation: c.CloudFormation,
	}
}
