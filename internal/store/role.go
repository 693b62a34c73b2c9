package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/dossier"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Role is a role as it was last seen, with how much that is worth today. Its
// documents are there only where they were asked for.
type Role struct {
	serval.Role
	Key         serval.RoleKey
	Complete    bool // every policy document was read
	Digest      string
	SeenAt      time.Time // when it was last taken in; what is seen unchanged is not
	StaleSince  time.Time // its last state could not be confirmed since then
	StaleReason string
	HeldSince   time.Time // its removal waits to be confirmed; not to be minted
	Ability     string    // what it can do, as it was staged; empty where nobody has looked
	Version     int64     // how many times it has changed; see RoleVersions
	ChangedAt   time.Time // when it did last; zero where that is not known

	trust    string // digest of the document
	policies string // as they are kept; see dossier
}

// The columns that a staged role and a role share.
const roleFacts = `role_id, partition, arn, name, path, description, created_at, max_session_seconds, tags, trust, boundary,
	last_used_at, policies, complete, digest, shown, ability`

const roleColumns = `account_id, ` + roleFacts + `, seen_at, stale_since, stale_reason, held_since, version, changed_at`

// scanRole reads a role. One whose row is there and holds what no role has is
// returned with the fault, as no more than its key.
func scanRole(row scanner) (Role, error) {
	var r Role
	var tags, boundary, shown string
	var created, used, complete, seen, stale, held, changed int64
	err := row.Scan(&r.Key.AccountID, &r.RoleID, &r.Key.Partition, &r.ARN, &r.Name, &r.Path, &r.Description, &created,
		&r.MaxSessionSeconds, &tags, &r.trust, &boundary, &used, &r.policies, &complete, &r.Digest, &shown, &r.Ability, &seen, &stale, &r.StaleReason, &held,
		&r.Version, &changed)
	if err != nil {
		return Role{}, fmt.Errorf("reading a role: %w", err)
	}
	r.Key.RoleID, r.Key.ARN = r.RoleID, r.ARN
	r.CreatedAt, r.SeenAt, r.StaleSince, r.HeldSince, r.ChangedAt = instant(created), instant(seen), instant(stale), instant(held), instant(changed)
	r.Complete = complete == 1
	if used != 0 {
		t := instant(used)
		r.LastUsedAt = &t
	}
	if boundary != "" {
		r.PermissionsBoundary = &boundary
	}
	if err := json.Unmarshal([]byte(tags), &r.Tags); err != nil {
		return Role{Role: serval.Role{RoleID: r.RoleID}, Key: r.Key}, fmt.Errorf("reading the tags of %s: %w", r.ARN, err)
	}
	return r, nil
}

// Roles returns the roles of a connected account that are listed, in the order of
// their ARNs, without documents. They change with the account's roster.
func (v *View) Roles(accountID string) ([]Role, error) {
	roles, err := all(v, scanRole, `select `+roleColumns+` from role
		where account_id = $1 and removed_at = 0 and exists (select 1 from account where account.id = $1 and account.removed_at = 0)
		order by arn collate "C"`, accountID)
	if err != nil {
		return nil, fmt.Errorf("listing the roles of account %s: %w", accountID, err)
	}
	return roles, nil
}

// RoleByARN returns the listed role with the ARN, without documents.
func (v *View) RoleByARN(arn string) (Role, error) {
	return one(v, "There is no such role.", scanRole, `select `+roleColumns+` from role
		where arn = $1 and removed_at = 0
			and exists (select 1 from account where account.id = role.account_id and account.removed_at = 0)`, arn)
}

// A Removed role is one that is not listed any more.
type Removed struct {
	Role
	At     time.Time
	Reason string // untagged, deleted, recreated or disconnected
}

func scanRemoved(row scanner) (r Removed, err error) {
	var at int64
	r.Role, err = scanRole(with{row, []any{&at, &r.Reason}})
	r.At = instant(at)
	return r, err
}

// RemovedRole returns the role that had the ARN last, where none has it now.
func (v *View) RemovedRole(arn string) (Removed, error) {
	return one(v, "There is no such role.", scanRemoved, `select `+roleColumns+`, removed_at, removed_reason from role
		where arn = $1 and removed_at <> 0 order by removed_at desc limit 1`, arn)
}

