package store

import (
	"encoding/json"
	"fmt"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const noticeColumns = `id, kind, request_id, channel, recipients, facts, created_at, state, attempts, next_at, ended_at, error`

func scanNotice(row scanner) (serval.Notice, error) {
	var n serval.Notice
	var to, facts string
	var created, next, ended int64
	err := row.Scan(&n.ID, &n.Kind, &n.RequestID, &n.Channel, &to, &facts, &created, &n.State, &n.Attempts, &next, &ended, &n.Error)
	if err != nil {
		return serval.Notice{}, fmt.Errorf("reading a notice: %w", err)
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
	return t.exec("keeping a notice", `insert into notice (`+noticeColumns+`)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		n.ID, n.Kind, n.RequestID, n.Channel, string(to), string(facts), micros(n.CreatedAt), n.State, n.Attempts,
		micros(n.NextAt), micros(n.EndedAt), n.Error)
}

// NoticesOf returns the notices about a request, oldest first.
func (v *View) NoticesOf(requestID string) ([]serval.Notice, error) {
	notices, err := all(v, scanNotice, `select `+noticeColumns+` from notice where request_id = $1
		order by created_at, id collate "C"`, requestID)
	if err != nil {
		return nil, fmt.Errorf("listing the notices of request %s: %w", requestID, err)
	}
	return notices, nil
}
