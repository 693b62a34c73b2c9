package awssts_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func TestASessionEndsWithTheGrant(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate) {
		ctx := context.Background()
		asked := time.Now()
		policy := serval.SessionPolicy{End: asked.Add(5 * time.Minute), NoChaining: true}
		m := e.mint()
		m.Seconds, m.Policy, m.PolicyARNs = 900, policy.Document(), policy.ManagedPolicies("aws")
		got, err := e.client.Mint(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(m, got, asked); err != nil {
			t.Errorf("the right answer is refused: %v", err)
		}
		if got.PackedPolicySize == 0 {
			t.Error("no packed policy size for a session with a policy")
		}

		config := aws.Config{
			Region:      "us-west-1",
			Credentials: credentials.NewStaticCredentialsProvider(got.AccessKeyID, got.SecretAccessKey.Reveal(), got.SessionToken.Reveal()),
			HTTPClient:  e.web,
			Retryer:     func() aws.Retryer { return aws.NopRetryer{} },
		}
		roles := iam.NewFromConfig(config, func(o *iam.Options) { o.BaseEndpoint = aws.String("http://127.0.0.1:4566") })
		self := sts.NewFromConfig(config, func(o *sts.Options) { o.BaseEndpoint = aws.String("http://127.0.0.1:4566") })
		want := func(when, code string) {
			t.Helper()
			_, err := roles.ListRoles(ctx, &iam.ListRolesInput{})
			refused, _ := errors.AsType[smithy.APIError](err)
			if got := refusedCode(refused); got != code {
				t.Errorf("%s iam:ListRoles answers %q, want %q: %v", when, got, code, err)
			}
			if who, err := self.GetCallerIdentity(ctx, nil); err != nil || *who.Arn != got.AssumedRoleARN {
				t.Errorf("%s sts:GetCallerIdentity answers %v, %v; no policy can refuse it", when, who, err)
			}
		}
		want("before the end", "")
		time.Sleep(5*time.Minute - time.Second)
		want("a second before the end", "")
		time.Sleep(time.Second)
		want("at the end", "AccessDenied")
		time.Sleep(4 * time.Minute)
		want("after the end", "AccessDenied")
	})
}

func refusedCode(e smithy.APIError) string {
	if e == nil {
		return ""
	}
	return e.ErrorCode()
}

func TestReadOnlySession(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate) {
		e.cloud.KeepParams(true)
		policy := serval.SessionPolicy{End: time.Now().Add(time.Hour), ReadOnly: true}
		m := e.mint()
		m.Policy, m.PolicyARNs = policy.Document(), policy.ManagedPolicies("aws")
		if _, err := e.client.Mint(context.Background(), m); err != nil {
			t.Fatal(err)
		}
		sent := e.cloud.Calls()[0].Params
		for name, want := range map[string]string{
			"PolicyArns.member.1.arn": "arn:aws:iam::aws:policy/ReadOnlyAccess",
			"Policy":                  m.Policy, "DurationSeconds": "3600", "RoleSessionName": session, "RoleArn": m.Role.ARN,
		} {
			if sent.Get(name) != want {
				t.Errorf("sent %s %q, want %q", name, sent.Get(name), want)
			}
		}
	})
}

// What is not right about a mint stays here: no byte is sent.
func TestMintsThatAreNotSent(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate) {
		for _, c := range []struct {
			name   string
			change func(m *serval.Mint)
			kind   serval.Kind
			reason string
		}{
			{"not an ARN", func(m *serval.Mint) { m.Role.ARN = "dev-admin" }, serval.Invalid, "invalid role ARN format"},
			{"another service's ARN", func(m *serval.Mint) { m.Role.ARN = "arn:aws:s3:::bucket" }, serval.Invalid, "invalid role ARN format"},
			{"a host in the ARN", func(m *serval.Mint) { m.Role.ARN = "arn:aws:iam::111122223333:role/x?Action=y z" }, serval.Invalid, "invalid role ARN format"},
			{"another account's ARN", func(m *serval.Mint) { m.Role.ARN = "arn:aws:iam::444455556666:role/x" }, serval.Invalid, "is of account 444455556666"},
			{"another partition's ARN", func(m *serval.Mint) { m.Role.ARN = "arn:aws-cn:iam::111122223333:role/x" }, serval.Invalid, "in partition aws-cn"},
			{"another partition", func(m *serval.Mint) {
				m.Role.ARN, m.Role.Partition = "arn:aws-cn:iam::111122223333:role/x", "aws-cn"
			}, serval.FailedPrecondition, "the STS endpoint that is set serves aws"},
			{"no session name", func(m *serval.Mint) { m.SessionName = "" }, serval.Invalid, "session name"},
			{"a line break in the session name", func(m *serval.Mint) { m.SessionName = "ana\n" }, serval.Invalid, "session name"},
			{"a long session name", func(m *serval.Mint) { m.SessionName = strings.Repeat("a", 65) }, serval.Invalid, "session name"},
			{"too short", func(m *serval.Mint) { m.Seconds = 899 }, serval.Invalid, "900 to 43200 seconds, not 899"},
			{"too long", func(m *serval.Mint) { m.Seconds = 43201 }, serval.Invalid, "not 43201"},
			{"no token", func(m *serval.Mint) { m.Token = serval.Secret{} }, serval.LoginRequired, "Sign in again"},
			{"a huge token", func(m *serval.Mint) { m.Token = serval.NewSecret(strings.Repeat("a", 20001)) }, serval.LoginRequired, "20001"},
		} {
			m := e.mint()
			c.change(&m)
			_, err := e.client.Mint(context.Background(), m)
			if !serval.IsRefusal(err, c.kind) || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("%s: %v, want a refusal of kind %s with %q", c.name, err, c.kind, c.reason)
			}
		}
		if n := len(e.seen.requests); n != 0 {
			t.Errorf("%d requests were sent, want none", n)
		}
	})
}

