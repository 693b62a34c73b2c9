package awsiam_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const (
	provider    = "GetOpenIDConnectProvider"
	okta        = "https://acme.okta.com"
	providerARN = "arn:aws:iam::" + spoke + ":oidc-provider/acme.okta.com"
)

// allowProvider lets the account's ingestion role ask for its provider.
func allowProvider(owner *awstest.Account) {
	owner.SetInline("serval-ingest", "provider", allow("iam:"+provider))
}

// Nobody asks for a provider where no issuer is told, and the calls and the bytes are what they were; where one is,
// it is one call more, and what is said beside it is the same.
func TestProviderIsAskedForWhereAnIssuerIsTold(t *testing.T) {
	bothWays(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		owner.PutOIDCProvider(okta, "0oa2", "0oa1", "0oa2")
		allowProvider(owner)
		plain := e.inventory(t, a)
		calls := e.CountCalls("")
		if plain.OIDCProvider != nil || strings.Contains(asText(t, plain), "oidc_provider") || e.CountCalls(provider) != 0 {
			t.Errorf("asked %d times, and the inventory has %+v; nobody wanted it", e.CountCalls(provider), plain.OIDCProvider)
		}
		e.ResetCalls()
		inv, err := e.reader(t).Inventory(t.Context(), a, nil, okta, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := &serval.OIDCProvider{Issuer: okta, ARN: providerARN, Status: serval.ListRead, ClientIDs: []string{"0oa1", "0oa2"}}
		if diff := cmp.Diff(want, inv.OIDCProvider); diff != "" {
			t.Errorf("the provider (-want +got):\n%s", diff)
		}
		if e.CountCalls(provider) != 1 || e.CountCalls("") != calls+1 {
			t.Errorf("%d calls, %d of them for the provider; want %d and 1", e.CountCalls(""), e.CountCalls(provider), calls+1)
		}
		if inv.OIDCProvider = nil; asText(t, inv) != asText(t, plain) {
			t.Errorf("beside the provider the inventory is another one:\n%s", cmp.Diff(asText(t, plain), asText(t, inv)))
		}
	})
}

// Whatever becomes of asking for it, the account is read as it is without, and no problem is made of it.
func TestProviderThatIsNotRead(t *testing.T) {
	const head, foot = `<GetOpenIDConnectProviderResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><GetOpenIDConnectProviderResult>`, `</GetOpenIDConnectProviderResult></GetOpenIDConnectProviderResponse>`
	answer := func(url string, ids ...string) awstest.Fault {
		return awstest.Fault{Status: 200, Body: head + "<Url>" + url + "</Url><ClientIDList><member>" + strings.Join(ids, "</member><member>") + "</member></ClientIDList>" + foot}
	}
	many := func(n int) (ids []string) {
		for i := range n {
			ids = append(ids, strings.Repeat("a", i+1))
		}
		return ids
	}
	for _, tt := range []struct {
		name  string
		fault awstest.Fault
		set   func(owner *awstest.Account)
		want  serval.ListStatus
		ids   int
		tries int // 0: not counted
	}{
		{name: "read", want: serval.ListRead, ids: 1, tries: 1},
		{name: "denied", set: func(o *awstest.Account) { o.SetInline("serval-ingest", "provider", "") }, want: serval.ListDenied, tries: 1},
		{name: "none", set: func(o *awstest.Account) { o.DeleteOIDCProvider(providerARN) }, want: serval.ListAbsent, tries: 1},
		{name: "another issuer's", set: func(o *awstest.Account) {
			o.DeleteOIDCProvider(providerARN)
			o.PutOIDCProvider(okta+"/oauth2/default", "0oa1")
		}, want: serval.ListAbsent, tries: 1},
		{name: "throttled", fault: awstest.Fault{Status: 400, Code: "Throttling", Times: 2}, want: serval.ListRead, ids: 1, tries: 3},
		{name: "throttled for good", fault: awstest.Fault{Status: 400, Code: "Throttling"}, want: serval.ListThrottled, tries: 10},
		{name: "failing", fault: awstest.Fault{Status: 500, Code: "ServiceFailure", Message: "try later", Times: 1}, want: serval.ListRead, ids: 1, tries: 2},
		{name: "failing for good", fault: awstest.Fault{Status: 500, Code: "ServiceFailure", Message: "try later"}, want: serval.ListFailed, tries: 10},
		{name: "refused as no ARN", fault: awstest.Fault{Status: 400, Code: "InvalidInput", Message: "no"}, want: serval.ListFailed, tries: 1},
		{name: "never answered", fault: awstest.Fault{Hang: true}, want: serval.ListFailed},
		{name: "nothing", fault: awstest.Fault{Status: 200}, want: serval.ListFailed, tries: 3},
		{name: "without its ids", fault: awstest.Fault{Status: 200, Body: head + "<Url>acme.okta.com</Url>" + foot}, want: serval.ListFailed, tries: 3},
		{name: "of another URL", fault: answer("evil.okta.com", "0oa1"), want: serval.ListFailed, tries: 3},
		{name: "with its scheme", fault: answer("https://acme.okta.com", "0oa1"), want: serval.ListRead, ids: 1, tries: 1},
		{name: "with as many ids as there may be", fault: answer("acme.okta.com", many(100)...), want: serval.ListRead, ids: 100, tries: 1},
		{name: "with one more", fault: answer("acme.okta.com", many(101)...), want: serval.ListFailed, tries: 3},
		{name: "with an id as long as may be", fault: answer("acme.okta.com", strings.Repeat("a", 255)), want: serval.ListRead, ids: 1, tries: 1},
		{name: "with a longer one", fault: answer("acme.okta.com", strings.Repeat("a", 256)), want: serval.ListFailed, tries: 3},
		{name: "with one that is none", fault: answer("acme.okta.com", "a\u00e9"), want: serval.ListFailed, tries: 3},
		{name: "with an empty one", fault: answer("acme.okta.com", ""), want: serval.ListFailed, tries: 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				owner.PutOIDCProvider(okta, "0oa1")
				allowProvider(owner)
				if tt.set != nil {
					tt.set(owner)
				}
				plain := e.inventory(t, a)
				e.ResetCalls()
				tt.fault.Action = provider
				e.Inject(tt.fault)
				inv, err := e.reader(t).Inventory(t.Context(), a, nil, okta, nil)
				if err != nil {
					t.Fatal(err)
				}
				p := inv.OIDCProvider
				if p == nil || p.Status != tt.want || len(p.ClientIDs) != tt.ids || p.ClientIDs == nil || p.ARN != providerARN || p.Issuer != okta {
					t.Errorf("the provider is %+v, want it %s with %d client ids", p, tt.want, tt.ids)
				}
				if n := e.CountCalls(provider); n != tt.tries && tt.tries > 0 {
					t.Errorf("tried %d times, want %d", n, tt.tries)
				}
				if inv.OIDCProvider = nil; asText(t, inv) != asText(t, plain) || !inv.Complete || len(inv.Problems) != 0 {
					t.Errorf("beside the provider the inventory is another one:\n%s", cmp.Diff(asText(t, plain), asText(t, inv)))
				}
			})
		})
	}
}

