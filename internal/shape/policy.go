package shape

import (
	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Policy returns an access policy.
func Policy(p control.Policy) wire.AccessPolicy {
	return wire.AccessPolicy{
		AccessPolicy: p.AccessPolicy, Priority: p.Priority, Source: p.Source, Digest: p.Digest,
		CreatedAt: wire.Time{Time: p.CreatedAt}, ChangedAt: wire.Time{Time: p.ChangedAt},
	}
}

// Approval returns who approves.
func Approval(a serval.Approval) wire.Approval {
	approval := wire.Approval{Automatic: a.Automatic, Steps: []wire.People{}}
	for _, step := range a.Steps {
		approval.Steps = append(approval.Steps, People(step))
	}
	return approval
}
