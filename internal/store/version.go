package store

import (
	"context"
	"fmt"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// maxVersions is how many versions of a role are kept, besides those that are
// still asked for; see GiveUpVersions.
const maxVersions = 50

const versionColumns = `account_id, ` + roleFacts + `, at, 0, '', 0, number, at`

// KeepUnkept keeps what roles of an account are of which no version is kept: those
// that were here before versions were. Call it before a push changes any. It takes no
// chain.
func (s *Store) KeepUnkept(ctx context.Context, accountID string) error {
	return s.aside(ctx, "keeping what roles of account "+accountID+" were", func(v *View) error {
		return v.exec("keeping what roles of account "+accountID+" were", `insert into role_version (account_id, number, at, `+roleFacts+`)
			select account_id, version, seen_at, `+roleFacts+` from role where account_id = $1 and version = 0
			on conflict (account_id, role_id, number) do nothing`, accountID)
	})
}

// keepVersions keeps what the roles of a push are that changed in this transaction,
// and notes those of which somebody may have to be told.
//
// What is known of each is asked for by its key, in a query of its own for each row:
// PostgreSQL has planned a join, and an exists, for all roles by what it knew of the
// tables, and compared each with each for many seconds in which everybody waits.
func (t *Tx) keepVersions(push, accountID string) error {
	now := micros(t.Now)
	err := t.later("keeping versions of account "+accountID, `insert into role_version (account_id, number, at, `+roleFacts+`)
		select account_id, (select version from role where role.account_id = staged_role.account_id and role.role_id = staged_role.role_id),
			cast($2 as bigint), `+roleFacts+` from staged_role
		where push = $1 and (select changed_at from role where role.account_id = staged_role.account_id and role.role_id = staged_role.role_id) = $2
		on conflict (account_id, role_id, number) do nothing`, push, now)
	if err != nil {
		return err
	}
	// With the same policies and boundary a role can do what it could. Whoever was not
	// told of the change before is told of both.
	return t.later("noting what changed in account "+accountID, `insert into untold (account_id, role_id, version)
		select account_id, role_id, (select version - 1 from role where role.account_id = staged_role.account_id and role.role_id = staged_role.role_id)
		from staged_role
		where push = $1 and (select changed_at from role where role.account_id = staged_role.account_id and role.role_id = staged_role.role_id) = $2
			and (select count(*) from role_version as before where before.account_id = staged_role.account_id and before.role_id = staged_role.role_id
				and before.number = (select version - 1 from role where role.account_id = staged_role.account_id and role.role_id = staged_role.role_id)
				and (before.trust <> staged_role.trust or before.policies <> staged_role.policies or before.boundary <> staged_role.boundary)) = 1
		on conflict (account_id, role_id) do nothing`, push, now)
}

// GiveUpVersions gives up versions of an account's roles that changed at the instant
// or since: those that are too old to be kept, but for what an open request was
// approved for, and what somebody is still to be told of. Under PostgreSQL nobody who
// acts waits for it: it takes no chain.
func (s *Store) GiveUpVersions(ctx context.Context, accountID string, since, now time.Time) error {
	return s.aside(ctx, "giving up old versions of account "+accountID, func(v *View) error {
		// One role after the other, each by its key; see keepVersions. DropDocuments forgets
		// the versions, with what only they refer to.
		ids, err := all(v, func(row scanner) (id string, err error) { return id, row.Scan(&id) },
			`select role_id from role where account_id = $1 and changed_at >= $2 and removed_at = 0 and version > $3`, accountID, micros(since), maxVersions)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := v.exec("giving up old versions", `update role_version set dropped_at = $4
				where account_id = $1 and role_id = $2 and dropped_at = 0
					and number <= (select version from role where role.account_id = $1 and role.role_id = $2) - $3
					and number <> coalesce((select version from untold where untold.account_id = $1 and untold.role_id = $2), -1)
					and not exists (select 1 from approved_version join request on request.id = approved_version.request_id
						where approved_version.account_id = role_version.account_id and approved_version.role_id = role_version.role_id
							and approved_version.version = role_version.number and request.status in ('pending', 'approved'))`,
				accountID, id, maxVersions, micros(now)); err != nil {
				return err
			}
		}
		return nil
	})
}

