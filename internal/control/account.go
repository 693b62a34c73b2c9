package control

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// maxAccounts is how many accounts may be connected over the API.
const maxAccounts = 5000

// Declare makes the accounts and access policies of the configuration file the
// ones in force. What the file names is the file's, also where it was connected
// over the API before. Accounts that the file no longer has are disconnected;
// what was connected otherwise stays.
//
// Where the file that is in force has a higher revision than this one, nothing is
// declared: this replica's file is an older one. That is refused with the cause
// OlderFile, and for the caller to tell, once. A file without a revision, 0, is
// taken as it is, and then so is the next with any.
func (p *Plane) Declare(ctx context.Context, who serval.Principal, revision int64, accounts []serval.Account, policies []serval.AccessPolicy) error {
	// A replica whose file is an older one asks every two seconds, for as long as it
	// is: nobody else waits for that.
	var older *serval.Refusal
	err := p.view(ctx, who, serval.AccountDeclare, "", func(v *store.View) (err error) {
		older, err = olderFile(v, revision)
		return err
	})
	if err != nil {
		return err
	}
	if older != nil {
		return older
	}
	err = p.act(ctx, who, serval.AccountDeclare, "", func(tx *store.Tx, e *serval.Event) (err error) {
		e.Action = "" // each change has its own
		if older, err = olderFile(&tx.View, revision); err != nil || older != nil {
			e.Outcome = ""
			return err
		}
		if err := keepRevision(tx, revision); err != nil {
			return err
		}
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
			removed := door.Event(who, serval.AccountRemove, a.ID, serval.OutcomeDone)
			if err := p.disconnect(tx, a.ID, &removed); err != nil {
				return err
			}
			if err := tx.Append(removed); err != nil {
				return err
			}
		}
		return declarePolicies(tx, who, policies)
	})
	if err != nil {
		return err
	}
	if older != nil {
		return older
	}
	p.door.Changed.Raise()
	return nil
}

func declareAccount(tx *store.Tx, who serval.Principal, a serval.Account, known []store.Account) error {
	e := door.Event(who, serval.AccountDeclare, a.ID, serval.OutcomeDone)
	e.Detail = accountDetail(a)
	for _, k := range known {
		switch {
		case k.ID != a.ID:
		case k.Source == store.SourceFile && isSame(k.Account, a):
			return nil
		case k.Source == store.SourceAPI:
			e.Detail["taken_over"] = "it was connected over the API"
		}
	}
	if err := tx.DeclareAccount(a, store.SourceFile); err != nil {
		return err
	}
	return tx.Append(e)
}

// accountDetail is what an event tells of an account.
func accountDetail(a serval.Account) map[string]string {
	return map[string]string{"name": a.Name, "role_arn": a.RoleARN}
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
		if before != "" {
			// The file's accounts get theirs when it is declared.
			if err := tx.SetExternalIDs(p.settings.ExternalID); err != nil {
				return err
			}
		}
		return tx.SetMeta("external_ids", fingerprint)
	})
}

// An Account is a connected account as an admin sees it.
type Account struct {
	store.Account
	Roles, Held, Stale int
	Connect            Connect     // what to paste; only where one account was asked for
	LastCheck          *serval.Run // that came to an end; nil where there is none
	Lack               *trust.Lack // of its OIDC provider; nil where nothing is known to be lacking
}

// An AccountFilter chooses a page of the accounts.
type AccountFilter struct {
	ByName bool   // in the order of their names, without regard to ASCII case
	After  string // the place of an account: those behind it
	Limit  int    // 0: all
}

// Place returns where an account stands in the order, for After.
func (f AccountFilter) Place(a serval.Account) string {
	if f.ByName {
		return serval.FoldEmail(a.Name) + "\x00" + a.ID
	}
	return a.ID
}

// Accounts returns the connected accounts in the order of their ids, unless asked
// for by name, and whether there are more.
func (p *Plane) Accounts(ctx context.Context, who serval.Principal, f AccountFilter) (list []Account, more bool, err error) {
	err = p.view(ctx, who, serval.AccountRead, "", func(v *store.View) error {
		accounts, err := v.Accounts()
		if err != nil {
			return err
		}
		slices.SortFunc(accounts, func(a, b store.Account) int {
			return strings.Compare(f.Place(a.Account), f.Place(b.Account))
		})
		for _, a := range accounts {
			if f.Place(a.Account) <= f.After {
				continue
			}
			if f.Limit > 0 && len(list) == f.Limit {
				more = true
				break
			}
			account, err := p.fill(v, a)
			if err != nil {
				return err
			}
			list = append(list, account)
		}
		return nil
	})
	return list, more, err
}