// S-1 and S-6: whoever steers the call must not steer its result. Mint reads
// the answer, and serval.Mint.Check tells that it is of another.
func TestAnAnswerForAnotherIsCaught(t *testing.T) {
	replace := func(element, text string) func([]byte) []byte {
		r := regexp.MustCompile(`<` + element + `>[^<]*</` + element + `>`)
		return func(body []byte) []byte {
			return r.ReplaceAll(body, []byte("<"+element+">"+text+"</"+element+">"))
		}
	}
	for _, c := range []struct {
		name   string
		mutate func([]byte) []byte
		want   string // in what Check says
	}{
		{"as it should be", func(b []byte) []byte { return b }, ""},
		{"account", replace("Arn", "arn:aws:sts::444455556666:assumed-role/dev-admin/"+session), "STS answered for \"arn:aws:sts::444455556666"},
		{"role", replace("Arn", "arn:aws:sts::"+account+":assumed-role/admin/"+session), "assumed-role/admin"},
		{"session name", replace("Arn", "arn:aws:sts::"+account+":assumed-role/dev-admin/eve@example.com"), "eve@example.com"},
		{"partition", replace("Arn", "arn:aws-cn:sts::"+account+":assumed-role/dev-admin/"+session), "arn:aws-cn"},
		{"role id", replace("AssumedRoleId", "AROAEVEEVEEVEEVEEVEEV:"+session), "created again"},
		{"subject", replace("SubjectFromWebIdentityToken", "00u1eve"), "another subject"},
		{"no subject", replace("SubjectFromWebIdentityToken", ""), "another subject"},
		{"audience", replace("Audience", "another-client"), "another audience"},
		{"provider", replace("Provider", "arn:aws:iam::"+account+":oidc-provider/evil.example"), "another provider"},
		{"provider's account", replace("Provider", "arn:aws:iam::444455556666:oidc-provider/acme.okta.example"), "another provider"},
		{"provider as the issuer", replace("Provider", issuer), ""},
		{"an hour too long", replace("Expiration", "2000-01-01T02:00:00Z"), "past what was asked"},
		{"a minute and a second too long", replace("Expiration", "2000-01-01T01:01:01Z"), "past what was asked"},
		{"over already", replace("Expiration", "1999-12-31T23:59:59Z"), "ended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate) {
				e.cloud.Inject(awstest.Fault{Action: "AssumeRoleWithWebIdentity", Mutate: c.mutate})
				m, asked := e.mint(), time.Now()
				got, err := e.client.Mint(context.Background(), m)
				if err != nil {
					t.Fatal(err)
				}
				err = check(m, got, asked)
				if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
					t.Errorf("checking the answer says %v, want %q", err, c.want)
				}
			})
		})
	}
}

