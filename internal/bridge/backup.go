package bridge

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// Backup writes the SQLite database to a new file while it is being served; to
// out where path is "-", as out of a pod that no file comes out of.
func Backup(ctx context.Context, url serval.Secret, path string, out io.Writer) (err error) {
	s, err := store.Open(ctx, store.Config{URL: url, ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if path == "-" {
		return s.BackupTo(ctx, out)
	}
	return s.Backup(ctx, path)
}

// A Restore says how a database that was set back is made safe to serve.
type Restore struct {
	DatabaseURL serval.Secret
	Secret      serval.Secret
	Older       []serval.Secret
	// Audit is an export of the audit log from after the backup; nil where there
	// is none. What it says was taken away, and the backup has again, is found.
	Audit io.Reader
	// Revoke takes that away once more.
	Revoke bool
	Log    *zap.Logger
}

// A Returned is an access that was ended after the backup was made, and is open in
// it.
type Returned struct {
	Request *serval.Request
	Ended   serval.Event // how it was, as the later log says
	Revoked bool
}

// A Restored is what came of it.
type Restored struct {
	Head     store.Head // of the audit log as it was restored
	Lost     int64      // rows of the later log that the database does not have
	Logins   int64      // that were ended
	Returned []Returned // to be looked at; what nobody has exported is not among them
	Open     int        // requests that are pending or approved
}

// Run makes the database safe to serve, before any bridge does. The audit log goes
// on from where the backup has it, with an event that says so.
func (r Restore) Run(ctx context.Context) (done Restored, err error) {
	chain := serval.NewChain(r.Secret, r.Older...)
	s, err := store.Open(ctx, store.Config{URL: r.DatabaseURL, Chain: chain})
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Migrate(ctx); err != nil {
		return done, err
	}
	if err := s.CheckSecret(ctx); err != nil {
		return done, err
	}
	if err := s.Read(ctx, func(v *store.View) (err error) {
		done.Head, err = v.VerifyChain(store.Head{})
		return err
	}); err != nil {
		return done, fmt.Errorf("the audit log of the restored database: %w", err)
	}
	var ended map[string]serval.Event
	if r.Audit != nil {
		if ended, done.Lost, err = readLater(r.Audit, chain, done.Head); err != nil {
			return done, err
		}
	}
	d := door.New(s, r.Log)
	err = d.Act(ctx, serval.System(), serval.StoreRestore, "", func(tx *store.Tx, e *serval.Event) (err error) {
		done.Returned = nil
		if done.Logins, err = tx.Restored(); err != nil {
			return err
		}
		for _, status := range []serval.Status{serval.StatusPending, serval.StatusApproved} {
			filter := store.RequestFilter{Status: status, Limit: restorePage}
			for {
				page, err := tx.Requests(filter)
				if err != nil {
					return err
				}
				for _, one := range page {
					if err := r.look(d, tx, one, ended, &done); err != nil {
						return err
					}
				}
				if len(page) < restorePage {
					break
				}
				last := page[len(page)-1]
				filter.BeforeAt, filter.BeforeID = last.CreatedAt, last.ID
			}
		}
		e.Detail = map[string]string{
			"from_row": fmt.Sprint(done.Head.Seq), "from_hash": done.Head.Hash, "rows_lost": fmt.Sprint(done.Lost), "logins_ended": fmt.Sprint(done.Logins),
			"returned": fmt.Sprint(len(done.Returned)),
		}
		return nil
	})
	return done, err
}

// restorePage is how many requests are looked at in one go.
const restorePage = 500

// look notes a request that is open again, and takes it away where that is asked.
func (r Restore) look(d *door.Door, tx *store.Tx, one *serval.Request, ended map[string]serval.Event, done *Restored) error {
	done.Open++
	event, was := ended[one.ID]
	if !was {
		return nil
	}
	returned := Returned{Request: one, Ended: event}
	defer func() { done.Returned = append(done.Returned, returned) }()
	if !r.Revoke {
		return nil
	}
	end := one.Fail
	if one.State() == serval.StateRunning {
		end = one.Revoke
	}
	act, err := end(serval.System(), tx.Now)
	if serval.IsRefusal(err) {
		return nil // its time is over; it ends by itself
	}
	if err != nil {
		return err
	}
	returned.Revoked = true
	if err := tx.SaveRequest(one); err != nil {
		return err
	}
	e := door.Event(serval.System(), act, one.ID, serval.OutcomeDone)
	e.Detail, e.Reason = one.Facts(), "it was ended after the backup that the database was restored from"
	if err := d.TellOf(tx, serval.System(), act, one, e.Reason); err != nil {
		return err
	}
	return tx.Append(e)
}

// takesAway are the actions after which an access is less than before. It is read
// only.
var takesAway = []serval.Action{
	serval.RequestRevoke, serval.RequestDone, serval.RequestCancel, serval.RequestDeny, serval.RequestExpire, serval.RequestFail, serval.RequestShorten,
}

// readLater reads an export that goes on after the row head, and returns the
// last event of each request that took something away, and how many rows there
// are. One that is of another history, or was changed, is refused.
func readLater(export io.Reader, chain serval.Chain, head store.Head) (ended map[string]serval.Event, rows int64, err error) {
	ended = map[string]serval.Event{}
	last, met := head, head.Seq == 0
	lines := bufio.NewScanner(export)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var l serval.Link
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, 0, fmt.Errorf("the export of the audit log is no JSON lines: %w", err)
		}
		switch {
		case l.Seq < head.Seq:
			continue
		case l.Seq == head.Seq:
			if l.Hash != head.Hash {
				return nil, 0, fmt.Errorf("the export is of another history: its row %d is not the database's", l.Seq)
			}
			met = true
			continue
		case !met:
			return nil, 0, fmt.Errorf("the export begins after row %d, which is the database's last; give one that has it", head.Seq)
		}
		if err := chain.Check(last.Seq, last.Hash, l); err != nil {
			return nil, 0, fmt.Errorf("the export of the audit log: %w", err)
		}
		last = store.Head{Seq: l.Seq, Hash: l.Hash}
		rows++
		if l.Outcome == serval.OutcomeDone && slices.Contains(takesAway, l.Action) {
			ended[l.Target] = l.Event
		}
	}
	if err := lines.Err(); err != nil {
		return nil, 0, fmt.Errorf("reading the export of the audit log: %w", err)
	}
	if !met {
		return nil, 0, fmt.Errorf("the export ends before row %d, which is the database's last", head.Seq)
	}
	return ended, rows, nil
}

// String tells it to an operator.
func (r Restored) String() string {
	text := fmt.Sprintf("The audit log holds to row %d and goes on there; a later log has %d rows more. %d logins were ended, and every account is to be read in full.\n",
		r.Head.Seq, r.Lost, r.Logins)
	for _, one := range r.Returned {
		what := "is open again"
		if one.Revoked {
			what = "was open again, and is ended once more"
		}
		text += fmt.Sprintf("%s of %s for %s %s: after the backup, %s at %s by %s.\n", one.Request.ID, one.Request.Email, one.Request.Role.ARN, what,
			one.Ended.Action, one.Ended.At.UTC().Format(time.RFC3339), one.Ended.Actor)
	}
	return text + fmt.Sprintf("%d requests are pending or approved; look them through, since what was not exported is not known.\n", r.Open)
}
