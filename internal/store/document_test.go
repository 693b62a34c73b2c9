package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// documentNumber returns a policy that is one of many.
func documentNumber(n int) serval.Document {
	return serval.Document(fmt.Sprintf(`{"Statement":[{"Action":"s3:Get%d","Effect":"Allow","Resource":"*"}]}`, n))
}

// Whatever pushes bring and take away, in whatever order, also with some under way
// while documents are dropped: no role, no version that is kept and nothing that is
// taken in later lacks a document. And in the end none is left that nothing refers
// to. SERVAL_LONG=1 tries two hundred times.
func TestNoReferredDocumentIsDropped(t *testing.T) {
	rounds := uint64(2)
	if os.Getenv("SERVAL_LONG") != "" {
		rounds = 200
	}
	for seed := range rounds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			each(t, func(t *testing.T, d place) { documentsComeAndGo(t, d, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

// Pushes are as long under way as they like.
func documentsComeAndGo(t *testing.T, d place, random *rand.Rand) {
	ctx, now := t.Context(), noon
	accounts := []string{prod, "444455556666"}
	for _, a := range accounts {
		declare(t, d, a)
	}
	// So few documents that those of a version that goes are often somewhere else,
	// or come back.
	one := func(account string, n int) serval.Role {
		r := role(account, fmt.Sprintf("AROA%d", n), fmt.Sprintf("role%d", n))
		r.TrustPolicy = documentNumber(random.IntN(4))
		r.InlinePolicies.Policies = []serval.InlinePolicy{{Name: "a", Document: documentNumber(random.IntN(60))}}
		r.ManagedPolicies.Policies = []serval.ManagedPolicy{{ARN: "arn:aws:iam::aws:policy/B", Name: "B", Version: "v1", Document: documentNumber(random.IntN(60))}}
		boundary := "arn:aws:iam::aws:policy/C"
		r.PermissionsBoundary, r.BoundaryPolicy = &boundary, &serval.BoundaryPolicy{Status: serval.ListRead, Version: "v1", Document: documentNumber(random.IntN(60))}
		return r
	}
	type flight struct{ push, account string }
	var flights []flight
	pushes := 0
	stage := func() {
		pushes++
		f := flight{fmt.Sprint("push", pushes), accounts[random.IntN(len(accounts))]}
		var roles []serval.Role
		for n := range 3 {
			if random.IntN(2) == 0 {
				roles = append(roles, one(f.account, n))
			}
		}
		if err := d.Stage(ctx, f.push, f.account, now, staged(roles)); err != nil {
			t.Fatal(err)
		}
		flights = append(flights, f)
	}
	land := func(i int) {
		f := flights[i]
		flights = append(flights[:i], flights[i+1:]...)
		d.act(t, now, func(tx *Tx) error {
			seen, err := tx.StagedRoles(f.push)
			if err != nil {
				return err
			}
			known, err := tx.KnownRoles(f.account)
			if err != nil {
				return err
			}
			return tx.ApplyDifference(f.push, f.account, serval.Compare(known, serval.Sighting{Complete: random.IntN(4) == 0, Roles: seen}, tx.Now))
		})
	}
	whole := func(step int) {
		t.Helper()
		err := d.Read(ctx, func(v *View) error {
			for _, account := range accounts {
				roles, err := v.RolesEver(account, serval.RoleKey{}, 1000)
				if err != nil {
					return err
				}
				for _, r := range roles {
					versions, err := v.RoleVersions(r.Key)
					if err != nil {
						return err
					}
					for _, one := range append(versions, r.Role) {
						if err := v.FillDocuments(&one); err != nil {
							return err
						}
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatalf("after %d steps: %v", step, err)
		}
	}
	dropped := int64(0)
	var looked settlement // it is settled some steps later
	for step := range 600 {
		switch what := random.IntN(20); {
		case what < 7:
			if len(flights) < 4 {
				stage()
			}
		case what < 16:
			if len(flights) > 0 {
				land(random.IntN(len(flights)))
			}
		case what < 17 && len(flights) > 0 && random.IntN(4) == 0:
			i := random.IntN(len(flights))
			if err := d.DropStaged(ctx, flights[i].push); err != nil {
				t.Fatal(err)
			}
			flights = append(flights[:i], flights[i+1:]...)
		case what < 17:
			// Four versions are kept here, or the test would take fifty changes of a role.
			d.raw(t, `update role_version set dropped_at = 1 where dropped_at = 0 and exists (select 1 from role
				where role.account_id = role_version.account_id and role.role_id = role_version.role_id and role_version.number <= role.version - 4)`)
		case what < 18:
			now = now.Add([]time.Duration{time.Minute, 20 * time.Hour, 26 * time.Hour}[random.IntN(3)])
		case what < 19:
			had := d.number(t, `select count(*) from document`)
			if err := d.settle(ctx, now, looked); err != nil {
				t.Fatal(err)
			}
			looked = settlement{}
			dropped += had - d.number(t, `select count(*) from document`)
		default:
			if err := d.idleDocuments(ctx, now); err != nil {
				t.Fatal(err)
			}
			if len(looked.idle) == 0 {
				var err error
				if looked, err = d.lookThrough(ctx, now); err != nil {
					t.Fatal(err)
				}
			}
		}
		if step%25 == 0 {
			whole(step)
		}
	}
	for len(flights) > 0 {
		land(0)
	}
	for range 60 {
		now = now.Add(time.Hour)
		if err := d.DropDocuments(ctx, now); err != nil {
			t.Fatal(err)
		}
	}
	whole(600)
	if n := d.number(t, `select count(*) from role_version where dropped_at <> 0`); n != 0 {
		t.Errorf("%d versions that were given up are left", n)
	}
	if n := d.number(t, `select count(*) from document where not exists (
			select 1 from (select trust, policies from role union all select trust, policies from role_version union all select trust, policies from staged_role) as r
			where r.trust = document.digest or r.policies like '%' || document.digest || '%')`); n != 0 {
		t.Errorf("%d documents are left that nothing refers to", n)
	}
	if dropped == 0 {
		t.Error("nothing was dropped: the test tries nothing")
	}
	t.Logf("%d pushes, %d documents dropped on the way", pushes, dropped)
}

// What was given up can be read for a day: somebody may be about to.
func TestIdleDocumentsAreThereForADay(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		r := named(prod, "a")[0]
		for n := range maxVersions + 5 {
			r.TrustPolicy = documentNumber(n)
			push(t, d, prod, noon, serval.Inventory{Complete: true, Roles: []serval.Role{r}})
		}
		kept := func(what string, want int) {
			t.Helper()
			if err := d.GiveUpVersions(t.Context(), prod, noon, noon); err != nil {
				t.Fatal(err)
			}
			if versions := look(t, d, func(v *View) ([]Role, error) { return v.RoleVersions(r.Key()) }); len(versions) != want {
				t.Errorf("%s %d versions are kept, want %d", what, len(versions), want)
			}
		}
		u := untold(t, d)[0]
		if u.Since != 1 {
			t.Fatalf("it is to be told of what changed since %d, want 1", u.Since)
		}
		kept("with the one that somebody is to be told of", maxVersions+1)
		d.act(t, noon, func(tx *Tx) error { _, err := tx.Told(u.Key, u.Since, u.Version); return err })
		kept("when that was told", maxVersions)
		left := func(at time.Duration, want int64) {
			t.Helper()
			for range 2 {
				if err := d.DropDocuments(t.Context(), noon.Add(at)); err != nil {
					t.Fatal(err)
				}
			}
			if got := d.number(t, `select count(*) from document`); got != want {
				t.Errorf("after %s there are %d documents, want %d", at, got, want)
			}
		}
		all := d.number(t, `select count(*) from document`)
		left(0, all)
		left(24*time.Hour, all)
		left(26*time.Hour, all-5)
		left(100*time.Hour, all-5)
		kept("in the end", maxVersions)
	})
}

// A push that was staged while a document was referred to, and so without its text,
// finds it however late it is taken in.
func TestALatePushFindsItsDocuments(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		r := named(prod, "a")[0]
		push(t, d, prod, noon, serval.Inventory{Complete: true, Roles: []serval.Role{r}})
		late := named(prod, "b")
		if err := d.Stage(t.Context(), "late", prod, noon, staged(late)); err != nil {
			t.Fatal(err)
		}
		if n := d.number(t, `select count(*) from staged_document`); n != 0 {
			t.Fatalf("%d documents are staged that are kept", n)
		}
		d.raw(t, `update document set idle_since = 1`, `delete from role_version`, `delete from role`)
		if err := d.DropDocuments(t.Context(), noon); err != nil {
			t.Fatal(err)
		}
		d.act(t, noon, func(tx *Tx) error { return tx.ApplyDifference("late", prod, serval.Difference{}) })
		err := d.Read(t.Context(), func(v *View) error {
			b, err := v.RoleByKey(late[0].Key())
			if err != nil {
				return err
			}
			return v.FillDocuments(&b)
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// Of the documents that were read only so much is kept for the next role: those
// who go through many versions of a role, each as large as AWS allows, hold two.
func TestDocumentsKeepSoMuch(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		var inv serval.Inventory
		inv.Complete = true
		const long = maxShared / 5 * 2
		for n := range 4 {
			r := role(prod, fmt.Sprintf("AROA%d", n), fmt.Sprintf("role%d", n))
			r.InlinePolicies.Policies = []serval.InlinePolicy{{Name: "a", Document: serval.Document(`"` + strings.Repeat(strconv.Itoa(n), long) + `"`)}}
			inv.Roles = append(inv.Roles, r)
		}
		push(t, d, prod, noon, inv)
		roles := look(t, d, func(v *View) ([]Role, error) { return v.Roles(prod) })
		look(t, d, func(v *View) (none struct{}, err error) {
			documents := v.Documents()
			for _, r := range roles {
				if err := documents.Fill(&r); err != nil {
					return none, err
				}
				if got := len(r.InlinePolicies.Policies[0].Document); got != long+2 {
					t.Errorf("%s has a document of %d bytes, want %d", r.Name, got, long+2)
				}
				kept := 0
				for _, d := range documents.read {
					kept += len(d)
				}
				if kept > maxShared {
					t.Errorf("behind %s %d bytes are kept, want at most %d", r.Name, kept, maxShared)
				}
			}
			return none, nil
		})
	})
}