// RolesEver returns roles that an account has or ever had, behind the one after, at
// most limit, in the order of ARN and id, without documents; the instant of those
// that are listed is zero.
func (v *View) RolesEver(accountID string, after serval.RoleKey, limit int) ([]Removed, error) {
	roles, err := all(v, scanRemoved, `select `+roleColumns+`, removed_at, removed_reason from role
		where account_id = $1 and (arn collate "C" > $2 or arn = $2 and role_id collate "C" > $3)
		order by arn collate "C", role_id collate "C" limit $4`, accountID, after.ARN, after.RoleID, limit)
	if err != nil {
		return nil, fmt.Errorf("listing all roles of account %s: %w", accountID, err)
	}
	return roles, nil
}

// with is a row that has further columns behind those that are scanned.
type with struct {
	scanner
	more []any
}

// Scan scans all of them.
func (w with) Scan(dest ...any) error { return w.scanner.Scan(append(dest, w.more...)...) }

const roleListed = ` and removed_at = 0 and exists (select 1 from account where account.id = role.account_id and account.removed_at = 0)`

// RoleOf is RoleByKey of the role of a request that is kept.
func (v *View) RoleOf(r *serval.Request) (Role, error) {
	role, err := one(v, "There is no such role.", scanRole, roleOfRequest, r.ID)
	if err == nil && role.Key != r.Role {
		return Role{}, fmt.Errorf("reading role %s: the database answered with another row", r.Role.ARN)
	}
	return role, err
}

// RoleByKey returns the listed role with the identity, without documents. A
// role that was created again under the same ARN is another.
func (v *View) RoleByKey(key serval.RoleKey) (Role, error) {
	r, err := one(v, "There is no such role.", scanRole, `select `+roleColumns+` from role
		where account_id = $1 and role_id = $2 and arn = $3 and partition = $4`+roleListed, key.AccountID, key.RoleID, key.ARN, key.Partition)
	if err == nil && r.Key != key {
		return Role{}, fmt.Errorf("reading role %s: the database answered with another row", key.ARN)
	}
	return r, err
}

// FillDocuments reads the documents of roles. One that several have is read once.
func (v *View) FillDocuments(roles ...*Role) error {
	documents := v.Documents()
	for _, r := range roles {
		if err := documents.Fill(r); err != nil {
			return err
		}
	}
	return nil
}

// maxShared is how many bytes of documents are kept for the next role that has
// them too.
const maxShared = 8 << 20

// Documents reads the documents of one role after another. What several have is
// read once, as long as it is not too much to keep.
type Documents struct {
	v    *View
	read map[string]serval.Document
	size int
}

// Documents returns what reads documents as v sees them.
func (v *View) Documents() *Documents {
	return &Documents{v: v, read: map[string]serval.Document{}}
}

// Fill reads the documents of a role.
func (of *Documents) Fill(r *Role) error {
	document := func(digest string) (serval.Document, error) {
		if d, known := of.read[digest]; known {
			return d, nil
		}
		d, err := of.v.document(digest)
		if of.size += len(d); of.size > maxShared {
			clear(of.read)
			of.size = len(d)
		}
		of.read[digest] = d
		return d, err
	}
	var err error
	if r.TrustPolicy, err = document(r.trust); err != nil {
		return err
	}
	return dossier.Fill(&r.Role, r.policies, document)
}

func (v *View) document(digest string) (serval.Document, error) {
	if digest == "" {
		return "", nil
	}
	var body string
	if err := v.scan(`select body from document where digest = $1`, []any{digest}, &body); err != nil {
		return "", fmt.Errorf("reading document %s: %w", digest, err)
	}
	return serval.Document(body), nil
}

// TrustDigest returns the digest of the role's trust policy; empty where it
// could not be read.
func (r Role) TrustDigest() string { return r.trust }

// TrustPolicy returns the role's trust policy alone; empty where it could not be
// read.
func (v *View) TrustPolicy(r Role) (serval.Document, error) {
	if r.TrustPolicy != "" || r.trust == "" {
		return r.TrustPolicy, nil
	}
	return v.document(r.trust)
}

// KnownRoles returns what is remembered of an account's roles, for comparing.
func (v *View) KnownRoles(accountID string) ([]serval.Known, error) {
	known, err := all(v, func(row scanner) (k serval.Known, err error) {
		var held, stale int64
		k.Key.AccountID = accountID
		err = row.Scan(&k.Key.RoleID, &k.Key.Partition, &k.Key.ARN, &k.Digest, &k.Shown, &held, &stale)
		k.HeldSince, k.Stale = instant(held), stale != 0
		return k, err
	}, `select role_id, partition, arn, digest, shown, held_since, stale_since from role where account_id = $1 and removed_at = 0`, accountID)
	if err != nil {
		return nil, fmt.Errorf("listing the known roles of account %s: %w", accountID, err)
	}
	return known, nil
}

