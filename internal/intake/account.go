package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// claimFor is how long a sync is one worker's: longer than the twenty minutes
// that it may read one account.
const claimFor = 30 * time.Minute

// A WorkerAccount is an account as its worker needs it.
type WorkerAccount struct {
	store.Account
	KnownRoles []string // role ids
}

// WorkerAccounts returns the accounts that a worker was given. The version
// changes when the list does.
func (t *Intake) WorkerAccounts(ctx context.Context, who serval.Principal) (list []WorkerAccount, version string, err error) {
	return t.workerAccounts(ctx, who, "")
}

// workerAccounts is WorkerAccounts, without known roles where the version is
// still the one that the worker has: who waits looks often, and an estate has
// a million of them.
func (t *Intake) workerAccounts(ctx context.Context, who serval.Principal, has string) (list []WorkerAccount, version string, err error) {
	err = t.view(ctx, who, serval.UpstreamRead, "", func(v *store.View) error {
		accounts, err := v.Accounts()
		if err != nil {
			return err
		}
		sum := sha256.New()
		for _, a := range accounts {
			if !who.MayPush(a.ID) {
				continue
			}
			list = append(list, WorkerAccount{Account: a})
			text, err := json.Marshal(a.Account)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "%s %d\n", text, a.SyncRequestedAt.UnixMicro())
		}
		if version = hex.EncodeToString(sum.Sum(nil)[:8]); version == has {
			return nil
		}
		for i := range list {
			known, err := v.KnownRoles(list[i].ID)
			if err != nil {
				return err
			}
			for _, k := range known {
				list[i].KnownRoles = append(list[i].KnownRoles, k.Key.RoleID)
			}
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return list, version, nil
}

// WaitAccounts is WorkerAccounts, answered as soon as the version is another
// than the one the worker has, or when the time is up.
func (t *Intake) WaitAccounts(ctx context.Context, who serval.Principal, version string, wait time.Duration) ([]WorkerAccount, string, error) {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for {
		changed := t.door.Changed.Wait() // before looking, so that nothing is missed between
		list, now, err := t.workerAccounts(ctx, who, version)
		if err != nil || now != version {
			return list, now, err
		}
		again := time.NewTimer(time.Second) // another replica may have changed something
		select {
		case <-changed:
		case <-again.C:
		case <-deadline.C:
			again.Stop()
			return t.WorkerAccounts(ctx, who)
		case <-ctx.Done():
			again.Stop()
			return nil, "", ctx.Err()
		}
		again.Stop()
	}
}

// noAccount is the answer both for an account that is not there and for one
// that the worker was not given.
func noAccount() error {
	return serval.Refuse(serval.NotFound, "There is no such account for this worker.")
}

// claim names a replica of a worker as the one that reads an account.
func claim(who serval.Principal, replica string) string {
	return who.Worker + "/" + strings.ReplaceAll(serval.Cut(replica, 200), "/", "-")
}

// hasClaimed reports whether a replica of the worker who opened the last sync
// of a.
func hasClaimed(who serval.Principal, a store.Account) bool {
	i := strings.LastIndexByte(a.ClaimedBy, '/') // a replica's name has none
	return i > 0 && a.ClaimedBy[:i] == who.Worker
}

// isOpen reports whether the last sync of a is who's, and its push has not come.
func isOpen(who serval.Principal, a store.Account) bool {
	return hasClaimed(who, a) && a.Generation > a.AcceptedGeneration
}

// isAccepted reports whether the push of the last sync of a was accepted; it may
// be repeated.
func isAccepted(a store.Account) bool {
	return a.AcceptedGeneration > 0 && a.AcceptedGeneration == a.Generation
}

// OpenSync claims the next sync of an account for a worker and issues its
// generation. While another worker has it, the refusal is a conflict whose
// detail says until when.
func (t *Intake) OpenSync(ctx context.Context, who serval.Principal, accountID, name string) (generation int64, until time.Time, err error) {
	err = t.act(ctx, who, serval.SyncOpen, accountID, func(tx *store.Tx, e *serval.Event) error {
		e.Action = "" // the push that follows is what counts
		if !who.MayPush(accountID) {
			return noAccount()
		}
		var ok bool
		generation, until, ok, err = tx.IssueGeneration(accountID, claim(who, name), tx.Now.Add(claimFor))
		if serval.IsRefusal(err, serval.NotFound) {
			return noAccount()
		}
		if err == nil && !ok {
			return &serval.Refusal{Kind: serval.Conflict, Reason: "Another worker is reading this account.",
				Detail: map[string]string{"until": until.UTC().Format(time.RFC3339Nano)}}
		}
		return err
	})
	if err != nil {
		return 0, time.Time{}, err
	}
	return generation, until, nil
}
