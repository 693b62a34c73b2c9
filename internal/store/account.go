package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Where an account was declared.
const (
	SourceFile = "file"
	SourceAPI  = "api"
)

// An Account is a connected account with what is known of its syncs.
type Account struct {
	serval.Account
	Source    string
	CreatedAt time.Time

	Generation      int64 // the last that was issued
	ClaimedBy       string
	ClaimedUntil    time.Time
	SyncRequestedAt time.Time

	// Of the last push of either kind that was accepted; zero before the first.
	AcceptedGeneration int64
	AcceptedDigest     string
	AcceptedAnswer     string

	// LookedAt is when the last accepted sync of either kind that was complete had
	// started.
	LookedAt time.Time

	// Of the last full sync that was accepted; zero before the first.
	AcceptedAt time.Time
	StartedAt  time.Time
	FinishedAt time.Time
	Complete   bool
	ReadBy     string

	// Of the same sync, and long: only where FillLastSync was asked for them.
	Unreadable []serval.Unreadable
	NearMisses []serval.NearMiss
	Problems   []serval.Problem

	OIDCProvider *serval.OIDCProvider // nil where nobody asked
}

// accountSettings is what is kept of an account as JSON.
type accountSettings struct {
	Via             []serval.Hop `json:"via,omitempty"`
	DefaultRegion   string       `json:"default_region,omitempty"`
	STS             serval.STS   `json:"sts,omitzero"`
	WorkflowRoleARN string       `json:"workflow_role_arn,omitempty"`
}

const accountColumns = `id, name, partition, role_arn, external_id, settings, source, created_at, generation, claimed_by,
	claimed_until, sync_requested_at, accepted_generation, accepted_digest, accepted_answer, accepted_at, started_at, finished_at,
	complete, read_by, looked_at`

// What a push reads of its account; see ExpectPush.
const (
	accountByID = `select ` + accountColumns + ` from account where id = $1 and removed_at = 0`
	rosterByID  = `select ` + rosterColumns + ` from account where id = $1 and removed_at = 0`
)

func scanAccount(row scanner) (Account, error) {
	var a Account
	var settings string
	var created, claimed, requested, accepted, started, finished, complete, looked int64
	err := row.Scan(&a.ID, &a.Name, &a.Partition, &a.RoleARN, &a.ExternalID, &settings, &a.Source, &created, &a.Generation, &a.ClaimedBy,
		&claimed, &requested, &a.AcceptedGeneration, &a.AcceptedDigest, &a.AcceptedAnswer, &accepted, &started, &finished,
		&complete, &a.ReadBy, &looked)
	if err != nil {
		return Account{}, fmt.Errorf("reading an account: %w", err)
	}
	a.CreatedAt, a.ClaimedUntil, a.SyncRequestedAt = instant(created), instant(claimed), instant(requested)
	a.AcceptedAt, a.StartedAt, a.FinishedAt, a.Complete = instant(accepted), instant(started), instant(finished), complete == 1
	a.LookedAt = instant(looked)
	var s accountSettings
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		return Account{}, fmt.Errorf("reading the settings of account %s: %w", a.ID, err)
	}
	a.Via, a.DefaultRegion, a.STS, a.WorkflowRoleARN = s.Via, s.DefaultRegion, s.STS, s.WorkflowRoleARN
	return a, nil
}

// Accounts returns the connected accounts in the order of their ids.
func (v *View) Accounts() ([]Account, error) {
	known, err := remember(v, source{"accounts", []string{"account"}}, "", func() ([]Account, error) {
		return all(v, scanAccount, `select `+accountColumns+` from account where removed_at = 0 order by id`)
	})
	return slices.Clone(known), err // whoever asked may fill theirs
}

// Account returns a connected account.
func (v *View) Account(id string) (Account, error) {
	return one(v, "There is no such account.", scanAccount, accountByID, id)
}

