package store

import (
	"fmt"
	"time"
)

// A ClientAttempt is a client that signs in: one that was let in and comes for
// its token, or a device that waits to be let in. Code and Typed are digests.
type ClientAttempt struct {
	Code        string // of what the client brings
	Typed       string // of what is typed for a device; empty otherwise
	Challenge   string // PKCE, S256
	RedirectURI string // empty for a device
	Name        string // what the client calls itself, and its machine
	Host        string
	Address     string        // network that it is counted to
	StartedFrom string        // address of a device; empty otherwise
	Outcome     ClientOutcome // empty while nobody has decided
	LoginID     string        // of the browser that approved
	PolledAt    time.Time
	Pause       time.Duration // to be kept between two polls of a device
	CreatedAt   time.Time
	ExpiresAt   time.Time
}

// A ClientOutcome is what a person said of a client.
type ClientOutcome string

// What a person can say.
const (
	ClientApproved ClientOutcome = "approved"
	ClientDenied   ClientOutcome = "denied"
)

const clientAttemptColumns = `code, typed, challenge, redirect_uri, name, host, address, started_from, outcome, login_id, polled_at, pause, created_at, expires_at`

func scanClientAttempt(row scanner) (a ClientAttempt, err error) {
	var polled, pause, created, expires int64
	if err := row.Scan(&a.Code, &a.Typed, &a.Challenge, &a.RedirectURI, &a.Name, &a.Host, &a.Address, &a.StartedFrom, &a.Outcome, &a.LoginID,
		&polled, &pause, &created, &expires); err != nil {
		return ClientAttempt{}, fmt.Errorf("reading a client's attempt: %w", err)
	}
	a.PolledAt, a.Pause, a.CreatedAt, a.ExpiresAt = instant(polled), time.Duration(pause)*time.Microsecond, instant(created), instant(expires)
	return a, nil
}

// noClientAttempt is the answer for all that is not there, whatever the reason.
const noClientAttempt = "This sign-in of a client was already used, has expired, or was never begun. Start again."

// SaveClientAttempt keeps a new attempt, or what has become of a known one.
// Attempts that have expired go.
func (t *Tx) SaveClientAttempt(a ClientAttempt) error {
	if err := t.exec("dropping old attempts of clients", `delete from client_attempt where expires_at <= $1`, micros(t.Now)); err != nil {
		return err
	}
	return t.exec("keeping a client's attempt", `insert into client_attempt (`+clientAttemptColumns+`)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
		on conflict (code) do update set outcome = excluded.outcome, login_id = excluded.login_id,
			polled_at = excluded.polled_at, pause = excluded.pause`,
		a.Code, a.Typed, a.Challenge, a.RedirectURI, a.Name, a.Host, a.Address, a.StartedFrom, a.Outcome, a.LoginID,
		micros(a.PolledAt), a.Pause.Microseconds(), micros(a.CreatedAt), micros(a.ExpiresAt))
}

// TakeClientAttempt returns the attempt of the code and removes it: of all who
// ask, on all replicas, one gets it.
func (t *Tx) TakeClientAttempt(code string) (ClientAttempt, error) {
	return one(&t.View, noClientAttempt, scanClientAttempt,
		`delete from client_attempt where code = $1 and expires_at > $2 returning `+clientAttemptColumns, code, micros(t.Now))
}

// ClientAttempt returns the attempt of the code.
func (v *View) ClientAttempt(code string, now time.Time) (ClientAttempt, error) {
	return one(v, noClientAttempt, scanClientAttempt,
		`select `+clientAttemptColumns+` from client_attempt where code = $1 and expires_at > $2`, code, micros(now))
}

// TypedAttempt returns the attempt of a device by what is typed for it.
func (v *View) TypedAttempt(typed string, now time.Time) (ClientAttempt, error) {
	return one(v, noClientAttempt, scanClientAttempt,
		`select `+clientAttemptColumns+` from client_attempt where typed = $1 and typed <> '' and expires_at > $2`, typed, micros(now))
}

// CountDevices returns how many devices are signing in, in all and counted to the
// network.
func (v *View) CountDevices(network string, now time.Time) (all, here int, err error) {
	err = v.scan(`select count(*), coalesce(sum(case when address = $1 then 1 else 0 end), 0) from client_attempt
		where typed <> '' and expires_at > $2`, []any{network, micros(now)}, &all, &here)
	if err != nil {
		return 0, 0, fmt.Errorf("counting devices: %w", err)
	}
	return all, here, nil
}

// CountApproved returns how many clients that the login let in have not come yet.
func (v *View) CountApproved(loginID string, now time.Time) (n int, err error) {
	err = v.scan(`select count(*) from client_attempt where login_id = $1 and expires_at > $2`, []any{loginID, micros(now)}, &n)
	if err != nil {
		return 0, fmt.Errorf("counting clients that login %s let in: %w", loginID, err)
	}
	return n, nil
}

// WaitingDevices returns the devices that nobody has decided on, the oldest first.
func (v *View) WaitingDevices(now time.Time) ([]ClientAttempt, error) {
	return all(v, scanClientAttempt, `select `+clientAttemptColumns+` from client_attempt
		where typed <> '' and outcome = '' and expires_at > $1 order by created_at, code`, micros(now))
}
