package store

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const requestColumns = `id, batch_id, person_id, email, partition, account_id, role_id, role_arn, terms, status, ended_by,
	justification, ticket, start_at, created_at, expires_at, ended_at, clock_started_at, ends_at`

func scanRequest(row scanner) (*serval.Request, error) {
	var r serval.Request
	var terms string
	var start, created, expires, ended, clock, ends int64
	err := row.Scan(&r.ID, &r.BatchID, &r.PersonID, &r.Email, &r.Role.Partition, &r.Role.AccountID, &r.Role.RoleID, &r.Role.ARN,
		&terms, &r.Status, &r.EndedBy, &r.Justification, &r.Ticket, &start, &created, &expires, &ended, &clock, &ends)
	if err != nil {
		return nil, fmt.Errorf("reading a request: %w", err)
	}
	r.StartAt, r.CreatedAt, r.ExpiresAt = instant(start), instant(created), instant(expires)
	r.EndedAt, r.ClockStartedAt, r.EndsAt = instant(ended), instant(clock), instant(ends)
	if err := json.Unmarshal([]byte(terms), &r.Terms); err != nil {
		return nil, fmt.Errorf("reading the terms of request %s: %w", r.ID, err)
	}
	return &r, nil
}

// Request returns the request with the id.
func (v *View) Request(id string) (*serval.Request, error) {
	r, err := one(v, "There is no such request.", scanRequest, requestByID, id)
	if err != nil {
		return nil, err
	}
	if r.ID != id {
		// A cancelled query could have given another's row (CVE-2025-47907).
		return nil, fmt.Errorf("reading request %s: the database answered with another row", id)
	}
	return r, v.fill(map[string]*serval.Request{id: r}, allocationsOfRequest, id)
}

// A RequestFilter chooses requests; empty fields choose all.
type RequestFilter struct {
	PersonID string
	Email    string // of people who have it now, in any case of its letters
	Status   serval.Status
	RoleID   string
	Awaiting bool // those with an allocation that waits for a decision
	Running  bool // approved, with a clock that has started

	// Those older than the request with this instant and id; zero for the newest.
	BeforeAt time.Time
	BeforeID string
	Limit    int // at most so many
}

// The requests that a filter lets through; see eventsWhere for why what is
// filtered by is said twice.
const (
	requestsWhere = ` ($1 = '' or person_id = $1) and ($2 = '' or status = $2) and ($3 = '' or role_id = $3)
			and (cast($4 as bigint) = 0 or id in (select request_id from allocation where state = 'pending'))
			and ($8 = '' or person_id in (select id from person where email_fold = $8))
			and (cast($9 as bigint) = 0 or status = 'approved' and clock_started_at <> 0)
			and created_at <= $5 and (created_at < $5 or id collate "C" < $6)
		order by created_at desc, id collate "C" desc limit $7`
	requestsOfAll    = `select ` + requestColumns + ` from request where` + requestsWhere
	requestsOfPerson = `select ` + requestColumns + ` from request where person_id = $1 and` + requestsWhere
	requestsOfStatus = `select ` + requestColumns + ` from request where status = $2 and` + requestsWhere
	requestsOfRole   = `select ` + requestColumns + ` from request where role_id = $3 and` + requestsWhere
	requestsOfEmail  = `select ` + requestColumns + ` from request
		where person_id in (select id from person where email_fold = $8) and` + requestsWhere
	requestsRunning    = `select ` + requestColumns + ` from request where status = 'approved' and` + requestsWhere
	requestsOfAwaiting = `select ` + requestColumns + ` from request
		where id in (select request_id from allocation where state = 'pending') and` + requestsWhere
)

// Requests returns requests, newest first.
func (v *View) Requests(f RequestFilter) ([]*serval.Request, error) {
	list := func(query string) ([]*serval.Request, error) {
		return all(v, scanRequest, query, f.PersonID, string(f.Status), f.RoleID, flag(f.Awaiting),
			cmp.Or(micros(f.BeforeAt), math.MaxInt64), f.BeforeID, f.Limit, serval.FoldEmail(f.Email), flag(f.Running))
	}
	var requests []*serval.Request
	var err error
	switch {
	case f.PersonID != "":
		requests, err = list(requestsOfPerson)
	case f.Email != "":
		requests, err = list(requestsOfEmail)
	case f.Awaiting:
		requests, err = list(requestsOfAwaiting)
	case f.Running:
		requests, err = list(requestsRunning)
	case f.RoleID != "":
		requests, err = list(requestsOfRole)
	case f.Status != "":
		requests, err = list(requestsOfStatus)
	default:
		requests, err = list(requestsOfAll)
	}
	if err != nil {
		return nil, fmt.Errorf("listing requests: %w", err)
	}
	return requests, v.allocations(requests...)
}