// S-80: an answer that lacks what it must hold is an error, and no panic.
func TestAnswersThatLackSomething(t *testing.T) {
	cut := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte {
			return regexp.MustCompile(`(?s)`+from+`.*`+to).ReplaceAll(b, nil)
		}
	}
	html := "<!doctype html><title>Welcome to the hotel's wifi</title><p>Accept"
	for _, c := range []struct {
		name  string
		fault awstest.Fault
		code  string
	}{
		{"an empty body", awstest.Fault{Status: 200}, awssts.BadAnswer},
		{"an empty element", awstest.Fault{Body: `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult/></AssumeRoleWithWebIdentityResponse>`}, awssts.BadAnswer},
		{"another action's answer", awstest.Fault{Body: `<GetCallerIdentityResponse><GetCallerIdentityResult/></GetCallerIdentityResponse>`}, awssts.BadAnswer},
		{"a captive portal", awstest.Fault{Body: html, ContentType: "text/html"}, awssts.BadAnswer},
		{"a portal's redirect", awstest.Fault{Status: 302, Body: html, ContentType: "text/html"}, awssts.BadAnswer},
		{"a proxy's 407", awstest.Fault{Status: 407, Body: html, ContentType: "text/html"}, awssts.BadAnswer},
		{"a proxy's empty 403", awstest.Fault{Status: 403}, awssts.BadAnswer},
		{"no credentials", awstest.Fault{Mutate: cut("<Credentials>", "</Credentials>")}, awssts.BadAnswer},
		{"no assumed role", awstest.Fault{Mutate: cut("<AssumedRoleUser>", "</AssumedRoleUser>")}, awssts.BadAnswer},
		{"no access key", awstest.Fault{Mutate: cut("<AccessKeyId>", "</AccessKeyId>")}, awssts.BadAnswer},
		{"no secret key", awstest.Fault{Mutate: cut("<SecretAccessKey>", "</SecretAccessKey>")}, awssts.BadAnswer},
		{"no session token", awstest.Fault{Mutate: cut("<SessionToken>", "</SessionToken>")}, awssts.BadAnswer},
		{"no expiration", awstest.Fault{Mutate: cut("<Expiration>", "</Expiration>")}, awssts.BadAnswer},
		{"no readable expiration", awstest.Fault{Mutate: func(b []byte) []byte {
			return regexp.MustCompile(`<Expiration>[^<]*`).ReplaceAll(b, []byte("<Expiration>soon"))
		}}, awssts.BadAnswer},
		{"XML cut short", awstest.Fault{Mutate: func(b []byte) []byte { return b[:len(b)/2] }}, awssts.BadAnswer},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate) {
				e.cloud.Inject(c.fault)
				got, err := e.client.Mint(context.Background(), e.mint())
				failed, ok := errors.AsType[*awssts.Error](err)
				if !ok || failed.Code != c.code || failed.Kind != serval.Unavailable || failed.Retried != 0 {
					t.Fatalf("error %#v, want %s, unavailable, tried once", err, c.code)
				}
				if got != (serval.Minted{}) {
					t.Errorf("beside the error a part of the answer: %+v", got)
				}
			})
		})
	}
}

// It failed; and it failed, but happened.
func TestLostAnswers(t *testing.T) {
	for _, happened := range []bool{false, true} {
		for _, times := range []int{1, 2, 0} {
			t.Run(fmt.Sprintf("happened %t, %d times", happened, times), func(t *testing.T) {
				inBubble(t, func(t *testing.T, e *estate) {
					e.cloud.Inject(awstest.Fault{Action: "AssumeRoleWithWebIdentity", Reset: true, Happened: happened, Times: times})
					m, asked := e.mint(), time.Now()
					got, err := e.client.Mint(context.Background(), m)
					calls := e.cloud.CountCalls("AssumeRoleWithWebIdentity")
					if times == 0 {
						failed, ok := errors.AsType[*awssts.Error](err)
						if !ok || failed.Code != awssts.NoAnswer || failed.Kind != serval.Unavailable || failed.Retried != 2 || calls != 3 {
							t.Errorf("error %#v after %d calls, want %s after 3", err, calls, awssts.NoAnswer)
						}
						return
					}
					if err != nil || calls != times+1 {
						t.Fatalf("error %v after %d calls, want none after %d", err, calls, times+1)
					}
					if err := check(m, got, asked); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestMintEnds(t *testing.T) {
	t.Run("where STS hangs, after ten seconds", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *estate) {
			e.cloud.Inject(awstest.Fault{Hang: true})
			began := time.Now()
			_, err := e.client.Mint(context.Background(), e.mint())
			failed, ok := errors.AsType[*awssts.Error](err)
			if took := time.Since(began); !ok || failed.Code != awssts.NoAnswer || failed.Retried != 1 || took > 10*time.Second {
				t.Errorf("after %s error %#v, want %s after two tries within 10s", took, err, awssts.NoAnswer)
			}
		})
	})
	t.Run("where STS hangs once, with the second answer", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *estate) {
			e.cloud.Inject(awstest.Fault{Hang: true, Times: 1})
			if _, err := e.client.Mint(context.Background(), e.mint()); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("where STS is slow, with its answer", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *estate) {
			e.cloud.Inject(awstest.Fault{Delay: 6 * time.Second})
			if _, err := e.client.Mint(context.Background(), e.mint()); err != nil {
				t.Error(err)
			}
			if n := e.cloud.CountCalls(""); n != 1 {
				t.Errorf("%d calls, want 1", n)
			}
		})
	})
	t.Run("with its caller", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *estate) {
			e.cloud.Inject(awstest.Fault{Hang: true})
			ctx, cancel := cancelAfter(time.Second)
			defer cancel()
			began := time.Now()
			_, err := e.client.Mint(ctx, e.mint())
			if took := time.Since(began); took != time.Second || !errors.Is(err, context.Canceled) || !serval.IsRefusal(err, serval.Unavailable) {
				t.Errorf("after %s error %v, want the caller's after 1s", took, err)
			}
		})
	})
	t.Run("between two tries, with its caller", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *estate) {
			e.cloud.Inject(awstest.Fault{Status: 503})
			ctx, cancel := cancelAfter(time.Millisecond)
			defer cancel()
			began := time.Now()
			_, err := e.client.Mint(ctx, e.mint())
			if took := time.Since(began); took != time.Millisecond || err == nil {
				t.Errorf("after %s error %v, want one after 1ms", took, err)
			}
		})
	})
}

