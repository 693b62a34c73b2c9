package shape

import (
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Logins returns where somebody is signed in; current is the id of the login that
// asks.
func Logins(logins []store.Login, current string) wire.Logins {
	answer := wire.Logins{Logins: []wire.Login{}}
	for _, l := range logins {
		answer.Logins = append(answer.Logins, wire.Login{
			ID: l.ID, Kind: l.Kind, CreatedAt: wire.Time{Time: l.CreatedAt}, SeenAt: wire.Time{Time: l.SeenAt}, EndsAt: wire.Time{Time: l.ExpiresAt},
			Address: l.Address, Agent: l.Agent, Current: l.ID == current,
		})
	}
	return answer
}

// Me returns who asks, and until when by this login.
func Me(who serval.Principal, login signin.Login) wire.Me {
	p := who.Person
	return wire.Me{
		ID: p.ID, Email: p.Email, Groups: List(p.Groups), GroupsAt: wire.Time{Time: p.GroupsAt}, GroupsNote: p.GroupsNote,
		Admin: who.Admin, Auditor: who.Auditor, LoginID: login.ID,
		LoginEndsAt: wire.Time{Time: login.EndsAt}, IDTokenEndsAt: wire.Time{Time: login.IDTokenEndsAt}, Suspended: p.Suspended,
	}
}

// List returns a list that is never null.
func List[E any](of []E) []E {
	if of == nil {
		return []E{}
	}
	return of
}