// FillLastSync reads what the last accepted push of a said besides its roles. It
// can be long, and only admins look at it: who waits for a change reads accounts
// each second.
func (v *View) FillLastSync(a *Account) error {
	var unreadable, nearMisses, problems, provider string
	err := v.scan(`select unreadable, near_misses, problems, oidc_provider from account where id = $1`, []any{a.ID}, &unreadable, &nearMisses, &problems, &provider)
	if err != nil {
		return fmt.Errorf("reading the last sync of account %s: %w", a.ID, err)
	}
	for _, list := range []struct {
		text string
		into any
	}{{unreadable, &a.Unreadable}, {nearMisses, &a.NearMisses}, {problems, &a.Problems}, {provider, &a.OIDCProvider}} {
		if err := json.Unmarshal([]byte(list.text), list.into); err != nil {
			return fmt.Errorf("reading the last sync of account %s: %w", a.ID, err)
		}
	}
	return nil
}

// OIDCProvider returns what the last accepted full sync of an account learned of
// its OIDC provider; nil where nobody asked.
func (v *View) OIDCProvider(accountID string) (p *serval.OIDCProvider, err error) {
	var text string
	if err = v.scan(`select oidc_provider from account where id = $1`, []any{accountID}, &text); err == nil {
		err = json.Unmarshal([]byte(text), &p)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the OIDC provider of account %s: %w", accountID, err)
	}
	return p, nil
}

// DeclareAccount keeps what is declared of an account, connecting it again where
// it was removed, and then to be read soon; what is known of its syncs stays.
func (t *Tx) DeclareAccount(a serval.Account, source string) error {
	settings, err := json.Marshal(accountSettings{a.Via, a.DefaultRegion, a.STS, a.WorkflowRoleARN})
	if err != nil {
		return fmt.Errorf("encoding the settings of account %s: %w", a.ID, err)
	}
	return t.exec("keeping account "+a.ID, `insert into account (`+accountColumns+`, unreadable, near_misses, problems, roles_version, removed_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, 0, '', 0, 0, 0, '', '', 0, 0, 0, 0, '', 0, '[]', '[]', '[]', 1, 0)
		on conflict (id) do update set name = excluded.name, partition = excluded.partition, role_arn = excluded.role_arn,
			external_id = excluded.external_id, settings = excluded.settings, source = excluded.source,
			roles_version = account.roles_version + 1,
			sync_requested_at = case when account.removed_at <> 0 then excluded.created_at else account.sync_requested_at end,
			removed_at = 0`,
		a.ID, a.Name, a.Partition, a.RoleARN, a.ExternalID, string(settings), source, micros(t.Now))
}

// SetExternalIDs gives every account that was connected over the API, also those
// that are removed, another External ID.
func (t *Tx) SetExternalIDs(externalID string) error {
	return t.exec("changing External IDs", `update account set external_id = $1 where source = $2`, externalID, SourceAPI)
}

// RemoveAccount disconnects an account and takes its roles out; their history
// stays.
func (t *Tx) RemoveAccount(id string) error {
	err := t.exec("removing the roles of account "+id, `update role set removed_at = $2, removed_reason = $3, held_since = 0
		where account_id = $1 and removed_at = 0`, id, micros(t.Now), serval.RemovedDisconnected)
	if err != nil {
		return err
	}
	return t.exec("removing account "+id, `update account set removed_at = $2, claimed_by = '', claimed_until = 0,
		roles_version = roles_version + 1 where id = $1`, id, micros(t.Now))
}

// IssueGeneration claims the next sync of an account for worker until the
// instant, and returns its number. While another worker's claim holds, ok is
// false and claimed is that claim's end.
func (t *Tx) IssueGeneration(id, worker string, until time.Time) (generation int64, claimed time.Time, ok bool, err error) {
	a, err := t.Account(id)
	if err != nil {
		return 0, time.Time{}, false, err
	}
	if a.ClaimedUntil.After(t.Now) && a.ClaimedBy != worker {
		return 0, a.ClaimedUntil, false, nil
	}
	err = t.exec("issuing a generation of account "+id,
		`update account set generation = $2, claimed_by = $3, claimed_until = $4 where id = $1`,
		id, a.Generation+1, worker, micros(until))
	return a.Generation + 1, until, true, err
}

// RequestSync notes that somebody wants the account read soon.
func (t *Tx) RequestSync(id string) error {
	return t.exec("asking for a sync of account "+id, `update account set sync_requested_at = $2 where id = $1`, id, micros(t.Now))
}