// A KnownState is what is remembered of a listed role, for telling whether it is
// seen the same again.
type KnownState struct {
	serval.Known
	MaxSessionSeconds int // as it is kept: AWS may have refused what was read
	LastUsedAt        time.Time
	Ability           string
	Version           int64
}

// IsSettled reports whether the role is neither held nor stale: one that is seen
// the same again needs no writing.
func (k KnownState) IsSettled() bool { return k.HeldSince.IsZero() && !k.Stale }

// KnownStates calls f with each of an account, until it fails. They change with its
// roster.
func (v *View) KnownStates(accountID string, f func(KnownState) error) error {
	_, err := all(v, func(row scanner) (none struct{}, err error) {
		var k KnownState
		var held, stale, used int64
		k.Key.AccountID = accountID
		err = row.Scan(&k.Key.RoleID, &k.Key.Partition, &k.Key.ARN, &k.Digest, &k.Shown, &held, &stale, &k.MaxSessionSeconds, &used, &k.Ability, &k.Version)
		if err != nil {
			return none, err
		}
		k.HeldSince, k.Stale, k.LastUsedAt = instant(held), stale != 0, instant(used)
		return none, f(k)
	}, `select role_id, partition, arn, digest, shown, held_since, stale_since, max_session_seconds, last_used_at, ability, version
		from role where account_id = $1 and removed_at = 0`, accountID)
	if err != nil {
		return fmt.Errorf("listing what is known of the roles of account %s: %w", accountID, err)
	}
	return nil
}

// CountRoles returns how many roles of an account are listed, and how many of
// them are held or stale.
func (v *View) CountRoles(accountID string) (listed, held, stale int, err error) {
	err = v.scan(`select count(*), coalesce(sum(case when held_since <> 0 then 1 else 0 end), 0),
			coalesce(sum(case when stale_since <> 0 then 1 else 0 end), 0)
		from role where account_id = $1 and removed_at = 0`, []any{accountID}, &listed, &held, &stale)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("counting the roles of account %s: %w", accountID, err)
	}
	return listed, held, stale, nil
}

// BeginPush reports whether no other push of the account is under way in this
// process. Where it says so, end must be called at the push's end; otherwise end
// is nil. What pushes stage at once is bounded so, whatever a worker repeats.
func (s *Store) BeginPush(accountID string) (end func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pushing[accountID] {
		return nil, false
	}
	if s.pushing == nil {
		s.pushing = map[string]bool{}
	}
	s.pushing[accountID] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.pushing, accountID)
	}, true
}

// A Staged is a role of a push, with what only whoever pushes knows how to tell.
type Staged struct {
	serval.Role
	Digest  string // the role's
	Ability string
}

// Stage keeps roles of a push aside, all that have its name, in a transaction of its
// own that does not take the chain. They and their documents become roles and
// documents by ApplyDifference, and are dropped by DropStaged. A role id or an ARN
// that comes twice is refused, and so is more under a name that was used.
func (s *Store) Stage(ctx context.Context, push, accountID string, now time.Time, roles []Staged) error {
	// A document that many roles share is staged once, and one that is kept
	// already not at all, unless it is idle: the others are still there when the
	// push is applied.
	documents := make(map[string]serval.Document)
	rows := make([][]any, len(roles))
	for i, r := range roles {
		for _, d := range r.Documents() {
			documents[d.Digest()] = d
		}
		row, err := stagedRow(push, accountID, now, r)
		if err != nil {
			return err
		}
		rows[i] = row
	}
	delete(documents, "")
	return s.aside(ctx, "staging roles", func(v *View) error {
		for _, digest := range slices.Sorted(maps.Keys(documents)) {
			err := v.later("staging a document", `insert into staged_document (push, digest, body, staged_at)
				select cast($1 as text), cast($2 as text), cast($3 as text), cast($4 as bigint)
				where not exists (select 1 from document where digest = $2 and idle_since = 0)
				on conflict (push, digest) do nothing`,
				push, digest, string(documents[digest]), micros(now))
			if err != nil {
				return err
			}
		}
		for _, row := range rows {
			err := v.later("staging a role", `insert into staged_role (push, account_id, staged_at, `+roleFacts+`)
				values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
				on conflict do nothing`, row...)
			if err != nil {
				return err
			}
		}
		var n int
		if err := v.scan(`select count(*) from staged_role where push = $1`, []any{push}, &n); err != nil {
			return fmt.Errorf("counting staged roles: %w", err)
		}
		if n != len(roles) {
			return serval.Refuse(serval.Invalid, "A role id or an ARN comes twice.")
		}
		return nil
	})
}

