package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/dossier"
)

// A document is kept while anything refers to it by its digest: a role, listed or
// removed, a version of one that is kept, a role that is being pushed. It goes in
// two steps, neither of which asks a push to wait:
//
//   - Where a version is given up, its documents are idle from then on, as far as
//     that tells: idle_since says so.
//   - What has been idle for idleLife is looked for in all that refers. What is
//     found is idle no more, the rest is dropped.
//
// A push that brings an idle document brings its text along, and makes it idle no
// more with what refers to it. What refers to a document without that was staged
// before the document was idle, so that whoever looks for it finds it: staged, or
// taken in.

// The bounds of what DropDocuments does in one transaction and in one call.
const (
	idleLife    = 24 * time.Hour
	idlePause   = time.Hour // between two times that everything is looked through
	versionStep = 50        // versions that were given up, with some documents each
	idleStep    = 100       // documents
	idleMost    = 5000      // documents that are looked for together
)

// DropDocuments goes on with dropping documents that nothing refers to. Several
// replicas may; call it once a second.
func (s *Store) DropDocuments(ctx context.Context, now time.Time) error {
	if err := s.idleDocuments(ctx, now); err != nil {
		return fmt.Errorf("noting idle documents: %w", err)
	}
	l, err := s.lookThrough(ctx, now)
	if err != nil {
		return fmt.Errorf("looking for what refers to idle documents: %w", err)
	}
	if err := s.settle(ctx, now, l); err != nil {
		return fmt.Errorf("dropping idle documents: %w", err)
	}
	return nil
}

// A reference is what something refers to: a trust policy by its digest, and
// policies.
type reference struct {
	use             use
	trust, policies string
}

// digests returns the digests of the documents.
func (r reference) digests() []string { return append(dossier.Digests(r.policies), r.trust) }

// A givenUp is a version that was given up.
type givenUp struct {
	reference
	accountID, roleID string
	number            int64
}

// versionsGivenUp returns some of them.
func (v *View) versionsGivenUp() ([]givenUp, error) {
	return all(v, func(row scanner) (g givenUp, err error) {
		err = row.Scan(&g.accountID, &g.roleID, &g.number, &g.trust, &g.policies)
		return g, err
	}, `select account_id, role_id, number, trust, policies from role_version where dropped_at <> 0 limit $1`, versionStep)
}

// idleDocuments lets the documents of some versions that were given up be idle, and
// forgets the versions.
func (s *Store) idleDocuments(ctx context.Context, now time.Time) error {
	var given []givenUp
	err := s.Read(ctx, func(v *View) (err error) {
		given, err = v.versionsGivenUp()
		return err
	})
	if err != nil || len(given) == 0 {
		return err
	}
	idle := map[string]bool{}
	for _, g := range given {
		for _, d := range g.digests() {
			idle[d] = true
		}
	}
	return s.Write(ctx, now, func(t *Tx) error {
		// Those that are idle already too: somebody may have found this version a moment
		// ago, and let them be idle no more otherwise.
		for _, digest := range slices.Sorted(maps.Keys(idle)) {
			err := t.exec("noting an idle document", `update document set idle_since = $2 where digest = $1`, digest, micros(t.Now))
			if err != nil {
				return err
			}
		}
		for _, g := range given {
			err := t.exec("forgetting a version", `delete from role_version where account_id = $1 and role_id = $2 and number = $3 and dropped_at <> 0`,
				g.accountID, g.roleID, g.number)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// An idleDocument may be one that nothing refers to.
type idleDocument struct {
	digest string
	since  int64
}

// oldestIdle returns since when the document is idle that is so for longest; 0
// where none is.
func (v *View) oldestIdle() (since int64, err error) {
	err = v.scan(`select coalesce(min(idle_since), 0) from document where idle_since <> 0`, nil, &since)
	return since, err
}

// longIdle returns documents that are idle since the instant or longer, the
// oldest first.
func (v *View) longIdle(since time.Time) ([]idleDocument, error) {
	return all(v, func(row scanner) (d idleDocument, err error) {
		err = row.Scan(&d.digest, &d.since)
		return d, err
	}, `select digest, idle_since from document where idle_since <> 0 and idle_since <= $1 order by idle_since limit $2`, micros(since), idleMost)
}

// A settlement is what becomes of documents that were idle for long.
type settlement struct {
	idle []idleDocument
	used map[string]use // of each
}

// A use is what refers to a document.
type use int

const (
	unused use = iota
	pushed     // a role that is being pushed, and perhaps never taken in
	kept       // a role or a version
)

// lookThrough looks for what refers to documents that are idle for long, where
// there are any. What refers to one from then on was staged with its text.
func (s *Store) lookThrough(ctx context.Context, now time.Time) (l settlement, err error) {
	l.used = map[string]use{}
	err = s.Read(ctx, func(v *View) error {
		oldest, err := v.oldestIdle()
		if err != nil || oldest == 0 || now.Sub(instant(oldest)) < idleLife+idlePause {
			return err
		}
		if l.idle, err = v.longIdle(now.Add(-idleLife)); err != nil {
			return err
		}
		for _, d := range l.idle {
			l.used[d.digest] = unused
		}
		return v.eachReference(func(r reference) {
			for _, d := range r.digests() {
				if known, asked := l.used[d]; asked {
					l.used[d] = max(known, r.use)
				}
			}
		})
	})
	return l, err
}

// settle lets what is kept be idle no more, looks again at what is pushed, and drops
// the rest: unless a push has taken it in meanwhile.
func (s *Store) settle(ctx context.Context, now time.Time, l settlement) error {
	for some := range slices.Chunk(l.idle, idleStep) {
		err := s.Write(ctx, now, func(t *Tx) error {
			for _, d := range some {
				var err error
				switch l.used[d.digest] {
				case kept:
					err = t.exec("keeping an idle document", `update document set idle_since = 0 where digest = $1 and idle_since = $2`, d.digest, d.since)
				case pushed:
					err = t.exec("putting off an idle document", `update document set idle_since = $3 where digest = $1 and idle_since = $2`, d.digest, d.since, micros(t.Now))
				case unused:
					err = t.exec("dropping an idle document", `delete from document where digest = $1 and idle_since = $2`, d.digest, d.since)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachReference calls f with everything that refers to documents.
func (v *View) eachReference(f func(reference)) error {
	rows, err := v.q.QueryContext(v.ctx, `select cast($1 as bigint), trust, policies from staged_role
		union all select cast($2 as bigint), trust, policies from role union all select cast($2 as bigint), trust, policies from role_version`, pushed, kept)
	if err != nil {
		return v.breaks(fmt.Errorf("reading what refers to documents: %w", err))
	}
	defer rows.Close()
	for rows.Next() {
		var r reference
		if err := rows.Scan(&r.use, &r.trust, &r.policies); err != nil {
			return v.breaks(err)
		}
		f(r)
	}
	return v.breaks(rows.Err())
}
