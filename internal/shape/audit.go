package shape

import (
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Event returns a row of the audit log.
func Event(l serval.Link) wire.Event {
	e := wire.Event{
		Seq: l.Seq, At: wire.Time{Time: l.At}, ActorKind: string(l.ActorKind), Actor: l.Actor, ActorID: l.ActorID, Action: string(l.Action),
		Target: l.Target, Outcome: string(l.Outcome), Reason: l.Reason, RequestID: l.RequestID, Address: l.Address,
		Detail: l.Detail, KeyID: l.KeyID, Hash: l.Hash,
	}
	if e.Detail == nil {
		e.Detail = map[string]string{}
	}
	return e
}