// copyOf returns a request that can be changed without changing r.
func copyOf(r *serval.Request) *serval.Request {
	own := *r
	own.Allocations = slices.Clone(r.Allocations)
	for i := range own.Allocations {
		own.Allocations[i].Steps = slices.Clone(r.Allocations[i].Steps)
	}
	return &own
}

// OpenRequests returns the person's requests that are pending or approved,
// newest first.
func (v *View) OpenRequests(personID string) ([]*serval.Request, error) {
	known, err := remember(v, source{"open requests", []string{"request", "allocation"}}, personID, func() ([]*serval.Request, error) {
		requests, err := all(v, scanRequest, `select `+requestColumns+` from request
			where person_id = $1 and status in ('pending', 'approved') order by created_at desc, id collate "C" desc`, personID)
		if err != nil {
			return nil, fmt.Errorf("listing open requests: %w", err)
		}
		return requests, v.allocations(requests...)
	})
	if err != nil {
		return nil, err
	}
	own := make([]*serval.Request, len(known)) // whoever asked may change theirs
	for i, r := range known {
		own[i] = copyOf(r)
	}
	return own, nil
}

// RequestsOfRole returns the open requests for a role.
func (v *View) RequestsOfRole(key serval.RoleKey) ([]*serval.Request, error) {
	requests, err := all(v, scanRequest, `select `+requestColumns+` from request
		where account_id = $1 and role_id = $2 and status in ('pending', 'approved') order by created_at, id collate "C"`,
		key.AccountID, key.RoleID)
	if err != nil {
		return nil, fmt.Errorf("listing the requests of a role: %w", err)
	}
	return requests, v.allocations(requests...)
}

// RequestsOfAccount returns the open requests for roles of an account.
func (v *View) RequestsOfAccount(accountID string) ([]*serval.Request, error) {
	requests, err := all(v, scanRequest, `select `+requestColumns+` from request
		where account_id = $1 and status in ('pending', 'approved') order by created_at, id collate "C"`, accountID)
	if err != nil {
		return nil, fmt.Errorf("listing the requests of an account: %w", err)
	}
	return requests, v.allocations(requests...)
}

// DueRequests returns the ids of requests that time has ended by now.
func (v *View) DueRequests(now time.Time, limit int) ([]string, error) {
	ids, err := all(v, func(row scanner) (id string, err error) { return id, row.Scan(&id) },
		`select id from request where due_at <> 0 and due_at <= $1 order by due_at limit $2`, micros(now), limit)
	if err != nil {
		return nil, fmt.Errorf("listing due requests: %w", err)
	}
	return ids, nil
}

// An allocation, with the request it belongs to.
type allocation struct {
	serval.Allocation
	requestID string
}

// allocations fills in the allocations of requests, a page of them at a time.
func (v *View) allocations(requests ...*serval.Request) error {
	const page = 20 // as many as the query has placeholders
	for some := range slices.Chunk(requests, page) {
		ids := make([]any, page)
		of := make(map[string]*serval.Request, page)
		for i := range ids {
			ids[i] = ""
			if i < len(some) {
				ids[i] = some[i].ID
				of[some[i].ID] = some[i]
			}
		}
		err := v.fill(of, selectAllocations+`
			where request_id in ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
			order by request_id, number`, ids...)
		if err != nil {
			return err
		}
	}
	return nil
}

const selectAllocations = `select request_id, minutes, state, justification, asked_at, decided_by, decided_at,
	superseded_at, reason, break_glass, steps from allocation`

// fill gives each of the requests, by their ids, its allocations of a query.
func (v *View) fill(of map[string]*serval.Request, query string, args ...any) error {
	allocations, err := all(v, scanAllocation, query, args...)
	if err != nil {
		return fmt.Errorf("reading the allocations of requests: %w", err)
	}
	for _, a := range allocations {
		r, ok := of[a.requestID]
		if !ok {
			return fmt.Errorf("reading the allocations of requests: the database answered with those of request %s", a.requestID)
		}
		r.Allocations = append(r.Allocations, a.Allocation)
	}
	return nil
}

func scanAllocation(row scanner) (allocation, error) {
	var a allocation
	var steps string
	var asked, decided, superseded, glass int64
	err := row.Scan(&a.requestID, &a.Minutes, &a.State, &a.Justification, &asked, &a.DecidedBy, &decided, &superseded, &a.Reason, &glass, &steps)
	if err != nil {
		return allocation{}, err
	}
	a.AskedAt, a.DecidedAt, a.SupersededAt = instant(asked), instant(decided), instant(superseded)
	a.BreakGlass = glass != 0
	if err := json.Unmarshal([]byte(steps), &a.Steps); err != nil {
		return allocation{}, err
	}
	return a, nil
}

