package store

import (
	"context"
	"fmt"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/lobby"
)

const noAttempt = "This sign-in was already used, has expired, or was begun in another browser. Start again."

// KeepAttempt keeps an attempt that begins now. It is not an act: strangers may
// come as often as they like, no chain is taken, and no act waits for it.
//
// Where no other process serves the database it waits in memory, so that it costs
// the disk nothing, and is written when the store is closed: a process that is
// killed forgets who was on the way. Otherwise it is in the database when
// KeepAttempt returns, for whichever replica it comes back to.
func (s *Store) KeepAttempt(ctx context.Context, a lobby.Attempt, most lobby.Bound) error {
	if s.db.Alone() {
		return s.lobby.Keep(a, most)
	}
	return s.departures.Keep(ctx, a, func(ctx context.Context, together []lobby.Attempt) error { return s.keepAttempts(ctx, together, most) })
}

// TakeAttempt returns the attempt with the state and the browser, and removes
// it: of all who ask, on all replicas, one gets it. Where the state is another
// browser's, nothing is taken.
func (s *Store) TakeAttempt(ctx context.Context, now time.Time, state, browser string) (a lobby.Attempt, err error) {
	if a, found := s.lobby.Take(state, browser, now); found {
		return a, nil
	}
	err = s.Write(ctx, now, func(tx *Tx) (err error) {
		a, err = one(&tx.View, noAttempt, scanAttempt, `delete from login_attempt where state = $1 and browser = $2 and expires_at > $3
			returning state, browser, sealed, network, site, created_at, expires_at`, state, browser, micros(now))
		return err
	})
	return a, err
}

func scanAttempt(row scanner) (a lobby.Attempt, err error) {
	var created, expires int64
	if err := row.Scan(&a.State, &a.Browser, &a.Sealed, &a.Network, &a.Site, &created, &expires); err != nil {
		return lobby.Attempt{}, fmt.Errorf("taking a login attempt: %w", err)
	}
	a.CreatedAt, a.ExpiresAt = instant(created), instant(expires)
	return a, nil
}

// keepAttempts keeps attempts in one transaction, all or none.
func (s *Store) keepAttempts(ctx context.Context, attempts []lobby.Attempt, most lobby.Bound) error {
	return s.noteFull(s.aside(ctx, "keeping login attempts", func(v *View) error { return v.keepAttempts(attempts, most) }))
}

func (v *View) keepAttempts(attempts []lobby.Attempt, most lobby.Bound) error {
	var first, last time.Time
	for _, a := range attempts {
		if first.IsZero() || a.ExpiresAt.Before(first) {
			first = a.ExpiresAt
		}
		if a.CreatedAt.After(last) {
			last = a.CreatedAt
		}
		if err := v.exec("keeping a login attempt", `insert into login_attempt (state, browser, sealed, network, site, created_at, expires_at)
			values ($1, $2, $3, $4, $5, $6, $7)`, a.State, a.Browser, a.Sealed, a.Network, a.Site, micros(a.CreatedAt), micros(a.ExpiresAt)); err != nil {
			return err
		}
	}
	if err := v.exec("dropping old login attempts", `delete from login_attempt where expires_at <= $1`, micros(last)); err != nil {
		return err
	}
	if err := v.exec("dropping the oldest login attempts of networks", `delete from login_attempt where state in
		(select state from (select state, row_number() over (partition by network order by created_at desc, state desc) as place
			from login_attempt where network in (select network from login_attempt where expires_at >= $1)) as placed
		where place > $2)`, micros(first), most.Here); err != nil {
		return err
	}
	var total int
	if err := v.scan(`select count(*) from login_attempt`, nil, &total); err != nil {
		return fmt.Errorf("counting login attempts: %w", err)
	}
	if total <= most.All {
		return nil
	}
	return v.exec("dropping the oldest login attempts of all", `delete from login_attempt where state in
		(select state from (select state, created_at, row_number() over (partition by site order by created_at desc, state desc) as place
			from login_attempt) as placed
		order by place desc, created_at, state collate "C" limit $1)`, total-most.All+most.All/lobby.Slack)
}

// closeLobby writes those who wait in memory, for the process that serves the
// database next.
func (s *Store) closeLobby() error {
	attempts, most := s.lobby.Leave()
	if len(attempts) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lobby.WriteTime)
	defer cancel()
	if err := s.keepAttempts(ctx, attempts, most); err != nil {
		return fmt.Errorf("keeping who is on the way to sign in: %w", err)
	}
	return nil
}
