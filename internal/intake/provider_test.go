package intake

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

const okta = "https://acme.okta.com"

// oidcProvider returns what a sync of prod learned of the provider.
func oidcProvider(status serval.ListStatus, ids ...string) *serval.OIDCProvider {
	return &serval.OIDCProvider{Issuer: okta, ARN: "arn:aws:iam::" + prod + ":oidc-provider/acme.okta.com", Status: status, ClientIDs: append([]string{}, ids...)}
}

// What a full sync learned of the OIDC provider is kept until the next one says something else, or nothing; whoever
// has the roles in memory reads them again when it changes, and only then.
func TestPushProvider(t *testing.T) { each(t, testPushProvider) }

func testPushProvider(t *testing.T, w *world) {
	known := func() (p *serval.OIDCProvider, version int64) {
		t.Helper()
		err := w.store.Read(t.Context(), func(v *store.View) (err error) {
			if p, err = v.OIDCProvider(prod); err != nil {
				return err
			}
			a, err := v.Account(prod)
			if err != nil {
				return err
			}
			if err = v.FillLastSync(&a); err == nil && !cmp.Equal(a.OIDCProvider, p) {
				t.Errorf("beside the last sync it is %+v, and alone %+v", a.OIDCProvider, p)
			}
			r, err := v.Roster(prod)
			version = r.Version
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return p, version
	}
	w.push(prod, aRole(prod, "a"))
	if p, _ := known(); p != nil {
		t.Errorf("nobody asked, and it is %+v", p)
	}
	for _, step := range []struct {
		name string
		p    *serval.OIDCProvider
		turn bool
	}{
		{"first", oidcProvider(serval.ListDenied), true},
		{"the same", oidcProvider(serval.ListDenied), false},
		{"read", oidcProvider(serval.ListRead, "0oa1", "0oa2"), true},
		{"read again", oidcProvider(serval.ListRead, "0oa1", "0oa2"), false},
		{"another client id", oidcProvider(serval.ListRead, "0oa1"), true},
		{"gone", oidcProvider(serval.ListAbsent), true},
		{"throttled", oidcProvider(serval.ListThrottled), true},
		{"failed", oidcProvider(serval.ListFailed), true},
		{"not asked for", nil, true},
		{"not asked for again", nil, false},
	} {
		_, before := known()
		head := w.head()
		w.pushAs(prod, func(i *serval.Inventory) { i.OIDCProvider = step.p }, aRole(prod, "a"))
		p, after := known()
		if diff := cmp.Diff(step.p, p); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
		if (after != before) != step.turn {
			t.Errorf("%s: the roster went from version %d to %d", step.name, before, after)
		}
		want := ""
		if step.p != nil {
			want = string(step.p.Status)
		}
		if e := w.events(head); len(e) != 1 || e[0].Detail["oidc_provider"] != want {
			t.Errorf("%s: events %+v, want one that says %q", step.name, e, want)
		}
	}

	// A delta says nothing of it.
	w.pushAs(prod, func(i *serval.Inventory) { i.OIDCProvider = oidcProvider(serval.ListAbsent) }, aRole(prod, "a"))
	w.pushDelta(func(*serval.Delta) {}, aRole(prod, "b"))
	if p, _ := known(); p == nil || p.Status != serval.ListAbsent {
		t.Errorf("after a delta it is %+v, want what it was", p)
	}
}

// A provider that AWS cannot have shown of the account is refused with all that is beside it.
func TestPushProviderRefused(t *testing.T) {
	w := newWorld(t)
	w.push(prod, aRole(prod, "kept"))
	g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
	if err != nil {
		t.Fatal(err)
	}
	many := make([]string, 101)
	for i := range many {
		many[i] = strings.Repeat("x", i+1)
	}
	try := func(p serval.OIDCProvider) error {
		inv := inventory(prod, g, noon)
		inv.OIDCProvider = &p
		_, err := w.intake.Push(t.Context(), hub(), prod, reading(inv, aRole(prod, "new")))
		return err
	}
	for name, change := range map[string]func(*serval.OIDCProvider){
		"no status":                  func(p *serval.OIDCProvider) { p.Status = "" },
		"another status":             func(p *serval.OIDCProvider) { p.Status = "perhaps" },
		"no issuer":                  func(p *serval.OIDCProvider) { p.Issuer, p.ARN = "", strings.TrimSuffix(p.ARN, "acme.okta.com") },
		"of another issuer":          func(p *serval.OIDCProvider) { p.Issuer = "https://evil.okta.com" },
		"of another account":         func(p *serval.OIDCProvider) { p.ARN = strings.Replace(p.ARN, prod, dev, 1) },
		"of another partition":       func(p *serval.OIDCProvider) { p.ARN = strings.Replace(p.ARN, "aws", "aws-cn", 1) },
		"more client ids than AWS's": func(p *serval.OIDCProvider) { p.ClientIDs = many },
		"a longer one":               func(p *serval.OIDCProvider) { p.ClientIDs = []string{strings.Repeat("x", 256)} },
		"an empty one":               func(p *serval.OIDCProvider) { p.ClientIDs = []string{"a", ""} },
		"client ids of none":         func(p *serval.OIDCProvider) { p.Status = serval.ListAbsent },
	} {
		p := *oidcProvider(serval.ListRead, "0oa1")
		change(&p)
		wantKind(t, name, try(p), serval.Invalid)
	}
	w.wantOnly(g, "kept")
	wantKind(t, "as much as may be", try(*oidcProvider(serval.ListRead, append([]string{strings.Repeat("x", 255)}, many[1:100]...)...)), "")
}
