package awssts_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const (
	account  = "111122223333"
	issuer   = "https://acme.okta.example"
	clientID = "serval"
	subject  = "00u1ana"
	session  = "ana@example.com"

	allowAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
)

// An estate is an account with one role that trusts the issuer, and all of it
// in memory: it lives within a bubble of testing/synctest.
type estate struct {
	cloud   *awstest.Cloud
	account *awstest.Account
	idp     *idptest.Provider
	client  *awssts.Client
	web     *http.Client // reaches the cloud
	seen    *wire
}

// inBubble runs f with an estate, in a bubble where time passes at once.
func inBubble(t *testing.T, f func(t *testing.T, e *estate)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		idp := idptest.New(idptest.Options{
			ClientID: clientID, Issuer: issuer,
			People: []idptest.Person{{Subject: subject, Name: "Ana", Email: "ana@example.com"}},
		})
		cloud := awstest.New(awstest.Options{HTTPClient: &http.Client{Transport: idp.Transport(), Timeout: 5 * time.Second}})
		a := cloud.AddAccount(account, "Prod")
		provider := a.PutOIDCProvider(issuer, clientID)
		a.PutRole(awstest.Role{
			Name: "dev-admin", Path: "/people/", MaxSessionDuration: 14400, Trust: trust(provider),
			Inline: map[string]string{"all": allowAll},
		})
		transport := &http.Transport{DialContext: cloud.Dialer()}
		e := &estate{cloud: cloud, account: a, idp: idp, seen: &wire{next: transport}}
		e.web = &http.Client{Transport: e.seen}
		e.client = newClient(t, awssts.Config{
			Endpoint: "http://127.0.0.1:4566", SigninEndpoint: "http://127.0.0.1:4566", HTTPClient: e.web,
		})
		f(t, e)
		transport.CloseIdleConnections()
		cloud.Close()
	})
}

func newClient(t *testing.T, c awssts.Config) *awssts.Client {
	t.Helper()
	client, err := awssts.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func trust(provider string, more ...string) string {
	actions := `"` + strings.Join(append([]string{"sts:AssumeRoleWithWebIdentity"}, more...), `","`) + `"`
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + provider + `"},"Action":[` + actions + `],
		"Condition":{"StringEquals":{"acme.okta.example:aud":"` + clientID + `"}}}]}`
}

// mint is a mint for Ana, of an hour.
func (e *estate) mint() serval.Mint {
	return serval.Mint{
		Role: serval.RoleKey{
			Partition: "aws", AccountID: account,
			RoleID: e.account.RoleID("dev-admin"), ARN: e.account.RoleARN("dev-admin"),
		},
		SessionName: session,
		Token:       serval.NewSecret(e.idp.IDToken("ana@example.com", nil)),
		Seconds:     3600,
	}
}

// check judges an answer as the callers of Mint do.
func check(m serval.Mint, got serval.Minted, asked time.Time) error {
	return m.Check(got, issuer, clientID, subject, asked, time.Now())
}

// A wire remembers the requests that went over it.
type wire struct {
	next http.RoundTripper

	mu       sync.Mutex
	requests []*http.Request
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests = append(w.requests, r)
	w.mu.Unlock()
	return w.next.RoundTrip(r)
}

// cancelAfter returns a context that ends by its own hand.
func cancelAfter(d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	timer := time.AfterFunc(d, cancel)
	return ctx, func() { timer.Stop(); cancel() }
}
