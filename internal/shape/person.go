package shape

import (
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Identity returns a person as an admin sees them.
func Identity(p serval.Person) wire.Identity {
	return wire.Identity{
		ID: p.ID, Email: p.Email, NewEmail: p.NewEmail, Issuer: p.Issuer, Subject: p.Subject, Groups: List(p.Groups),
		GroupsAt: wire.Time{Time: p.GroupsAt}, GroupsNote: p.GroupsNote, Suspended: p.Suspended, CreatedAt: wire.Time{Time: p.CreatedAt},
	}
}

// Identities returns people as an admin sees them.
func Identities(people []serval.Person) []wire.Identity {
	all := []wire.Identity{}
	for _, p := range people {
		all = append(all, Identity(p))
	}
	return all
}