// A refusal costs one call for each account, once, and is asked about again after some hours, or for another role.
// What is not there is no refusal.
func TestRefusalOfProviderIsRemembered(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		e.config.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			k := e.Account(hub).PodIdentity("worker", time.Now())
			return aws.Credentials{AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken,
				CanExpire: true, Expires: k.Expiration}, nil
		})
		var seen []string
		e.config.Observe = func(c awsiam.Call) {
			if c.Action == "iam:"+provider {
				seen = append(seen, c.Code)
			}
		}
		r := e.reader(t)
		read := func(want serval.ListStatus, tried int) {
			t.Helper()
			inv, err := r.Inventory(t.Context(), a, nil, okta, nil)
			if err != nil || !inv.Complete || inv.OIDCProvider == nil || inv.OIDCProvider.Status != want {
				t.Errorf("%v, complete %v, the provider is %+v; want it %s", err, inv.Complete, inv.OIDCProvider, want)
			}
			if n := e.CountCalls(provider); n != tried || len(seen) != tried {
				t.Errorf("tried %d times and observed %d, want %d", n, len(seen), tried)
			}
		}
		read(serval.ListDenied, 1)
		read(serval.ListDenied, 1)
		allowProvider(owner)
		time.Sleep(11 * time.Hour)
		read(serval.ListDenied, 1)
		time.Sleep(2 * time.Hour)
		read(serval.ListAbsent, 2)
		read(serval.ListAbsent, 3)
		owner.SetInline("serval-ingest", "provider", "")
		read(serval.ListDenied, 4)
		owner.PutRole(awstest.Role{Name: "serval-other", Trust: trust(hub, external, "sts:AssumeRole", "sts:TagSession"),
			Inline: map[string]string{"read": allow(append(serval.IngestionActions(), "iam:"+provider)...)}})
		a.RoleARN = owner.RoleARN("serval-other")
		read(serval.ListAbsent, 5)
	})
}

// Somebody who asks for the provider alone is told of now, whatever is remembered.
func TestProviderAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		r := e.reader(t)
		for _, want := range []serval.ListStatus{serval.ListDenied, serval.ListAbsent, serval.ListRead} {
			switch want {
			case serval.ListAbsent:
				allowProvider(owner)
			case serval.ListRead:
				owner.PutOIDCProvider(okta, "0oa1")
			}
			p, err := r.Provider(t.Context(), a, okta)
			if err != nil || p.Status != want || p.ARN != providerARN {
				t.Errorf("%+v, %v; want it %s", p, err, want)
			}
		}
		owner.DeleteRole("serval-ingest")
		_, err := e.reader(t).Provider(t.Context(), a, okta)
		if f := failureOf(t, err); f.Check != awsiam.StageAssume {
			t.Errorf("%+v, want that the role cannot be assumed", f)
		}
	})
}

// Deltas do not ask.
func TestDeltasDoNotAskForProviders(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		allowProvider(owner)
		r := e.reader(t)
		if _, err := r.Inventory(t.Context(), a, nil, okta, nil); err != nil {
			t.Fatal(err)
		}
		e.ResetCalls()
		if _, err := r.Delta(t.Context(), a, nil, time.Now(), 300); err != nil {
			t.Fatal(err)
		}
		if n := e.CountCalls(provider); n != 0 {
			t.Errorf("a delta asked %d times", n)
		}
	})
}
