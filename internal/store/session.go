package store

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const sessionColumns = `id, request_id, person_id, kind, state, partition, account_id, role_id, role_arn, session_name, seconds,
	started_at, finished_at, access_key_id, assumed_role_id, expiration, ends_at, error, renews`

func scanSession(row scanner) (serval.Session, error) {
	var s serval.Session
	var started, finished, expiration, ends int64
	err := row.Scan(&s.ID, &s.RequestID, &s.PersonID, &s.Kind, &s.State, &s.Role.Partition, &s.Role.AccountID, &s.Role.RoleID, &s.Role.ARN,
		&s.SessionName, &s.Seconds, &started, &finished, &s.AccessKeyID, &s.AssumedRoleID, &expiration, &ends, &s.Error, &s.Renews)
	if err != nil {
		return serval.Session{}, fmt.Errorf("reading a session: %w", err)
	}
	s.StartedAt, s.FinishedAt = instant(started), instant(finished)
	s.Expiration, s.EndsAt = instant(expiration), instant(ends)
	return s, nil
}

// SaveSession keeps s as it is now.
func (t *Tx) SaveSession(s serval.Session) error {
	return t.later("keeping session "+s.ID, `insert into session (`+sessionColumns+`)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
		on conflict (id) do update set state = excluded.state, seconds = excluded.seconds, finished_at = excluded.finished_at,
			access_key_id = excluded.access_key_id, assumed_role_id = excluded.assumed_role_id,
			expiration = excluded.expiration, ends_at = excluded.ends_at, error = excluded.error`,
		s.ID, s.RequestID, s.PersonID, s.Kind, s.State, s.Role.Partition, s.Role.AccountID, s.Role.RoleID, s.Role.ARN, s.SessionName,
		s.Seconds, micros(s.StartedAt), micros(s.FinishedAt), s.AccessKeyID, s.AssumedRoleID, micros(s.Expiration), micros(s.EndsAt), s.Error, s.Renews)
}

// ConcludeSession keeps the outcome of a session that was begun. It reports
// whether there was none yet; else that stays.
func (t *Tx) ConcludeSession(s serval.Session) (open bool, err error) {
	what, args := "concluding session "+s.ID, []any{
		s.ID, s.State, s.Seconds, micros(s.FinishedAt), s.AccessKeyID, s.AssumedRoleID, micros(s.Expiration), micros(s.EndsAt), s.Error}
	if t.held { // one that was concluded gets no state, and that undoes the transaction
		return true, t.later(what, `update session set state = case when state = 'started' then $2 end`+concluded+` where id = $1`, args...)
	}
	n, err := t.execCount(what, `update session set state = $2`+concluded+` where id = $1 and state = 'started'`, args...)
	return n == 1, err
}

const concluded = `, seconds = $3, finished_at = $4, access_key_id = $5, assumed_role_id = $6, expiration = $7, ends_at = $8, error = $9`

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

// LiveSessions returns the sessions of a request whose credentials work at now,
// newest first; of very many the newest.
func (v *View) LiveSessions(requestID string, now time.Time, limit int) ([]serval.Session, error) {
	sessions, err := all(v, scanSession, `select `+sessionColumns+` from session
		where request_id = $1 and state = 'issued' and ends_at > $2
		order by started_at desc, id collate "C" desc limit $3`, requestID, micros(now), limit)
	if err != nil {
		return nil, fmt.Errorf("listing the live sessions of request %s: %w", requestID, err)
	}
	return sessions, nil
}

// NewestSession returns the newest session of a kind that was opened under the
// request, and whether another one was begun that renews it.
func (v *View) NewestSession(requestID string, kind serval.SessionKind) (s serval.Session, renewed bool, err error) {
	s, err = one(v, "No session was opened.", scanSession, `select `+sessionColumns+` from session
		where request_id = $1 and kind = $2 and state = 'issued' order by started_at desc, id collate "C" desc limit 1`, requestID, kind)
	if err != nil {
		return serval.Session{}, false, err
	}
	var n int
	err = v.q.QueryRowContext(v.ctx, `select count(*) from session where request_id = $1 and renews = $2`, requestID, s.ID).Scan(&n)
	if err != nil {
		return serval.Session{}, false, fmt.Errorf("looking for what renews session %s: %w", s.ID, err)
	}
	return s, n > 0, nil
}

