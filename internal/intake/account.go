package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// claimFor is how long a sync is one worker's: longer than the twenty minutes
// that it may read one account.
const claimFor = 30 * time.Minute

// deltaClaimFor is the same of a delta, which is read in five.
const deltaClaimFor = 10 * time.Minute

// WorkerAccounts returns the accounts that a worker was given. The version
// changes when the list does.
func (t *Intake) WorkerAccounts(ctx context.Context, who serval.Principal) (list []store.Account, version string, err error) {
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
			list = append(list, a)
			text, err := json.Marshal(a.Account)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "%s %d\n", text, a.SyncRequestedAt.UnixMicro())
		}
		version = hex.EncodeToString(sum.Sum(nil)[:8])
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return list, version, nil
}

// WaitAccounts is WorkerAccounts, answered as soon as the version is another
// than the one the worker has, or when the time is up.
func (t *Intake) WaitAccounts(ctx context.Context, who serval.Principal, version string, wait time.Duration) (list []store.Account, now string, err error) {
	err = t.door.Await(ctx, wait, func() (bool, error) {
		list, now, err = t.WorkerAccounts(ctx, who)
		return now != version, err
	})
	return list, now, err
}

// identifyEvery is how often it is noted that a worker still says the same of
// itself.
const identifyEvery = time.Hour

// Identify notes who a worker says that it is to AWS: the account that trust
// policies have to name. Only what changed is recorded.
func (t *Intake) Identify(ctx context.Context, who serval.Principal, arn string) error {
	var caller serval.CallerARN
	var known store.Worker
	err := t.view(ctx, who, serval.WorkerIdentify, who.Worker, func(v *store.View) (err error) {
		if caller, err = serval.ParseCallerARN(arn); err != nil {
			return err
		}
		known, err = v.Worker(who.Worker)
		if serval.IsRefusal(err, serval.NotFound) {
			err = nil
		}
		return err
	})
	same := known.ARN == arn && slices.Equal(known.Bound, who.Bound) && (known.Bound == nil) == (who.Bound == nil)
	if err != nil || same && t.door.Now().Sub(known.SeenAt) < identifyEvery {
		return err
	}
	return t.act(ctx, who, serval.WorkerIdentify, who.Worker, func(tx *store.Tx, e *serval.Event) error {
		if same {
			e.Action = ""
		}
		e.Detail = map[string]string{"arn": arn, "account_id": caller.AccountID}
		return tx.SaveWorker(who, caller)
	})
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

// An Opened is a sync that was claimed.
type Opened struct {
	Generation int64
	Until      time.Time // the claim's end
	LookedAt   time.Time // when the last sync of either kind that was accepted had started
	Known      []serval.KnownRole
}

// OpenSync claims the next sync of an account for a worker and issues its
// generation. While another worker has it, the refusal is a conflict whose
// detail says until when. No kind means a full sync.
func (t *Intake) OpenSync(ctx context.Context, who serval.Principal, accountID, name string, kind serval.SyncKind) (o Opened, err error) {
	err = t.act(ctx, who, serval.SyncOpen, accountID, func(tx *store.Tx, e *serval.Event) error {
		e.Action = "" // the push that follows is what counts
		o = Opened{}
		if !who.MayPush(accountID) {
			return noAccount()
		}
		hold := claimFor
		switch kind {
		case "", serval.SyncFull:
		case serval.SyncDelta:
			hold = deltaClaimFor
		default:
			return serval.Refuse(serval.Invalid, "kind is full or delta.")
		}
		a, err := tx.Account(accountID)
		if serval.IsRefusal(err, serval.NotFound) {
			return noAccount()
		}
		if err != nil {
			return err
		}
		var ok bool
		o.LookedAt = a.LookedAt
		if o.Generation, o.Until, ok, err = tx.IssueGeneration(accountID, claim(who, name), tx.Now.Add(hold)); err != nil {
			return err
		}
		if !ok {
			return &serval.Refusal{Kind: serval.Conflict, Reason: "Another worker is reading this account.",
				Detail: map[string]string{"until": o.Until.UTC().Format(time.RFC3339Nano)}}
		}
		return nil
	})
	if err != nil {
		return Opened{}, err
	}
	// Not within the claim's transaction, which holds everybody up. What changes
	// in between can only be a push that the claim has fenced off.
	err = t.view(ctx, who, serval.UpstreamRead, accountID, func(v *store.View) error {
		o.Known = []serval.KnownRole{}
		haul := t.door.Passage.Haul()
		return v.KnownStates(accountID, func(k store.KnownState) error {
			o.Known = append(o.Known, k.Role())
			return haul.GiveWay(ctx)
		})
	})
	if err != nil {
		return Opened{}, err
	}
	return o, nil
}