// AccountByID returns one connected account, with what connects it.
func (p *Plane) AccountByID(ctx context.Context, who serval.Principal, id string) (a Account, err error) {
	err = p.view(ctx, who, serval.AccountRead, id, func(v *store.View) error {
		kept, err := v.Account(id)
		if err != nil {
			return err
		}
		if a, err = p.fill(v, kept); err != nil {
			return err
		}
		a.Connect, err = p.connect(v, a.Account.Account)
		return err
	})
	return a, err
}

func (p *Plane) fill(v *store.View, a store.Account) (Account, error) {
	if err := v.FillLastSync(&a); err != nil {
		return Account{}, err
	}
	account := Account{Account: a}
	var err error
	if account.Roles, account.Held, account.Stale, err = v.CountRoles(a.ID); err != nil {
		return Account{}, err
	}
	account.Lack = p.attempt(a.RoleARN).WithProvider(a.OIDCProvider).Lack()
	account.LastCheck, err = v.LastCheck(a.ID)
	return account, err
}

// chosenExternalID is the fault of who wants to choose. S-23
const chosenExternalID = "external_id: nobody chooses it; it is derived, and shown where the account is connected."

// hops returns the roles on the way with the team's External ID for each, and the
// fault of who wants to choose one. Saying it again is no choice. S-23
func (p *Plane) hops(via []serval.Hop) (own []serval.Hop, faults []string) {
	for i, hop := range via {
		if hop.ExternalID != "" && hop.ExternalID != p.settings.ExternalID {
			faults = append(faults, fmt.Sprintf("via[%d].%s", i, chosenExternalID))
		}
		own = append(own, serval.Hop{RoleARN: hop.RoleARN, ExternalID: p.settings.ExternalID})
	}
	return own, faults
}

// ConnectAccount connects an account. Its External ID is the team's, as is that of
// each role on the way: the same each time, and nobody's choice. What was known of it before it was disconnected
// is history; it is read anew, and nobody has a grant there.
func (p *Plane) ConnectAccount(ctx context.Context, who serval.Principal, a serval.Account) error {
	var chosen []string
	a.Via, chosen = p.hops(a.Via)
	if a.ExternalID != "" {
		chosen = append(chosen, chosenExternalID)
	}
	a.ExternalID = p.settings.ExternalID
	if arn, err := serval.ParseRoleARN(a.RoleARN); err == nil && a.Partition == "" {
		a.Partition = arn.Partition
	}
	err := p.act(ctx, who, serval.AccountConnect, a.ID, func(tx *store.Tx, e *serval.Event) error {
		if faults := append(a.Faults(), chosen...); len(faults) > 0 {
			return faulty("This account cannot be connected", faults)
		}
		known, err := tx.Accounts()
		if err != nil {
			return err
		}
		var n int
		for _, k := range known {
			switch {
			case k.ID == a.ID && k.Source == store.SourceFile:
				return p.declared(k)
			case k.ID == a.ID:
				return serval.Refuse(serval.Conflict, "Account %s is connected already, as %s. Change it, or disconnect it first.", k.ID, k.Name)
			case k.Source == store.SourceAPI:
				n++
			}
		}
		if n >= maxAccounts {
			return serval.Refuse(serval.FailedPrecondition, "%d accounts are connected, and no more are taken.", n)
		}
		e.Detail = accountDetail(a)
		return tx.DeclareAccount(a, store.SourceAPI)
	})
	if err == nil {
		p.door.Changed.Raise()
	}
	return err
}

// declared refuses to change what is the configuration file's.
func (p *Plane) declared(a store.Account) error {
	return serval.Refuse(serval.FailedPrecondition, "Account %s (%s) is declared in the configuration file%s. Change it there.", a.ID, a.Name, p.file())
}

// An AccountChange says what to change of an account; nil keeps what there is.
type AccountChange struct {
	Name            *string
	RoleARN         *string
	Via             *[]serval.Hop
	DefaultRegion   *string
	STS             *serval.STS
	WorkflowRoleARN *string
	ExternalID      *string // refused: nobody chooses it
}