// The identity provider's own failures reach STS as they do in life.
func TestFailuresOfTheIdentityProvider(t *testing.T) {
	atKeys := func(a idptest.Answer) func(e *estate, m *serval.Mint) {
		return func(e *estate, _ *serval.Mint) {
			e.idp.Misbehave(func(m *idptest.Misbehaviour) { m.AtJWKS = a })
		}
	}
	for _, c := range []struct {
		name  string
		set   func(e *estate, m *serval.Mint)
		code  string
		calls int
	}{
		{"none", func(*estate, *serval.Mint) {}, "", 1},
		{"a new key", func(e *estate, m *serval.Mint) {
			e.idp.Rotate()
			m.Token = serval.NewSecret(e.idp.IDToken("ana@example.com", nil))
		}, "", 1},
		{"a withdrawn key", func(e *estate, _ *serval.Mint) {
			e.idp.Rotate()
			e.idp.Retire()
		}, "InvalidIdentityToken", 2},
		{"keys that are away", atKeys(idptest.Answer{Status: 503}), "IDPCommunicationError", 3},
		{"keys that are refused", atKeys(idptest.Answer{Status: 404}), "InvalidIdentityToken", 2},
		{"keys that take too long", atKeys(idptest.Answer{Hang: true}), "InvalidIdentityToken", 2},
		{"a token that has ended", func(*estate, *serval.Mint) { time.Sleep(time.Hour) }, "ExpiredTokenException", 1},
		{"a provider the account does not know", func(e *estate, _ *serval.Mint) {
			e.account.DeleteOIDCProvider("arn:aws:iam::" + account + ":oidc-provider/acme.okta.example")
		}, "InvalidIdentityToken", 1},
		{"another audience", func(e *estate, _ *serval.Mint) { e.account.PutOIDCProvider(issuer, "another") }, "InvalidIdentityToken", 1},
		{"session tags that the role does not take", func(e *estate, m *serval.Mint) {
			m.Token = serval.NewSecret(e.idp.IDToken("ana@example.com", func(claims map[string]any) {
				claims["https://aws.amazon.com/tags"] = map[string]any{"principal_tags": map[string]any{"team": []string{"payments"}}}
			}))
		}, "AccessDenied", 1},
		{"a role whose maximum is lower now", func(e *estate, m *serval.Mint) {
			e.account.SetMaxSession("dev-admin", 3600)
			m.Seconds = 14400
		}, "ValidationError", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate) {
				m := e.mint()
				c.set(e, &m)
				began := time.Now()
				_, err := e.client.Mint(context.Background(), m)
				failed, _ := errors.AsType[*awssts.Error](err)
				if failed == nil && c.code != "" || failed != nil && failed.Code != c.code {
					t.Errorf("error %v, want %q", err, c.code)
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("it took %s, want at most 10s", took)
				}
				synctest.Wait() // until the cloud has noticed that the client is gone
				if n := e.cloud.CountCalls(""); n != c.calls {
					t.Errorf("%d calls, want %d", n, c.calls)
				}
			})
		})
	}
}

