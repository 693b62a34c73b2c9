package store

import (
	"context"
	"fmt"
	"time"
)

// An IDToken is what the identity provider gave at one sign-in. Its tokens are
// sealed, bound to its id.
type IDToken struct {
	ID           string
	Sealed       string // empty once it has ended, or no login stands on it
	EndsAt       time.Time
	AuthTime     time.Time // of the sign-in at the provider; zero where it does not say
	Refresh      string    // the refresh token, sealed; empty where there is none
	RefreshedAt  time.Time // when the ID token was asked for
	ClaimedUntil time.Time // somebody trades the refresh token until then
}

const idTokenColumns = `id_token.id, id_token.sealed, id_token.ends_at, id_token.auth_time,
	id_token.refresh, id_token.refreshed_at, id_token.claimed_until`

// An idTokenRow is an ID token on its way out of the database.
type idTokenRow struct {
	t                                 IDToken
	ends, auth, refreshed, claimedEnd int64
}

func (r *idTokenRow) columns() []any {
	return []any{&r.t.ID, &r.t.Sealed, &r.ends, &r.auth, &r.t.Refresh, &r.refreshed, &r.claimedEnd}
}

func (r *idTokenRow) token() IDToken {
	r.t.EndsAt, r.t.AuthTime, r.t.RefreshedAt, r.t.ClaimedUntil = instant(r.ends), instant(r.auth), instant(r.refreshed), instant(r.claimedEnd)
	return r.t
}

// SaveIDToken keeps a new ID token, or what has become of a known one.
func (t *Tx) SaveIDToken(k IDToken) error {
	return t.exec("keeping an ID token", `insert into id_token
		(id, sealed, ends_at, auth_time, refresh, refreshed_at, claimed_until)
		values ($1, $2, $3, $4, $5, $6, $7)
		on conflict (id) do update set sealed = excluded.sealed, ends_at = excluded.ends_at,
			auth_time = excluded.auth_time, refresh = excluded.refresh, refreshed_at = excluded.refreshed_at, claimed_until = excluded.claimed_until`,
		k.ID, k.Sealed, micros(k.EndsAt), micros(k.AuthTime), k.Refresh, micros(k.RefreshedAt), micros(k.ClaimedUntil))
}

// WipeTokens removes the sealed ID tokens that have ended by now, and all that
// is sealed where no login stands on it any more: each has ended, has expired
// or, of a browser, was last used before idle. It is housekeeping, not an act.
func (s *Store) WipeTokens(ctx context.Context, now, idle time.Time) error {
	err := s.alone(ctx, `update id_token set sealed = '' 
		where (sealed <> '' or refresh <> '') and sealed <> '' and ends_at <= $1`, micros(now))
	if err == nil {
		err = s.alone(ctx, `update id_token set sealed = '', refresh = ''
			where (sealed <> '' or refresh <> '') and not exists
			(select 1 from login where login.id_token_id = id_token.id and login.ended_at = 0 and login.expires_at > $1
				and (login.kind = 'client' or login.seen_at > $2))`, micros(now), micros(idle))
	}
	if err != nil {
		return fmt.Errorf("wiping ended ID tokens: %w", err)
	}
	return nil
}