// RoleVersions returns the versions of a role that are kept, the newest first,
// without documents. Of each, SeenAt is when it was taken in.
func (v *View) RoleVersions(key serval.RoleKey) ([]Role, error) {
	versions, err := all(v, scanRole, `select `+versionColumns+` from role_version
		where account_id = $1 and role_id = $2 and dropped_at = 0 order by number desc`, key.AccountID, key.RoleID)
	if err != nil {
		return nil, fmt.Errorf("listing the versions of %s: %w", key.ARN, err)
	}
	return versions, nil
}

// RoleVersion returns one version of a role, without documents.
func (v *View) RoleVersion(key serval.RoleKey, number int64) (Role, error) {
	return one(v, "That version of the role is not kept any more.", scanRole, `select `+versionColumns+` from role_version
		where account_id = $1 and role_id = $2 and number = $3 and dropped_at = 0`, key.AccountID, key.RoleID, number)
}

// An Approved is what a role was when an allocation was approved.
type Approved struct {
	Allocation int
	Version    int64
	Ability    string
}

// noteApproved keeps which version of its role an allocation of r was approved
// for, once. Where the role has changed since, nobody knows, and nothing is kept.
func (t *Tx) noteApproved(r *serval.Request, number int, decided time.Time) error {
	return t.later("keeping what request "+r.ID+" was approved for", `insert into approved_version (request_id, number, account_id, role_id, version, ability)
		select cast($1 as text), cast($2 as bigint), account_id, role_id, version, ability from role
		where account_id = $3 and role_id = $4 and changed_at <= $5
		on conflict (request_id, number) do nothing`, r.ID, number, r.Role.AccountID, r.Role.RoleID, micros(decided))
}

// ApprovedVersion returns what the role of a request was when what is active was
// approved; NotFound where nobody knows.
func (v *View) ApprovedVersion(requestID string) (Approved, error) {
	return one(v, "Nobody knows what the role was when it was approved.", func(row scanner) (a Approved, err error) {
		err = row.Scan(&a.Allocation, &a.Version, &a.Ability)
		return a, err
	}, `select approved_version.number, version, ability from approved_version
		join allocation on allocation.request_id = approved_version.request_id and allocation.number = approved_version.number
		where approved_version.request_id = $1 and allocation.state = 'active'`, requestID)
}

// An Untold is a role whose change nobody was told of yet.
type Untold struct {
	Role
	Since int64 // the version that was the last to be told of
	Fault error // why the role cannot be read; then there is no more than its key
}

// Untold returns listed roles whose change nobody was told of yet, without
// documents, in the order of the database's own for account and id, so that an index
// gives it. It looks through so many behind the one after, and returns the last that
// it came to; an empty one where there are no more.
func (v *View) Untold(after serval.RoleKey, limit int) (list []Untold, last serval.RoleKey, err error) {
	n := 0
	_, err = all(v, func(row scanner) (u Untold, err error) {
		var removed int64
		u.Role, err = scanRole(with{row, []any{&u.Since, &removed}})
		if u.Key.RoleID == "" {
			return u, err
		}
		n, last, u.Fault = n+1, u.Key, err
		if removed == 0 {
			list = append(list, u)
		}
		return u, nil
	}, `select `+roleColumns+`, since, removed_at from (select account_id as of_account, role_id as of_role, version as since from untold
			where (account_id, role_id) > ($1, $2) order by account_id, role_id limit $3) as untold
		join role on account_id = of_account and role_id = of_role order by account_id, role_id`, after.AccountID, after.RoleID, limit)
	if err != nil || n < limit {
		last = serval.RoleKey{}
	}
	if err != nil {
		return nil, last, fmt.Errorf("listing what nobody was told of: %w", err)
	}
	return list, last, nil
}

// Told notes that everybody was told what changed of a role from one version to
// another. It reports whether that was still to be done and is all: it is not
// where another replica did it, or the role has changed again.
func (t *Tx) Told(key serval.RoleKey, since, version int64) (bool, error) {
	n, err := t.execCount("noting who was told of "+key.ARN, `delete from untold where account_id = $1 and role_id = $2 and version = $3
		and exists (select 1 from role where role.account_id = untold.account_id and role.role_id = untold.role_id and role.version = $4)`,
		key.AccountID, key.RoleID, since, version)
	return n == 1, err
}