// What Clamp promises: the same mint with the default length is taken.
func TestClamp(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate) {
		m := e.mint()
		m.Seconds = 14400
		e.account.SetMaxSession("dev-admin", 3600)
		_, err := e.client.Mint(context.Background(), m)
		if failed, ok := errors.AsType[*awssts.Error](err); !ok || !failed.Clamp {
			t.Fatalf("error %#v, want one to clamp on", err)
		}
		m.Seconds = serval.DefaultMaxSessionSeconds
		if _, err := e.client.Mint(context.Background(), m); err != nil {
			t.Error(err)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate) {
		e.cloud.ThrottleAction("AssumeRoleWithWebIdentity", 20, 10)
		m, asked := e.mint(), time.Now()
		errs := make(chan error, 30)
		for range cap(errs) {
			go func() {
				got, err := e.client.Mint(context.Background(), m)
				if err == nil {
					err = check(m, got, asked)
				}
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Errorf("one of thirty at once: %v", err)
			}
		}
	})
}

// A canary is planted in every secret; what is printed must not sing.
func TestNothingPrintsASecret(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate) {
		m := e.mint()
		token := m.Token.Reveal()
		got, err := e.client.Mint(context.Background(), m)
		if err != nil {
			t.Fatal(err)
		}
		canaries := append(strings.Split(token, "."), got.SecretAccessKey.Reveal(), got.SessionToken.Reveal())
		quiet := func(what string, values ...any) {
			t.Helper()
			for _, v := range values {
				b, err := json.Marshal(v)
				if err != nil {
					b = []byte(err.Error())
				}
				printed := string(b)
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
					printed += fmt.Sprintf(verb, v)
				}
				if err, ok := v.(error); ok {
					printed += err.Error()
				}
				for _, canary := range canaries {
					if strings.Contains(printed, canary) || strings.Contains(printed, fmt.Sprintf("%x", canary)) {
						t.Errorf("%s prints a secret: %s", what, printed)
					}
				}
			}
		}
		quiet("a mint", m, &m)
		quiet("an answer", got, &got)
		quiet("the client", e.client, *e.client)
		for name, fault := range map[string]awstest.Fault{
			"the whole token":  {Status: 400, Code: "ValidationError", Message: "1 validation error detected: Value '" + token + "' at 'webIdentityToken' failed"},
			"a part of it":     {Status: 400, Code: "InvalidIdentityToken", Message: "Cannot read " + strings.Split(token, ".")[1] + " of it"},
			"a token cut off":  {Status: 403, Code: "AccessDenied", Message: "Not for " + token[:len(token)-40]},
			"one as its code":  {Status: 400, Code: token, Message: "no"},
			"a page of it":     {Status: 500, Body: "<html>" + token, ContentType: "text/html"},
			"an answer of it":  {Status: 200, Body: token},
			"none":             {Reset: true, Happened: true},
			"credentials only": {Mutate: func(b []byte) []byte { return b[:len(b)*3/4] }},
		} {
			remove := e.cloud.Inject(fault)
			_, err := e.client.Mint(context.Background(), m)
			failed, ok := errors.AsType[*awssts.Error](err)
			if !ok {
				t.Fatalf("%s: error %v, want ours", name, err)
			}
			quiet("an error that quotes "+name, failed, *failed, failed.Sentence, fmt.Errorf("opening a session: %w", err))
			_, err = e.client.SignIn(context.Background(), "aws", got, serval.ConsolePage{})
			if failed, ok = errors.AsType[*awssts.Error](err); ok {
				quiet("a sign-in error that quotes "+name, failed, *failed)
			}
			remove()
		}
	})
}

func TestTheRefusalOfAnError(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate) {
		e.account.SetTrust("dev-admin", allowNobody)
		_, err := e.client.Mint(context.Background(), e.mint())
		failed, _ := errors.AsType[*awssts.Error](err)
		got, ok := errors.AsType[*serval.Refusal](fmt.Errorf("opening a session: %w", err))
		if !ok || failed == nil {
			t.Fatalf("error %#v, want one that unwraps to a refusal", err)
		}
		want := &serval.Refusal{
			Kind: serval.FailedPrecondition, Reason: failed.Sentence,
			Detail: map[string]string{"code": "AccessDenied", "aws_request_id": failed.RequestID},
		}
		if diff := cmp.Diff(want, got); diff != "" || failed.RequestID == "" {
			t.Errorf("refusal (-want +got):\n%s", diff)
		}
		if failed.Status != http.StatusForbidden || failed.Message != "Not authorized to perform sts:AssumeRoleWithWebIdentity" {
			t.Errorf("error %#v, want AWS's own words", failed)
		}
	})
}

const allowNobody = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