// apply returns a with the change.
func (c AccountChange) apply(a serval.Account) serval.Account {
	for _, field := range []struct {
		to   *string
		from *string
	}{{&a.Name, c.Name}, {&a.RoleARN, c.RoleARN}, {&a.DefaultRegion, c.DefaultRegion}, {&a.WorkflowRoleARN, c.WorkflowRoleARN}} {
		if field.from != nil {
			*field.to = *field.from
		}
	}
	if c.Via != nil {
		a.Via = *c.Via
	}
	if c.STS != nil {
		a.STS = *c.STS
	}
	return a
}

// ChangeAccount changes an account that was connected over the API. What was
// read of it stays until it is read in the new way, which is asked for at once.
func (p *Plane) ChangeAccount(ctx context.Context, who serval.Principal, id string, change AccountChange) error {
	var chosen []string
	if change.Via != nil {
		var own []serval.Hop
		own, chosen = p.hops(*change.Via)
		change.Via = &own
	}
	err := p.act(ctx, who, serval.AccountChange, id, func(tx *store.Tx, e *serval.Event) error {
		was, err := tx.Account(id)
		if err != nil {
			return err
		}
		if was.Source == store.SourceFile {
			return p.declared(was)
		}
		next := change.apply(was.Account)
		faults := append(next.Faults(), chosen...)
		if change.ExternalID != nil {
			faults = append(faults, chosenExternalID)
		}
		if len(faults) > 0 {
			return faulty("This account cannot be changed so", faults)
		}
		if isSame(was.Account, next) {
			e.Action = ""
			return nil
		}
		e.Detail = accountDetail(next)
		e.Detail["old_name"], e.Detail["old_role_arn"] = was.Name, was.RoleARN
		if err := tx.DeclareAccount(next, store.SourceAPI); err != nil {
			return err
		}
		renamed := next
		renamed.Name = was.Name
		if isSame(was.Account, renamed) {
			return nil
		}
		return tx.RequestSync(id)
	})
	if err == nil {
		p.door.Changed.Raise()
	}
	return err
}

// DisconnectAccount disconnects an account that was connected over the API. Its
// roles leave every catalogue, what depends on it ends, and a push that is still
// on its way finds no account. Its history stays.
func (p *Plane) DisconnectAccount(ctx context.Context, who serval.Principal, id string) error {
	err := p.act(ctx, who, serval.AccountDisconnect, id, func(tx *store.Tx, e *serval.Event) error {
		was, err := tx.Account(id)
		if err != nil {
			return err
		}
		if was.Source == store.SourceFile {
			return p.declared(was)
		}
		e.Detail = accountDetail(was.Account)
		return p.disconnect(tx, id, e)
	})
	if err == nil {
		p.door.Changed.Raise()
	}
	return err
}

// disconnect takes out an account and ends the requests for its roles: those that
// nobody used fail, and what runs is revoked. E tells how many.
func (p *Plane) disconnect(tx *store.Tx, id string, e *serval.Event) error {
	requests, err := tx.RequestsOfAccount(id)
	if err != nil {
		return err
	}
	var failed, revoked int
	for _, r := range requests {
		end, n := r.Fail, &failed
		if r.State() == serval.StateRunning {
			end, n = r.Revoke, &revoked
		}
		act, err := end(serval.System(), tx.Now)
		if serval.IsRefusal(err) {
			continue // its time is over; it ends by itself
		}
		if err != nil {
			return err
		}
		*n++
		if err := tx.SaveRequest(r); err != nil {
			return err
		}
		ended := door.Event(serval.System(), act, r.ID, serval.OutcomeDone)
		ended.Detail, ended.Reason = r.Facts(), "its account was disconnected"
		if err := p.door.TellOf(tx, serval.System(), act, r, ended.Reason); err != nil {
			return err
		}
		if err := tx.Append(ended); err != nil {
			return err
		}
	}
	if e.Detail == nil {
		e.Detail = map[string]string{}
	}
	e.Detail["requests_failed"], e.Detail["requests_revoked"] = fmt.Sprint(failed), fmt.Sprint(revoked)
	return tx.RemoveAccount(id)
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
		return p.door.FailRequests(tx, keys)
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
