package shape

import (
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Notice returns a notice as those who see its request do.
func Notice(n serval.Notice) wire.Notice {
	return wire.Notice{
		Kind: string(n.Kind), Channel: n.Channel, Recipients: People(n.To), CreatedAt: wire.Time{Time: n.CreatedAt},
		State: string(n.State), Attempts: n.Attempts, EndedAt: wire.Time{Time: n.EndedAt}, Error: n.Error,
	}
}

// SentNotice returns a notice as admins see it.
func SentNotice(n serval.Notice) wire.SentNotice {
	return wire.SentNotice{
		ID: n.ID, Kind: string(n.Kind), Purpose: string(n.Purpose), RequestID: n.RequestID, Channel: n.Channel, Recipients: People(n.To),
		CreatedAt: wire.Time{Time: n.CreatedAt}, State: string(n.State), Attempts: n.Attempts,
		NextAt: wire.Time{Time: n.NextAt}, EndedAt: wire.Time{Time: n.EndedAt}, Error: n.Error,
	}
}
