package control

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// Declare makes the accounts and access policies of the configuration file the
// ones in force. Accounts that the file no longer has are disconnected; what
// was connected otherwise stays.
func (p *Plane) Declare(ctx context.Context, who serval.Principal, accounts []serval.Account, policies []serval.AccessPolicy) error {
	err := p.act(ctx, who, serval.AccountDeclare, "", func(tx *store.Tx, e *serval.Event) error {
		e.Action = "" // each change has its own
		known, err := tx.Accounts()
		if err != nil {
			return err
		}
		declared := map[string]bool{}
		for _, a := range accounts {
			declared[a.ID] = true
			if err := declareAccount(tx, who, a, known); err != nil {
				return err
			}
		}
		for _, a := range known {
			if a.Source != store.SourceFile || declared[a.ID] {
				continue
			}
			if err := tx.RemoveAccount(a.ID); err != nil {
				return err
			}
			if err := tx.Append(door.Event(who, serval.AccountRemove, a.ID, serval.OutcomeDone)); err != nil {
				return err
			}
		}
		return declarePolicies(tx, who, policies)
	})
	if err != nil {
		return err
	}
	p.door.Changed.Raise()
	return nil
}

func declareAccount(tx *store.Tx, who serval.Principal, a serval.Account, known []store.Account) error {
	for _, k := range known {
		if k.Source == store.SourceFile && isSame(k.Account, a) {
			return nil
		}
	}
	if err := tx.DeclareAccount(a, store.SourceFile); err != nil {
		return err
	}
	e := door.Event(who, serval.AccountDeclare, a.ID, serval.OutcomeDone)
	e.Detail = map[string]string{"name": a.Name, "role_arn": a.RoleARN}
	return tx.Append(e)
}

// isSame reports whether a and b declare the same.
func isSame(a, b serval.Account) bool {
	sameWay := slices.Equal(a.Via, b.Via) // whether it is nil or empty
	a.Via, b.Via = nil, nil
	return sameWay && reflect.DeepEqual(a, b)
}

// KeepExternalIDs refuses a fingerprint of team and External ID key that is not
// the one the store knows, since every trust policy would break; accept keeps
// it nevertheless. The first is kept.
func (p *Plane) KeepExternalIDs(ctx context.Context, who serval.Principal, fingerprint string, accept bool) error {
	return p.act(ctx, who, serval.AccountDeclare, "external-ids", func(tx *store.Tx, e *serval.Event) error {
		before, err := tx.Meta("external_ids")
		if err != nil {
			return err
		}
		switch {
		case before == fingerprint:
			e.Action = ""
			return nil
		case before != "" && !accept:
			return serval.Refuse(serval.FailedPrecondition,
				"The team or SERVAL_EXTERNAL_ID_SECRET has changed, and with it every External ID: no trust policy would fit any more. Put them back, or start once with --accept-new-external-ids.")
		}
		e.Detail = map[string]string{"fingerprint": fingerprint, "before": before}
		return tx.SetMeta("external_ids", fingerprint)
	})
}

// An Account is a connected account as an admin sees it.
type Account struct {
	store.Account
	Roles, Held, Stale int
}

// Accounts returns the connected accounts.
func (p *Plane) Accounts(ctx context.Context, who serval.Principal) (list []Account, err error) {
	err = p.view(ctx, who, serval.AccountRead, "", func(v *store.View) error {
		accounts, err := v.Accounts()
		if err != nil {
			return err
		}
		for _, a := range accounts {
			if err := v.FillLastSync(&a); err != nil {
				return err
			}
			account := Account{Account: a}
			if account.Roles, account.Held, account.Stale, err = v.CountRoles(a.ID); err != nil {
				return err
			}
			list = append(list, account)
		}
		return nil
	})
	return list, err
}

// RequestSync asks for an account to be read as soon as its worker can.
func (p *Plane) RequestSync(ctx context.Context, who serval.Principal, accountID string) error {
	err := p.act(ctx, who, serval.SyncRequest, accountID, func(tx *store.Tx, e *serval.Event) error {
		if _, err := tx.Account(accountID); err != nil {
			return err
		}
		return tx.RequestSync(accountID)
	})
	if err == nil {
		p.door.Changed.Raise()
	}
	return err
}

// ConfirmRemovals removes the roles of an account whose removal is held, and
// returns how many.
func (p *Plane) ConfirmRemovals(ctx context.Context, who serval.Principal, accountID string) (n int, err error) {
	err = p.act(ctx, who, serval.RemovalConfirm, accountID, func(tx *store.Tx, e *serval.Event) error {
		if _, err := tx.Account(accountID); err != nil {
			return err
		}
		keys, err := tx.RemoveHeld(accountID)
		if err != nil {
			return err
		}
		n = len(keys)
		if n == 0 {
			return serval.Refuse(serval.FailedPrecondition, "No removal of this account waits to be confirmed.")
		}
		e.Detail = map[string]string{"removed": fmt.Sprint(n)}
		return door.FailRequests(tx, keys)
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