// stagedRow returns the columns of a staged role.
func stagedRow(push, accountID string, now time.Time, r Staged) ([]any, error) {
	policies, err := dossier.Of(r.Role)
	if err != nil {
		return nil, err
	}
	tags := r.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	tagText, err := json.Marshal(tags)
	if err != nil {
		return nil, fmt.Errorf("encoding tags: %w", err)
	}
	var boundary string
	if r.PermissionsBoundary != nil {
		boundary = *r.PermissionsBoundary
	}
	var used int64
	if r.LastUsedAt != nil {
		used = micros(*r.LastUsedAt)
	}
	return []any{push, accountID, micros(now), r.RoleID, r.Key().Partition, r.ARN, r.Name, r.Path, r.Description, micros(r.CreatedAt), r.MaxSessionSeconds,
		string(tagText), r.TrustPolicy.Digest(), boundary, used, policies, flag(r.PoliciesComplete()), r.Digest, r.Shown(), r.Ability}, nil
}

// DropStaged forgets what a push staged. The roles go first: where only they are
// gone, the push cannot be applied, and the documents go with the old ones.
func (s *Store) DropStaged(ctx context.Context, push string) error {
	if err := s.alone(ctx, `delete from staged_role where push = $1`, push); err != nil {
		return fmt.Errorf("dropping staged roles: %w", err)
	}
	if err := s.alone(ctx, `delete from staged_document where push = $1`, push); err != nil {
		return fmt.Errorf("dropping staged documents: %w", err)
	}
	return nil
}

// DropOldStaged forgets what pushes that were staged before the instant left
// behind when their process died.
func (s *Store) DropOldStaged(ctx context.Context, before time.Time) error {
	if err := s.alone(ctx, `delete from staged_role where staged_at < $1`, micros(before)); err != nil {
		return fmt.Errorf("dropping old staged roles: %w", err)
	}
	if err := s.alone(ctx, `delete from staged_document where staged_at < $1`, micros(before)); err != nil {
		return fmt.Errorf("dropping old staged documents: %w", err)
	}
	return nil
}

// selectStaged is what a push reads of itself; see ExpectPush.
const selectStaged = `select account_id, role_id, partition, arn, digest from staged_role where push = $1`

// ExpectPush says that what is staged of the account under the name is about to be
// taken in: what is read for that comes with the next answer of the database.
func (t *Tx) ExpectPush(accountID, push string) {
	t.tx.Ahead(accountByID, accountID)
	t.tx.Ahead(rosterByID, accountID)
	t.tx.Ahead(selectStaged, push)
}

// StagedRoles returns what a push staged, for comparing.
func (v *View) StagedRoles(push string) ([]serval.Seen, error) {
	seen, err := all(v, func(row scanner) (s serval.Seen, err error) {
		err = row.Scan(&s.Key.AccountID, &s.Key.RoleID, &s.Key.Partition, &s.Key.ARN, &s.Digest)
		return s, err
	}, selectStaged, push)
	if err != nil {
		return nil, fmt.Errorf("listing staged roles: %w", err)
	}
	return seen, nil
}

// ApplyDifference makes the staged roles of a push the account's roles, with
// their documents, and does to the others what d says. The staged rows go with
// it. No push has none of them. Its statements are as many, and look at as much, as
// the push has roles and d says, whatever else the account has.
func (t *Tx) ApplyDifference(push, accountID string, d serval.Difference) error {
	// Removals come first: the ARN of a role that was created again is free then.
	err := errors.Join(t.remove(accountID, d.Recreated, "recreated"), t.remove(accountID, d.Untagged, serval.RemovedUntagged),
		t.remove(accountID, d.Missing, serval.RemovedDeleted))
	if err != nil {
		return err
	}
	if push != "" {
		if err := t.takeIn(push, accountID); err != nil {
			return err
		}
	}
	now := micros(t.Now)
	for _, k := range d.Held {
		err := t.later("holding role "+k.ARN, `update role set held_since = case when held_since = 0 then $3 else held_since end
			where account_id = $1 and role_id = $2 and removed_at = 0`, accountID, k.RoleID, now)
		if err != nil {
			return err
		}
	}
	for _, s := range d.Stale {
		err := t.later("marking role "+s.Key.ARN, `update role set stale_reason = $4,
				stale_since = case when stale_since = 0 then $3 else stale_since end
			where account_id = $1 and role_id = $2 and removed_at = 0`, accountID, s.Key.RoleID, now, s.Reason)
		if err != nil {
			return err
		}
	}
	return t.turnRoster(accountID)
}