// AcceptInventory notes that a push was accepted, with the answer that a repeat
// of it is given.
func (t *Tx) AcceptInventory(inv serval.Inventory, digest, answer string) error {
	lists := make([]string, 4)
	for i, list := range []any{inv.Unreadable, inv.NearMisses, inv.Problems, inv.OIDCProvider} {
		text, err := json.Marshal(list)
		if err != nil {
			return fmt.Errorf("encoding the sync of account %s: %w", inv.AccountID, err)
		}
		if lists[i] = string(text); lists[i] == "null" && i < 3 {
			lists[i] = "[]"
		}
	}
	return t.exec("accepting the sync of account "+inv.AccountID, `update account set
			accepted_generation = $2, accepted_digest = $3, accepted_answer = $4, accepted_at = $5,
			started_at = $6, finished_at = $7, looked_at = case when $8 = 1 then $13 else looked_at end, complete = $8, read_by = $9, unreadable = $10, near_misses = $11, problems = $12,
			claimed_by = '', claimed_until = 0, oidc_provider = $14, roles_version = case when oidc_provider = $14 then roles_version else roles_version + 1 end,
			sync_requested_at = case when sync_requested_at <= $6 then 0 else sync_requested_at end
		where id = $1`,
		inv.AccountID, inv.Generation, digest, answer, micros(t.Now), micros(inv.StartedAt), micros(inv.FinishedAt),
		flag(inv.Complete), inv.ReadBy, lists[0], lists[1], lists[2], micros(t.notLater(inv.StartedAt)), lists[3])
}

// notLater returns at, or now where a worker's clock says later.
func (t *Tx) notLater(at time.Time) time.Time {
	if at.After(t.Now) {
		return t.Now
	}
	return at
}

// AcceptDelta notes that a delta was accepted, with the answer that a repeat of
// it is given. What the last full sync said of the account stays.
func (t *Tx) AcceptDelta(d serval.Delta, digest, answer string) error {
	return t.exec("accepting the delta of account "+d.AccountID, `update account set
			accepted_generation = $2, accepted_digest = $3, accepted_answer = $4, looked_at = case when $6 = 1 then $5 else looked_at end, claimed_by = '', claimed_until = 0
		where id = $1`, d.AccountID, d.Generation, digest, answer, micros(t.notLater(d.StartedAt)), flag(d.Complete))
}

// A Roster says which state the roles of an account are in: whoever has read them
// at this version has them as they are.
type Roster struct {
	AccountID string
	Name      string // of the account
	Version   int64
}

const rosterColumns = `id, name, roles_version`

func scanRoster(row scanner) (r Roster, err error) {
	if err := row.Scan(&r.AccountID, &r.Name, &r.Version); err != nil {
		return Roster{}, fmt.Errorf("reading an account: %w", err)
	}
	return r, nil
}

// Rosters returns those of all connected accounts, in the order of their ids.
func (v *View) Rosters() ([]Roster, error) {
	return remember(v, source{"rosters", []string{"account"}}, "", func() ([]Roster, error) {
		return all(v, scanRoster, `select `+rosterColumns+` from account where removed_at = 0 order by id`)
	})
}

// Roster returns that of one connected account.
func (v *View) Roster(accountID string) (Roster, error) {
	return one(v, "There is no such account.", scanRoster, rosterByID, accountID)
}

// AccountsEver returns the rosters of all accounts that ever were connected, in the
// order of their ids.
func (v *View) AccountsEver() ([]Roster, error) {
	return all(v, scanRoster, `select `+rosterColumns+` from account order by id`)
}

// turnRoster notes that the roles of an account have changed.
func (t *Tx) turnRoster(accountID string) error {
	return t.later("noting a change of the roles of account "+accountID, `update account set roles_version = roles_version + 1 where id = $1`, accountID)
}

// AccountName returns the name of an account, connected or not any more; empty
// where there never was one.
func (v *View) AccountName(id string) (name string, err error) {
	err = v.scan(`select name from account where id = $1`, []any{id}, &name)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("reading the name of account %s: %w", id, err)
	}
	return name, nil
}