// SaveRequest keeps r as it is now, with its allocations.
func (t *Tx) SaveRequest(r *serval.Request) error {
	terms, err := json.Marshal(r.Terms)
	if err != nil {
		return fmt.Errorf("encoding terms: %w", err)
	}
	var due int64
	if r.EndedAt.IsZero() {
		_, at, _ := r.Due(t.Now)
		due = micros(at)
	}
	err = t.later("keeping request "+r.ID, `insert into request (`+requestColumns+`, due_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
		on conflict (id) do update set person_id = excluded.person_id, email = excluded.email, status = excluded.status, ended_by = excluded.ended_by, start_at = excluded.start_at,
			expires_at = excluded.expires_at, ended_at = excluded.ended_at, clock_started_at = excluded.clock_started_at,
			ends_at = excluded.ends_at, due_at = excluded.due_at`,
		r.ID, r.BatchID, r.PersonID, r.Email, r.Role.Partition, r.Role.AccountID, r.Role.RoleID, r.Role.ARN,
		string(terms), r.Status, r.EndedBy, r.Justification, r.Ticket, micros(r.StartAt), micros(r.CreatedAt),
		micros(r.ExpiresAt), micros(r.EndedAt), micros(r.ClockStartedAt), micros(r.EndsAt), due)
	if err != nil {
		return err
	}
	// The order matters: the active one is superseded before another becomes it.
	for number, a := range r.Allocations {
		steps, err := json.Marshal(a.Steps)
		if err != nil {
			return fmt.Errorf("encoding steps: %w", err)
		}
		err = t.later("keeping an allocation of request "+r.ID, `insert into allocation
			(request_id, number, minutes, state, justification, asked_at, decided_by, decided_at, superseded_at, reason, break_glass, steps)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
			on conflict (request_id, number) do update set minutes = excluded.minutes, state = excluded.state,
				decided_by = excluded.decided_by, decided_at = excluded.decided_at, superseded_at = excluded.superseded_at,
				reason = excluded.reason, break_glass = excluded.break_glass, steps = excluded.steps`,
			r.ID, number, a.Minutes, a.State, a.Justification, micros(a.AskedAt), a.DecidedBy, micros(a.DecidedAt),
			micros(a.SupersededAt), a.Reason, flag(a.BreakGlass), string(steps))
		if err != nil {
			return err
		}
		if a.State == serval.Active {
			if err := t.noteApproved(r, number, a.DecidedAt); err != nil {
				return err
			}
		}
	}
	return nil
}

// CountOpenRequests returns how many requests of the person are pending or
// approved.
func (v *View) CountOpenRequests(personID string) (n int, err error) {
	err = v.scan(`select count(*) from request where person_id = $1 and status in ('pending', 'approved')`, []any{personID}, &n)
	if err != nil {
		return 0, fmt.Errorf("counting the open requests of person %s: %w", personID, err)
	}
	return n, nil
}

// A Use is a request whose clock has started, with how many sessions were opened
// under it.
type Use struct {
	*serval.Request
	Sessions int
}

// A UseFilter chooses uses of one role.
type UseFilter struct {
	AccountID string
	RoleID    string
	Email     string    // of people who have it now, in any case of its letters; empty for all
	From, To  time.Time // under which somebody had access at some time from the one and before the other
	Limit     int       // at most so many
}

// Uses returns uses of a role, newest first.
func (v *View) Uses(f UseFilter) ([]Use, error) {
	uses, err := all(v, func(row scanner) (u Use, err error) {
		u.Request, err = scanRequest(with{row, []any{&u.Sessions}})
		return u, err
	}, `select `+requestColumns+`, (select count(*) from session where request_id = request.id and state = 'issued') from request
		where role_id = $1 and account_id = $2 and clock_started_at <> 0 and clock_started_at < $4
			and case when ended_at <> 0 and ended_at < ends_at then ended_at else ends_at end > $3
			and ($6 = '' or person_id in (select id from person where email_fold = $6))
		order by clock_started_at desc, id collate "C" desc limit $5`,
		f.RoleID, f.AccountID, micros(f.From), micros(f.To), f.Limit, serval.FoldEmail(f.Email))
	if err != nil {
		return nil, fmt.Errorf("listing the uses of role %s: %w", f.RoleID, err)
	}
	requests := make([]*serval.Request, len(uses))
	for i, u := range uses {
		requests[i] = u.Request
	}
	return uses, v.allocations(requests...)
}

// Awaiting returns how many requests and extensions wait for a decision, and since
// when the oldest of them does.
func (v *View) Awaiting() (n int64, since time.Time, err error) {
	var oldest *int64
	if err := v.scan(`select count(*), min(asked_at) from allocation where state = 'pending'`, nil, &n, &oldest); err != nil {
		return 0, time.Time{}, fmt.Errorf("counting what waits for a decision: %w", err)
	}
	if oldest != nil {
		since = instant(*oldest)
	}
	return n, since, nil
}
