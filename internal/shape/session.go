package shape

import (
	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Session returns a session; what it was opened with is nowhere any more.
func Session(s serval.Session) wire.Session {
	return wire.Session{
		ID: s.ID, RequestID: s.RequestID, Kind: string(s.Kind), State: string(s.State), RoleARN: s.Role.ARN, SessionName: s.SessionName,
		AccessKeyID: s.AccessKeyID, AssumedRoleID: s.AssumedRoleID, StartedAt: wire.Time{Time: s.StartedAt},
		EndsAt: wire.Time{Time: s.EndsAt}, Expiration: wire.Time{Time: s.Expiration}, Error: s.Error,
	}
}

// Credentials is the one place where credentials are put into an answer.
// Both times are the earlier of STS's and the grant's end.
func Credentials(o control.Opened) wire.Credentials {
	ends := wire.Time{Time: o.Session.EndsAt}
	return wire.Credentials{
		Version: 1, AccessKeyID: o.Credentials.AccessKeyID, SecretAccessKey: o.Credentials.SecretAccessKey.Reveal(),
		SessionToken: o.Credentials.SessionToken.Reveal(), Expiration: ends,
		SessionID: o.Session.ID, RoleARN: o.Session.Role.ARN, SessionName: o.Session.SessionName, EndsAt: ends,
		RenewAt: wire.Time{Time: o.RenewAt}, Note: o.Note,
	}
}