// remove takes roles out that are listed.
func (t *Tx) remove(accountID string, keys []serval.RoleKey, reason string) error {
	for _, k := range keys {
		err := t.later("removing role "+k.ARN, `update role set removed_at = $3, removed_reason = $4, held_since = 0
			where account_id = $1 and role_id = $2 and removed_at = 0`, accountID, k.RoleID, micros(t.Now), reason)
		if err != nil {
			return err
		}
	}
	return nil
}

// takeIn makes the staged roles of a push roles, with their documents.
func (t *Tx) takeIn(push, accountID string) error {
	err := t.later("taking in the documents of account "+accountID, `insert into document (digest, body)
		select digest, body from staged_document where push = $1
		on conflict (digest) do update set idle_since = 0`, push)
	if err != nil {
		return err
	}
	err = t.later("taking in the roles of account "+accountID, `insert into role (account_id, `+roleFacts+`,
			seen_at, stale_since, stale_reason, held_since, removed_at, removed_reason, version, changed_at)
		select account_id, `+roleFacts+`, cast($2 as bigint), 0, '', 0, 0, '', 1, cast($2 as bigint) from staged_role where push = $1
		on conflict (account_id, role_id) do update set partition = excluded.partition, arn = excluded.arn, name = excluded.name,
			path = excluded.path, description = excluded.description, created_at = excluded.created_at, max_session_seconds = excluded.max_session_seconds, tags = excluded.tags,
			trust = excluded.trust, boundary = excluded.boundary, last_used_at = excluded.last_used_at,
			policies = excluded.policies, complete = excluded.complete, digest = excluded.digest, shown = excluded.shown, seen_at = excluded.seen_at,
			ability = excluded.ability,
			version = case when role.digest = excluded.digest then role.version else role.version + 1 end,
			changed_at = case when role.digest = excluded.digest then role.changed_at else excluded.changed_at end,
			stale_since = 0, stale_reason = '', held_since = 0, removed_at = 0, removed_reason = ''`, push, micros(t.Now))
	if err != nil {
		return err
	}
	if err := t.keepVersions(push, accountID); err != nil {
		return err
	}
	if err := t.later("dropping staged roles", `delete from staged_role where push = $1`, push); err != nil {
		return err
	}
	return t.later("dropping staged documents", `delete from staged_document where push = $1`, push)
}

// HeldRoles returns how many roles' removal is held, in all accounts.
func (v *View) HeldRoles() (n int64, err error) {
	if err := v.scan(`select count(*) from role where held_since <> 0 and removed_at = 0`, nil, &n); err != nil {
		return 0, fmt.Errorf("counting held roles: %w", err)
	}
	return n, nil
}

// RemoveHeld removes the roles of an account whose removal is held, and returns
// them.
func (t *Tx) RemoveHeld(accountID string) ([]serval.RoleKey, error) {
	keys, err := all(&t.View, func(row scanner) (k serval.RoleKey, err error) {
		k.AccountID = accountID
		err = row.Scan(&k.RoleID, &k.Partition, &k.ARN)
		return k, err
	}, `update role set removed_at = $2, removed_reason = $3, held_since = 0
		where account_id = $1 and removed_at = 0 and held_since <> 0 returning role_id, partition, arn`,
		accountID, micros(t.Now), serval.RemovedDeleted)
	if err != nil {
		return nil, fmt.Errorf("removing the held roles of account %s: %w", accountID, err)
	}
	return keys, t.turnRoster(accountID)
}

// LowerMaxSession notes that AWS refused a duration that the role's stored
// maximum allowed.
func (t *Tx) LowerMaxSession(key serval.RoleKey, seconds int) error {
	err := t.exec("lowering the maximum of "+key.ARN, `update role set max_session_seconds = $3
		where account_id = $1 and role_id = $2 and max_session_seconds > $3`, key.AccountID, key.RoleID, seconds)
	if err != nil {
		return err
	}
	return t.turnRoster(key.AccountID)
}