// What an opening reads; see ExpectOpening.
const (
	requestByID          = `select ` + requestColumns + ` from request where id = $1`
	allocationsOfRequest = selectAllocations + ` where request_id = $1 order by number`
	personByID           = `select ` + personColumns + ` from person where id = $1`
	loginOfPerson        = selectLogin + ` where login.id = $1 and login.person_id = $2`
	roleOfRequest        = `select ` + roleColumns + ` from role
		where account_id = (select account_id from request where id = $1) and role_id = (select role_id from request where id = $1)
			and arn = (select role_arn from request where id = $1) and partition = (select partition from request where id = $1)` + roleListed
	metaByName    = `select value from meta where name = $1`
	countSessions = `select count(*) from session where person_id = $1 and started_at > $2 and renews = ''`
)

// ExpectOpening says that a session of the person's is about to be opened under the
// request and the login, or that it was, and what that needs is looked at once more:
// what is read for it comes with the next answer of the database.
func (t *Tx) ExpectOpening(requestID, personID, loginID string) {
	t.tx.Ahead(requestByID, requestID)
	t.tx.Ahead(allocationsOfRequest, requestID)
	t.tx.Ahead(personByID, personID)
	t.tx.Ahead(loginOfPerson, loginID, personID)
	t.tx.Ahead(roleOfRequest, requestID)
	t.tx.Ahead(metaByName, policyVersion)
}

// ExpectCount says that the person's sessions since an instant are about to be counted,
// as ExpectOpening does of what it is about.
func (t *Tx) ExpectCount(personID string, after time.Time) {
	t.tx.Ahead(countSessions, personID, micros(after))
}

// CountSessions returns how many sessions the person began after the instant.
// Those that renew a lease do not count.
func (v *View) CountSessions(personID string, after time.Time) (n int, err error) {
	err = v.q.QueryRowContext(v.ctx, countSessions, personID, micros(after)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting the sessions of person %s: %w", personID, err)
	}
	return n, nil
}

// A ConsoleLink is a way to the console that a client made for its person's
// browser. Code is a digest: what it is of is known to that client alone.
type ConsoleLink struct {
	Code      string
	PersonID  string
	RequestID string
	Asked     string // what of, as JSON
	ExpiresAt time.Time
}

// KeepConsoleLink keeps l. Links that have expired go.
func (t *Tx) KeepConsoleLink(l ConsoleLink) error {
	if err := t.exec("dropping old console links", `delete from console_link where expires_at <= $1`, micros(t.Now)); err != nil {
		return err
	}
	return t.exec("keeping a console link", `insert into console_link (code, person_id, request_id, asked, expires_at)
		values ($1, $2, $3, $4, $5)`, l.Code, l.PersonID, l.RequestID, l.Asked, micros(l.ExpiresAt))
}

// CountConsoleLinks returns how many links of the person's wait to be used.
func (v *View) CountConsoleLinks(personID string, now time.Time) (n int, err error) {
	err = v.q.QueryRowContext(v.ctx, `select count(*) from console_link where person_id = $1 and expires_at > $2`, personID, micros(now)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting the console links of person %s: %w", personID, err)
	}
	return n, nil
}

// noConsoleLink is said of a link that was taken, that expired, that is another
// person's, and that there never was.
const noConsoleLink = "This way to the console was used, or is older than a minute. Ask for another one."

// ConsoleLink returns the person's link with the code, if it can be used at now.
func (v *View) ConsoleLink(code, personID string, now time.Time) (ConsoleLink, error) {
	return one(v, noConsoleLink, func(row scanner) (l ConsoleLink, err error) {
		var expires int64
		if err := row.Scan(&l.Code, &l.PersonID, &l.RequestID, &l.Asked, &expires); err != nil {
			return ConsoleLink{}, fmt.Errorf("reading a console link: %w", err)
		}
		l.ExpiresAt = instant(expires)
		return l, nil
	}, `select code, person_id, request_id, asked, expires_at from console_link
		where code = $1 and person_id = $2 and expires_at > $3`, code, personID, micros(now))
}

// TakeConsoleLink removes the person's link with the code: of all who ask, on all
// replicas, one may. Another person's is not taken.
func (t *Tx) TakeConsoleLink(code, personID string) error {
	_, err := one(&t.View, noConsoleLink, func(row scanner) (taken string, err error) { return taken, row.Scan(&taken) },
		`delete from console_link where code = $1 and person_id = $2 and expires_at > $3 returning code`, code, personID, micros(t.Now))
	return err
}
