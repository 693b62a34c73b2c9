package store

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// An Attempt is a sign-in between leaving for the identity provider and coming
// back. State and Browser are digests: what they are of is known to the
// browser alone.
type Attempt struct {
	State     string
	Browser   string
	Sealed    string // nonce and PKCE verifier
	ReturnTo  string
	CreatedAt time.Time
	ExpiresAt time.Time
}

// KeepAttempt keeps a. Attempts that have expired go.
func (t *Tx) KeepAttempt(a Attempt) error {
	if err := t.exec("dropping old login attempts", `delete from login_attempt where expires_at <= $1`, micros(t.Now)); err != nil {
		return err
	}
	return t.exec("keeping a login attempt", `insert into login_attempt (state, browser, sealed, return_to, created_at, expires_at)
		values ($1, $2, $3, $4, $5, $6)`, a.State, a.Browser, a.Sealed, a.ReturnTo, micros(a.CreatedAt), micros(a.ExpiresAt))
}

// CountAttempts returns how many sign-ins are under way. Those that have
// expired do not count, or a full house would keep out the one that clears it.
func (t *Tx) CountAttempts() (n int, err error) {
	if err := t.scan(`select count(*) from login_attempt where expires_at > $1`, []any{micros(t.Now)}, &n); err != nil {
		return 0, fmt.Errorf("counting login attempts: %w", err)
	}
	return n, nil
}

// TakeAttempt returns the attempt with the state and the browser, and removes
// it: of all who ask, on all replicas, one gets it. Where the state is another
// browser's, nothing is taken.
func (t *Tx) TakeAttempt(state, browser string) (Attempt, error) {
	return one(&t.View, "This sign-in was already used, has expired, or was begun in another browser. Start again.",
		func(row scanner) (a Attempt, err error) {
			var created, expires int64
			if err := row.Scan(&a.State, &a.Browser, &a.Sealed, &a.ReturnTo, &created, &expires); err != nil {
				return Attempt{}, fmt.Errorf("taking a login attempt: %w", err)
			}
			a.CreatedAt, a.ExpiresAt = instant(created), instant(expires)
			return a, nil
		},
		`delete from login_attempt where state = $1 and browser = $2 and expires_at > $3
		returning state, browser, sealed, return_to, created_at, expires_at`, state, browser, micros(t.Now))
}

// A Login is a browser or client that a person is signed in with. Token is the
// digest of what it holds; IDToken is sealed.
type Login struct {
	ID            string
	Token         string
	PersonID      string
	Kind          string // browser or client
	CreatedAt     time.Time
	SeenAt        time.Time
	ExpiresAt     time.Time
	EndedAt       time.Time
	Address       string
	Agent         string
	IDToken       string
	IDTokenEndsAt time.Time
}

const loginColumns = `id, token, person_id, kind, created_at, seen_at, expires_at, ended_at, address, agent, id_token, id_token_ends_at`

func scanLogin(row scanner) (Login, error) {
	var l Login
	var created, seen, expires, ended, tokenEnds int64
	err := row.Scan(&l.ID, &l.Token, &l.PersonID, &l.Kind, &created, &seen, &expires, &ended, &l.Address, &l.Agent, &l.IDToken, &tokenEnds)
	if err != nil {
		return Login{}, fmt.Errorf("reading a login: %w", err)
	}
	l.CreatedAt, l.SeenAt, l.ExpiresAt = instant(created), instant(seen), instant(expires)
	l.EndedAt, l.IDTokenEndsAt = instant(ended), instant(tokenEnds)
	return l, nil
}

// CreateLogin keeps a new login. What a browser calls itself is kept as far as
// it is text.
func (t *Tx) CreateLogin(l Login) error {
	return t.exec("keeping a login", `insert into login (`+loginColumns+`)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		l.ID, l.Token, l.PersonID, l.Kind, micros(l.CreatedAt), micros(l.SeenAt), micros(l.ExpiresAt), micros(l.EndedAt),
		l.Address, strings.ReplaceAll(strings.ToValidUTF8(l.Agent, "\uFFFD"), "\x00", "\uFFFD"), l.IDToken, micros(l.IDTokenEndsAt))
}

// LoginByToken returns the login whose token has the digest, ended or not.
func (v *View) LoginByToken(digest string) (Login, error) {
	l, err := one(v, "You are not signed in.", scanLogin, `select `+loginColumns+` from login where token = $1`, digest)
	if err == nil && l.Token != digest {
		// A cancelled query could have given another's row (CVE-2025-47907).
		return Login{}, fmt.Errorf("reading a login: the database answered with another row")
	}
	return l, err
}

// Logins returns the person's logins that have not ended, newest first.
func (v *View) Logins(personID string, now time.Time) ([]Login, error) {
	return all(v, scanLogin, `select `+loginColumns+` from login
		where person_id = $1 and ended_at = 0 and expires_at > $2 order by created_at desc, id`, personID, micros(now))
}

// TouchLogin notes that a login was used. It is not an act: no chain is taken.
func (s *Store) TouchLogin(ctx context.Context, id string, now time.Time) error {
	_, err := s.write.ExecContext(ctx, `update login set seen_at = $2 where id = $1 and seen_at < $2`, id, micros(now))
	if err != nil {
		return fmt.Errorf("noting that a login was used: %w", err)
	}
	return nil
}

// EndLogin ends a login of the person and wipes its ID token; found is false
// where there is none that could be ended.
func (t *Tx) EndLogin(personID, id string) (found bool, err error) {
	n, err := t.execCount("ending a login", `update login set ended_at = $3, id_token = ''
		where id = $1 and person_id = $2 and ended_at = 0`, id, personID, micros(t.Now))
	return n == 1, err
}

// WipeTokens removes the sealed ID tokens that have ended by now, and those of
// logins that have expired. It is housekeeping, not an act.
func (s *Store) WipeTokens(ctx context.Context, now time.Time) error {
	_, err := s.write.ExecContext(ctx, `update login set id_token = ''
		where id_token <> '' and (id_token_ends_at <= $1 or expires_at <= $1)`, micros(now))
	if err != nil {
		return fmt.Errorf("wiping ended ID tokens: %w", err)
	}
	return nil
}

// Login returns the person's login with the id, ended or not.
func (v *View) Login(personID, id string) (Login, error) {
	return one(v, "There is no such login.", scanLogin,
		`select `+loginColumns+` from login where id = $1 and person_id = $2`, id, personID)
}
