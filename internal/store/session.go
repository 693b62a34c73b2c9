package store

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const sessionColumns = `id, request_id, person_id, kind, state, partition, account_id, role_id, role_arn, session_name, seconds,
	started_at, finished_at, access_key_id, assumed_role_id, expiration, ends_at, error`

func scanSession(row scanner) (serval.Session, error) {
	var s serval.Session
	var started, finished, expiration, ends int64
	err := row.Scan(&s.ID, &s.RequestID, &s.PersonID, &s.Kind, &s.State, &s.Role.Partition, &s.Role.AccountID, &s.Role.RoleID, &s.Role.ARN,
		&s.SessionName, &s.Seconds, &started, &finished, &s.AccessKeyID, &s.AssumedRoleID, &expiration, &ends, &s.Error)
	if err != nil {
		return serval.Session{}, fmt.Errorf("reading a session: %w", err)
	}
	s.StartedAt, s.FinishedAt = instant(started), instant(finished)
	s.Expiration, s.EndsAt = instant(expiration), instant(ends)
	return s, nil
}

// SaveSession keeps s as it is now.
func (t *Tx) SaveSession(s serval.Session) error {
	return t.exec("keeping session "+s.ID, `insert into session (`+sessionColumns+`)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
		on conflict (id) do update set state = excluded.state, seconds = excluded.seconds, finished_at = excluded.finished_at,
			access_key_id = excluded.access_key_id, assumed_role_id = excluded.assumed_role_id,
			expiration = excluded.expiration, ends_at = excluded.ends_at, error = excluded.error`,
		s.ID, s.RequestID, s.PersonID, s.Kind, s.State, s.Role.Partition, s.Role.AccountID, s.Role.RoleID, s.Role.ARN, s.SessionName,
		s.Seconds, micros(s.StartedAt), micros(s.FinishedAt), s.AccessKeyID, s.AssumedRoleID, micros(s.Expiration), micros(s.EndsAt), s.Error)
}

// Session returns the session with the id.
func (v *View) Session(id string) (serval.Session, error) {
	s, err := one(v, "There is no such session.", scanSession, `select `+sessionColumns+` from session where id = $1`, id)
	if err == nil && s.ID != id {
		return serval.Session{}, fmt.Errorf("reading session %s: the database answered with another row", id)
	}
	return s, err
}

// A SessionFilter chooses sessions; empty fields choose all.
type SessionFilter struct {
	PersonID  string
	RequestID string

	// Those older than the session with this instant and id; zero for the newest.
	BeforeAt time.Time
	BeforeID string
	Limit    int // at most so many
}

// The sessions that a filter lets through; see eventsWhere for why what is
// filtered by is said twice.
const (
	sessionsWhere = ` ($1 = '' or person_id = $1) and ($2 = '' or request_id = $2)
			and started_at <= $3 and (started_at < $3 or id collate "C" < $4)
		order by started_at desc, id collate "C" desc limit $5`
	sessionsOfAll     = `select ` + sessionColumns + ` from session where` + sessionsWhere
	sessionsOfPerson  = `select ` + sessionColumns + ` from session where person_id = $1 and` + sessionsWhere
	sessionsOfRequest = `select ` + sessionColumns + ` from session where request_id = $2 and` + sessionsWhere
)

// Sessions returns sessions, newest first.
func (v *View) Sessions(f SessionFilter) ([]serval.Session, error) {
	list := func(query string) ([]serval.Session, error) {
		return all(v, scanSession, query, f.PersonID, f.RequestID, cmp.Or(micros(f.BeforeAt), math.MaxInt64), f.BeforeID, f.Limit)
	}
	var sessions []serval.Session
	var err error
	switch {
	case f.RequestID != "":
		sessions, err = list(sessionsOfRequest)
	case f.PersonID != "":
		sessions, err = list(sessionsOfPerson)
	default:
		sessions, err = list(sessionsOfAll)
	}
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", err)
	}
	return sessions, nil
}

// OpenIntents returns the ids of sessions that were begun before the instant
// and have no outcome.
func (v *View) OpenIntents(before time.Time, limit int) ([]string, error) {
	ids, err := all(v, func(row scanner) (id string, err error) { return id, row.Scan(&id) },
		`select id from session where state = 'started' and started_at <= $1 order by started_at limit $2`, micros(before), limit)
	if err != nil {
		return nil, fmt.Errorf("listing open intents: %w", err)
	}
	return ids, nil
}

// CountSessions returns how many sessions the person began after the instant.
func (v *View) CountSessions(personID string, after time.Time) (n int, err error) {
	err = v.q.QueryRowContext(v.ctx, `select count(*) from session where person_id = $1 and started_at > $2`,
		personID, micros(after)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting the sessions of person %s: %w", personID, err)
	}
	return n, nil
}
