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

const noticeColumns = `id, kind, purpose, request_id, channel, recipients, facts, created_at, state, attempts, next_at, ended_at, error`

func scanNotice(row scanner) (serval.Notice, error) {
	var n serval.Notice
	var request *string
	var to, facts string
	var created, next, ended int64
	err := row.Scan(&n.ID, &n.Kind, &n.Purpose, &request, &n.Channel, &to, &facts, &created, &n.State, &n.Attempts, &next, &ended, &n.Error)
	if err != nil {
		return serval.Notice{}, fmt.Errorf("reading a notice: %w", err)
	}
	if request != nil {
		n.RequestID = *request
	}
	n.CreatedAt, n.NextAt, n.EndedAt = instant(created), instant(next), instant(ended)
	if err := json.Unmarshal([]byte(to), &n.To); err != nil {
		return serval.Notice{}, fmt.Errorf("reading the recipients of notice %s: %w", n.ID, err)
	}
	if err := json.Unmarshal([]byte(facts), &n.Facts); err != nil {
		return serval.Notice{}, fmt.Errorf("reading the facts of notice %s: %w", n.ID, err)
	}
	return n, nil
}

// CreateNotice keeps a new notice, beside what it tells of.
func (t *Tx) CreateNotice(n serval.Notice) error {
	to, err := json.Marshal(n.To)
	if err != nil {
		return fmt.Errorf("encoding recipients: %w", err)
	}
	facts, err := json.Marshal(n.Facts)
	if err != nil {
		return fmt.Errorf("encoding the facts of a notice: %w", err)
	}
	var request any // null where there is none: the column refers to one
	if n.RequestID != "" {
		request = n.RequestID
	}
	return t.later("keeping a notice", `insert into notice (`+noticeColumns+`)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		n.ID, n.Kind, n.Purpose, request, n.Channel, string(to), string(facts), micros(n.CreatedAt), n.State, n.Attempts,
		micros(n.NextAt), micros(n.EndedAt), n.Error)
}

// NoticesOf returns the notices about a request, oldest first. What is only
// told when its time comes is none before.
func (v *View) NoticesOf(requestID string) ([]serval.Notice, error) {
	notices, err := all(v, scanNotice, `select `+noticeColumns+` from notice where request_id = $1
		order by created_at, id collate "C"`, requestID)
	if err != nil {
		return nil, fmt.Errorf("listing the notices of request %s: %w", requestID, err)
	}
	return slices.DeleteFunc(notices, func(n serval.Notice) bool {
		return n.Purpose == serval.Ending && n.State == serval.NoticePending && n.Attempts == 0
	}), nil
}

// Notice returns the notice with the id.
func (v *View) Notice(id string) (serval.Notice, error) {
	return one(v, "There is no such notice.", scanNotice, `select `+noticeColumns+` from notice where id = $1`, id)
}

// A NoticeFilter chooses notices in a state.
type NoticeFilter struct {
	State serval.NoticeState

	// Those made before the notice with this instant and id; zero for the newest.
	BeforeAt time.Time
	BeforeID string
	Limit    int // at most so many
}

// Notices returns notices, the newest first.
func (v *View) Notices(f NoticeFilter) ([]serval.Notice, error) {
	notices, err := all(v, scanNotice, `select `+noticeColumns+` from notice where state = $1
			and created_at <= $2 and (created_at < $2 or id collate "C" < $3)
		order by created_at desc, id collate "C" desc limit $4`, string(f.State), cmp.Or(micros(f.BeforeAt), math.MaxInt64), f.BeforeID, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("listing notices: %w", err)
	}
	return notices, nil
}

// HasDueNotices reports whether a channel has anything to deliver by now.
func (v *View) HasDueNotices(channel string, now time.Time) (bool, error) {
	due, err := all(v, func(row scanner) (id string, err error) { return id, row.Scan(&id) },
		`select id from notice where state = 'pending' and next_at <= $2 and channel = $1 limit 1`, channel, micros(now))
	if err != nil {
		return false, fmt.Errorf("looking for due notices: %w", err)
	}
	return len(due) > 0, nil
}

// ClaimNotices takes at most limit notices of a channel that are due, oldest
// first, for whoever called, until the instant until: nobody else gets them
// before. The attempt is counted.
func (t *Tx) ClaimNotices(channel string, until time.Time, limit int) ([]serval.Notice, error) {
	notices, err := all(&t.View, scanNotice, `update notice set next_at = $3, attempts = attempts + 1
		where state = 'pending' and id in (select id from notice where state = 'pending' and next_at <= $2 and channel = $1 order by next_at, created_at limit $4)
		returning `+noticeColumns, channel, micros(t.Now), micros(until), limit)
	if err != nil {
		return nil, fmt.Errorf("claiming notices: %w", err)
	}
	slices.SortStableFunc(notices, func(a, b serval.Notice) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return notices, nil
}

// SaveNotice keeps what became of a notice in the given attempt. Where somebody
// else has claimed it since, or it is gone, nothing is changed and held is false.
func (t *Tx) SaveNotice(n serval.Notice, attempt int) (held bool, err error) {
	changed, err := t.execCount("keeping what became of a notice",
		`update notice set state = $2, attempts = $3, next_at = $4, ended_at = $5, error = $6 where id = $1 and attempts = $7`,
		n.ID, n.State, n.Attempts, micros(n.NextAt), micros(n.EndedAt), n.Error, attempt)
	return changed > 0, err
}

// DropNotice forgets a notice in favour of others, or because it has nothing to
// tell any more; held as in SaveNotice.
func (t *Tx) DropNotice(n serval.Notice) (held bool, err error) {
	changed, err := t.execCount("dropping a notice", `delete from notice where id = $1 and attempts = $2`, n.ID, n.Attempts)
	return changed > 0, err
}

// DropEnding forgets what was to be told before the end of a request: the end
// has moved.
func (t *Tx) DropEnding(requestID string) error {
	return t.exec("dropping a notice of an end", `delete from notice where request_id = $1 and purpose = $2 and state = 'pending'`,
		requestID, serval.Ending)
}

// DropSent forgets notices that were delivered before an instant, except what
// was done past somebody, at most limit of them.
func (t *Tx) DropSent(before time.Time, limit int) error {
	return t.exec("dropping old notices", `delete from notice where id in (select id from notice
		where state = 'sent' and ended_at < $1 and purpose <> $2 order by ended_at limit $3)`, micros(before), serval.Alarm, limit)
}

// A NoticeQueue says how a channel stands.
type NoticeQueue struct {
	Channel string
	Pending int64     // due, and not delivered
	Oldest  time.Time // when the oldest of them was due first, or made
	Failed  int64     // for good
}

// NoticeQueues returns how each channel stands that has anything due, or
// failed.
func (v *View) NoticeQueues(now time.Time) ([]NoticeQueue, error) {
	scan := func(row scanner) (q NoticeQueue, err error) {
		var oldest int64
		err = row.Scan(&q.Channel, &q.Pending, &oldest)
		q.Oldest = instant(oldest)
		return q, err
	}
	queues, err := all(v, scan, `select channel, count(*), min(created_at) from notice
		where state = 'pending' and (next_at <= $1 or attempts > 0) group by channel order by channel`, micros(now))
	if err != nil {
		return nil, fmt.Errorf("counting notices: %w", err)
	}
	failed, err := all(v, scan, `select channel, count(*), 0 from notice where state = 'failed' group by channel order by channel`)
	if err != nil {
		return nil, fmt.Errorf("counting failed notices: %w", err)
	}
	for _, f := range failed {
		i := slices.IndexFunc(queues, func(q NoticeQueue) bool { return q.Channel == f.Channel })
		if i < 0 {
			i, queues = len(queues), append(queues, NoticeQueue{Channel: f.Channel})
		}
		queues[i].Failed = f.Pending
	}
	return queues, nil
}

// EmailsOfGroups returns the emails of people who were in one of the groups when
// they last signed in, at most limit of them, without those who are suspended.
func (v *View) EmailsOfGroups(groups []string, limit int) ([]string, error) {
	var emails []string
	for _, g := range groups {
		quoted, err := json.Marshal(g)
		if err != nil {
			return nil, fmt.Errorf("encoding a group: %w", err)
		}
		// What replace finds is there, in both databases and in its very letters.
		some, err := all(v, func(row scanner) (email string, err error) { return email, row.Scan(&email) },
			`select email from person where suspended = '' and replace(groups, $1, '') <> groups order by created_at, id collate "C" limit $2`,
			string(quoted), limit)
		if err != nil {
			return nil, fmt.Errorf("listing the people of a group: %w", err)
		}
		emails = append(emails, some...)
	}
	return emails, nil
}
