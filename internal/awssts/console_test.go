package awssts_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func TestSignIn(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate) {
		ctx := context.Background()
		e.cloud.KeepParams(true)
		got, err := e.client.Mint(ctx, e.mint())
		if err != nil {
			t.Fatal(err)
		}
		link, err := e.client.SignIn(ctx, "aws", got, serval.ConsolePage{Service: "s3", Region: "eu-central-1"})
		if err != nil {
			t.Fatal(err)
		}
		asked := e.seen.requests[len(e.seen.requests)-1]
		if asked.Method != http.MethodPost || asked.URL.RawQuery != "" {
			t.Errorf("asked with %s %s, want the session in the body of a POST", asked.Method, asked.URL)
		}
		calls := e.cloud.Calls()
		for name := range calls[len(calls)-1].Params {
			if name != "Action" && name != "Session" {
				t.Errorf("sent the parameter %s, want only Action and Session", name)
			}
		}
		u, err := url.Parse(link.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []serval.Secret{got.SecretAccessKey, got.SessionToken} {
			if strings.Contains(link.Reveal(), url.QueryEscape(secret.Reveal())) {
				t.Error("the link holds the credentials")
			}
		}
		q := u.Query()
		if u.Path != "/federation" || len(q) != 3 || q.Get("Action") != "login" || q.Has("SessionDuration") {
			t.Errorf("the link leads to %s with %d parameters, want /federation with three", u.Path, len(q))
		}
		res, err := e.web.Get(link.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		page, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !strings.Contains(string(page), got.AssumedRoleARN) || !strings.Contains(string(page), "https://console.aws.amazon.com/s3/home?region=eu-central-1") {
			t.Errorf("the link opens %s, want the console of %s", page, got.AssumedRoleARN)
		}
	})
}

func TestSignInsThatAreNotAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate) {
		now := time.Now()
		client := newClient(t, awssts.Config{HTTPClient: e.web, Now: func() time.Time { return now }})
		for _, c := range []struct {
			name, partition string
			page            serval.ConsolePage
			change          func(*serval.Minted)
			kind            serval.Kind
		}{
			{"a service that is an address", "aws", serval.ConsolePage{Service: "//evil.example"}, nil, serval.Invalid},
			{"a region that is an address", "aws", serval.ConsolePage{Region: "eu-central-1.evil.example"}, nil, serval.Invalid},
			{"another partition's region", "aws", serval.ConsolePage{Region: "cn-north-1"}, nil, serval.Invalid},
			{"a partition without a console", "aws-iso", serval.ConsolePage{}, nil, serval.FailedPrecondition},
			{"no credentials", "aws", serval.ConsolePage{}, func(m *serval.Minted) { *m = serval.Minted{Expiration: m.Expiration} }, serval.Invalid},
			{"no access key id", "aws", serval.ConsolePage{}, func(m *serval.Minted) { m.AccessKeyID = "" }, serval.Invalid},
			{"no secret access key", "aws", serval.ConsolePage{}, func(m *serval.Minted) { m.SecretAccessKey = serval.Secret{} }, serval.Invalid},
			{"no session token", "aws", serval.ConsolePage{}, func(m *serval.Minted) { m.SessionToken = serval.Secret{} }, serval.Invalid},
			{"credentials that have ended", "aws", serval.ConsolePage{}, func(m *serval.Minted) { m.Expiration = now }, serval.FailedPrecondition},
		} {
			m := minted()
			if c.change != nil {
				c.change(&m)
			}
			link, err := client.SignIn(context.Background(), c.partition, m, c.page)
			if !serval.IsRefusal(err, c.kind) || !link.Empty() {
				t.Errorf("%s: %s, %v, want a refusal of kind %s", c.name, link, err, c.kind)
			}
		}
		if n := len(e.seen.requests); n != 0 {
			t.Errorf("%d requests were sent, want none", n)
		}
	})
}

func TestSignInFailures(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault awstest.Fault
		code  string // empty for success
		kind  serval.Kind
		calls int
	}{
		{"refused", awstest.Fault{Status: 400, Body: "<html>no"}, awssts.Refused, serval.FailedPrecondition, 1},
		{"forbidden", awstest.Fault{Status: 403}, awssts.Refused, serval.FailedPrecondition, 1},
		{"not found", awstest.Fault{Status: 404}, awssts.BadAnswer, serval.Unavailable, 1},
		{"an empty 200", awstest.Fault{Status: 200}, awssts.BadAnswer, serval.Unavailable, 1},
		{"another 200", awstest.Fault{Body: `{"Token":"x"}`}, awssts.BadAnswer, serval.Unavailable, 1},
		{"a page", awstest.Fault{Body: `<html>`}, awssts.BadAnswer, serval.Unavailable, 1},
		{"throttled", awstest.Fault{Status: 429}, awssts.BadAnswer, serval.Unavailable, 3},
		{"an error with a token", awstest.Fault{Status: 500, Body: `{"SigninToken":"x"}`}, awssts.BadAnswer, serval.Unavailable, 3},
		{"away", awstest.Fault{Status: 503}, awssts.BadAnswer, serval.Unavailable, 3},
		{"away once", awstest.Fault{Status: 503, Times: 1}, "", "", 2},
		{"reset", awstest.Fault{Reset: true}, awssts.NoAnswer, serval.Unavailable, 3},
		{"reset, but happened", awstest.Fault{Reset: true, Happened: true, Times: 1}, "", "", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate) {
				got, err := e.client.Mint(context.Background(), e.mint())
				if err != nil {
					t.Fatal(err)
				}
				e.cloud.ResetCalls()
				e.cloud.Inject(c.fault)
				link, err := e.client.SignIn(context.Background(), "aws", got, serval.ConsolePage{})
				if n := e.cloud.CountCalls("getSigninToken"); n != c.calls {
					t.Errorf("%d calls, want %d", n, c.calls)
				}
				if c.code == "" {
					if err != nil || link.Empty() {
						t.Errorf("link %s, error %v, want a link", link, err)
					}
					return
				}
				failed, ok := errors.AsType[*awssts.Error](err)
				if !ok || failed.Code != c.code || failed.Kind != c.kind || failed.Sentence == "" || !link.Empty() {
					t.Errorf("link %s, error %#v, want %s and kind %s", link, err, c.code, c.kind)
				}
			})
		})
	}
}
