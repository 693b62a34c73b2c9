package control

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

var update = flag.Bool("update", false, "write the golden files anew")

// An estate is a world over an AWS that judges, in a bubble where time passes at
// once.
type estate struct {
	*world
	idp     *idptest.Provider
	cloud   *awstest.Cloud
	account *awstest.Account
	ana     serval.Principal
	trust   string       // policy of the roles
	web     *http.Client // reaches the cloud
}

// role is a role of the account as a worker reads it.
func (e *estate) role(name string) serval.Role {
	return aRole(prod, name, func(r *serval.Role) {
		r.RoleID, r.TrustPolicy = e.account.RoleID(name), serval.Document(e.trust)
	})
}

// awsAt is where the cloud of an estate is, by its own dialer.
const awsAt = "http://127.0.0.1:4566"

// atAWS runs f with an estate whose plane has settings changed.
func atAWS(t *testing.T, f func(t *testing.T, e *estate), change ...func(*Settings)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(noon)) // a bubble begins in the year 2000
		e := &estate{world: newWorld(t)}
		e.clock.runs = true
		e.idp = idptest.New(idptest.Options{
			ClientID: clientID, Issuer: issuer, People: []idptest.Person{{Subject: "00u-ana", Name: "Ana", Email: "ana@example.com"}},
		})
		e.cloud = awstest.New(awstest.Options{HTTPClient: &http.Client{Transport: e.idp.Transport(), Timeout: 5 * time.Second}, SourceIP: "203.0.113.7"})
		e.account = e.cloud.AddAccount(prod, "prod")
		provider := e.account.PutOIDCProvider(issuer, clientID)
		everything := map[string]string{"all": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`}
		var roles []serval.Role
		e.trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + provider + `"},
			"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"acme.okta.example:aud":"serval"}}}]}`
		for _, name := range []string{"reader", "chain"} {
			e.account.PutRole(awstest.Role{
				Name: name, MaxSessionDuration: 14400, Tags: map[string]string{"serval": ""}, Inline: everything, Trust: e.trust,
			})
			roles = append(roles, e.role(name))
		}
		e.account.PutRole(awstest.Role{
			Name: "target", MaxSessionDuration: 3600, Inline: everything,
			Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + prod + `:root"},"Action":"sts:AssumeRole"}]}`,
		})
		transport := &http.Transport{DialContext: e.cloud.Dialer()}
		e.web = &http.Client{Transport: transport}
		t.Cleanup(func() {
			transport.CloseIdleConnections()
			e.cloud.Close()
		})
		client, err := awssts.New(awssts.Config{Endpoint: awsAt, SigninEndpoint: awsAt, HTTPClient: e.web})
		if err != nil {
			t.Fatal(err)
		}
		e.plane = e.newPlane(e.store, append([]func(*Settings){func(s *Settings) {
			s.MintRate = 1_000_000
			s.Networks = Networks{"here": {netip.MustParsePrefix("203.0.113.0/24")}, "elsewhere": {netip.MustParsePrefix("198.51.100.0/24")}}
		}}, change...)...)
		e.plane.minter = client
		e.push(prod, roles...)
		e.signInAna()
		f(t, e)
	})
}

// signInAna signs Ana in with an ID token of this hour.
func (e *estate) signInAna() {
	e.t.Helper()
	said := e.identity("ana@example.com", "engineering")
	said.IDToken = serval.NewSecret(e.idp.IDToken("ana@example.com", nil))
	var err error
	if e.ana, _, err = e.signInAs(e.plane, said); err != nil {
		e.t.Fatal(err)
	}
}

// use says how each of a few calls with a session comes out: the code of AWS's
// error, empty where it is allowed.
func (e *estate) use(m serval.Minted) map[string]string {
	e.t.Helper()
	config := aws.Config{
		Region: "us-west-1", HTTPClient: e.web, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: credentials.NewStaticCredentialsProvider(m.AccessKeyID, m.SecretAccessKey.Reveal(), m.SessionToken.Reveal()),
	}
	ctx := context.Background()
	roles := iam.NewFromConfig(config, func(o *iam.Options) { o.BaseEndpoint = aws.String(awsAt) })
	tokens := sts.NewFromConfig(config, func(o *sts.Options) { o.BaseEndpoint = aws.String(awsAt) })
	calls := map[string]func() error{
		"read": func() error {
			_, err := roles.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("target")})
			return err
		},
		"write": func() error {
			_, err := roles.TagRole(ctx, &iam.TagRoleInput{RoleName: aws.String("target"), Tags: []iamtypes.Tag{{Key: aws.String("team"), Value: aws.String("blue")}}})
			return err
		},
		"chain": func() error {
			_, err := tokens.AssumeRole(ctx, &sts.AssumeRoleInput{
				RoleArn: aws.String("arn:aws:iam::" + prod + ":role/target"), RoleSessionName: aws.String("chained"),
			})
			return err
		},
		"whoami": func() error { _, err := tokens.GetCallerIdentity(ctx, nil); return err },
	}
	out := map[string]string{}
	for name, call := range calls {
		if err := call(); err != nil {
			failed, ok := errors.AsType[smithy.APIError](err)
			if !ok {
				e.t.Fatalf("%s: %v", name, err)
			}
			out[name] = failed.ErrorCode()
			continue
		}
		out[name] = ""
	}
	return out
}

// Every session, whatever it was asked to be: before its end it may do what it
// should, from its end on nothing, and read only never writes. The cloud
// evaluates policies as AWS documents it; that is tested by policytest's table.
// S-6, S-72
func TestEverySessionEnds(t *testing.T) {
	const denied, expired = "AccessDenied", "ExpiredToken"
	for _, lease := range []time.Duration{0, 30 * time.Minute} {
		atAWS(t, func(t *testing.T, e *estate) {
			n := 0
			for _, minutes := range []int{60, 14} { // more than the shortest session of AWS's, and less
				for _, readOnly := range []bool{false, true} {
					for _, network := range []string{"", "here", "elsewhere"} {
						for _, chaining := range []string{"as it is", "asked not to", "allowed by the policy", "allowed, and asked not to"} {
							n++
							what := fmt.Sprintf("lease %s, %d minutes, read only %t, network %q, chaining %s", lease, minutes, readOnly, network, chaining)
							role := "reader"
							if strings.HasPrefix(chaining, "allowed") {
								role = "chain"
							}
							e.signInAna()
							began := e.clock.now()
							o, err := e.tryOpen(e.ana, Opening{
								RequestID: e.ask(e.ana, roleARN(prod, role), minutes).ID, Kind: serval.ForCredentials,
								ReadOnly: readOnly, Network: network, NoChaining: strings.HasSuffix(chaining, "asked not to"),
							})
							if err != nil {
								t.Fatalf("%s: %v", what, err)
							}
							length := time.Duration(minutes) * time.Minute
							if lease > 0 {
								length = min(length, lease)
							}
							if d := began.Add(length).Sub(o.Session.EndsAt); d < 0 || d > 2*time.Second {
								t.Errorf("%s: it ends %s before it should", what, d)
							}
							want := map[string]string{"read": "", "write": "", "chain": "", "whoami": ""}
							if readOnly {
								want["write"], want["chain"] = denied, denied
							}
							if strings.HasSuffix(chaining, "asked not to") || chaining == "as it is" && (minutes < 15 || lease > 0) {
								want["chain"] = denied
							}
							if network == "elsewhere" {
								want["read"], want["write"], want["chain"] = denied, denied, denied
							}
							check := func(when string) {
								t.Helper()
								if d := cmp.Diff(want, e.use(o.Credentials)); d != "" {
									t.Errorf("%s: %s (-want +got):\n%s", what, when, d)
								}
							}
							check("at its beginning")
							time.Sleep(o.Session.EndsAt.Sub(e.clock.now()) - time.Second)
							check("a second before its end")
							time.Sleep(time.Second)
							want["read"], want["write"], want["chain"] = denied, denied, denied
							if !e.clock.now().Before(o.Credentials.Expiration) {
								want = map[string]string{"read": expired, "write": expired, "chain": expired, "whoami": expired}
							}
							check("at its end")
							if minutes < 15 {
								time.Sleep(30 * time.Second)
								check("after its end")
							}
						}
					}
				}
			}
			if n != 48 {
				t.Errorf("%d combinations, want 48", n)
			}
		}, func(s *Settings) { s.Lease = lease })
	}
}

// Every error of STS: what the person sees, how often AWS is asked within ten
// seconds, and what the audit row says. All of it is in the golden file. R-34
func TestEveryErrorOfSTS(t *testing.T) {
	secret := "eyJhbGciOi" + canary + ".eyJzdWIi" + canary + ".c2ln" + canary // another token than the one that was sent
	type row struct {
		name    string
		fault   awstest.Fault
		minutes int
	}
	refuse := func(status int, code, message string) awstest.Fault {
		return awstest.Fault{Status: status, Code: code, Message: message}
	}
	rows := []row{
		{"IDPCommunicationError", refuse(400, "IDPCommunicationError", "An error occurred when communicating with the identity provider"), 60},
		{"InvalidIdentityToken, keys not fetched", refuse(400, "InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider"), 60},
		{"InvalidIdentityToken, provider unknown", refuse(400, "InvalidIdentityToken", "No OpenIDConnect provider found in your account for "+issuer), 60},
		{"InvalidIdentityToken, audience", refuse(400, "InvalidIdentityToken", "Incorrect token audience"), 60},
		{"InvalidIdentityToken, other", refuse(400, "InvalidIdentityToken", "The token '"+secret+"' is not taken"), 60},
		{"ExpiredTokenException", refuse(400, "ExpiredTokenException", "Token expired"), 60},
		{"IDPRejectedClaim", refuse(403, "IDPRejectedClaim", "Rejected"), 60},
		{"RegionDisabledException", refuse(403, "RegionDisabledException", "STS is not activated in this region"), 60},
		{"PackedPolicyTooLarge", refuse(400, "PackedPolicyTooLarge", "Packed size of session tags and policies consumes 104% of allotted space"), 60},
		{"MalformedPolicyDocument", refuse(400, "MalformedPolicyDocument", "Syntax errors in policy."), 60},
		{"AccessDenied, trust", refuse(403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"), 60},
		{"AccessDenied, sts:TagSession", refuse(403, "AccessDenied", "Not authorized to perform sts:TagSession"), 60},
		{"AccessDenied, sts:SetSourceIdentity", refuse(403, "AccessDenied", "Not authorized to perform sts:SetSourceIdentity"), 60},
		{"ValidationError, too long for the role, once", awstest.Fault{Status: 400, Code: "ValidationError", Message: "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.", Times: 1}, 240},
		{"ValidationError, too long for the role, always", refuse(400, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."), 240},
		{"ValidationError, other", refuse(400, "ValidationError", "1 validation error detected: Value '"+secret+"' at 'webIdentityToken'"), 60},
		{"Throttling", refuse(400, "Throttling", "Rate exceeded"), 60},
		{"TooManyRequestsException", refuse(429, "TooManyRequestsException", "Rate exceeded"), 60},
		{"RequestLimitExceeded", refuse(400, "RequestLimitExceeded", "Rate exceeded"), 60},
		{"bare 429", awstest.Fault{Status: 429}, 60},
		{"Throttling, once", awstest.Fault{Status: 400, Code: "Throttling", Message: "Rate exceeded", Times: 1}, 60},
		{"500", refuse(500, "InternalFailure", strings.Repeat("Oh no. ", 200)), 60},
		{"502 with a page", awstest.Fault{Status: 502, Body: "<html>" + secret, ContentType: "text/html"}, 60},
		{"503", refuse(503, "ServiceUnavailable", "Later"), 60},
		{"503, twice", awstest.Fault{Status: 503, Times: 2}, 60},
		{"504", awstest.Fault{Status: 504}, 60},
		{"reset", awstest.Fault{Reset: true}, 60},
		{"reset, but it happened", awstest.Fault{Reset: true, Happened: true}, 60},
		{"reset once, but it happened", awstest.Fault{Reset: true, Happened: true, Times: 1}, 60},
		{"no answer", awstest.Fault{Hang: true}, 60},
		{"an empty 200", awstest.Fault{Status: 200}, 60},
		{"a page of a captive portal", awstest.Fault{Body: "<html>" + secret, ContentType: "text/html"}, 60},
		{"RequestExpired", refuse(400, "RequestExpired", "Request has expired"), 60},
		{"SignatureDoesNotMatch", refuse(403, "SignatureDoesNotMatch", "no"), 60},
		{"an unknown code", refuse(409, "TeapotException", "Short and stout"), 60},
	}
	var table strings.Builder
	atAWS(t, func(t *testing.T, e *estate) {
		for _, r := range rows {
			e.signInAna()
			request := e.ask(e.ana, roleARN(prod, "reader"), r.minutes)
			e.cloud.ResetCalls()
			remove := e.cloud.Inject(r.fault)
			before, began := e.head(), time.Now()
			o, err := e.tryOpen(e.ana, opening(request.ID))
			remove()
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%s took %s, want at most 10 s", r.name, took)
			}
			synctest.Wait()
			events := e.events(before)
			last := events[len(events)-1]
			fmt.Fprintf(&table, "%s\n\tasked: %d times\n", r.name, e.cloud.CountCalls("AssumeRoleWithWebIdentity"))
			if err == nil {
				fmt.Fprintf(&table, "\tsees:  a session of %d seconds. %s\n", o.Session.Seconds, o.Note)
			} else {
				wantNothing(t, o)
				sees := "something went wrong on our side"
				if r, ok := errors.AsType[*serval.Refusal](err); ok {
					sees = r.Reason
				}
				fmt.Fprintf(&table, "\tsees:  %s: %s\n", strings.SplitN(kindOf(err), ":", 2)[0], sees)
				if s := e.sessions(request.ID)[0]; s.State != serval.SessionFailed || !e.request(request.ID).ClockStartedAt.IsZero() {
					t.Errorf("%s: session %+v, want it failed, and the clock standing", r.name, s)
				}
				if last.Detail["sts_code"] == "" || last.Reason == "" {
					t.Errorf("%s: the row has no code or no reason: %+v", r.name, last)
				}
			}
			fmt.Fprintf(&table, "\trow:   %s %s\n", last.Action, last.Outcome)
			for _, name := range slices.Sorted(maps.Keys(last.Detail)) {
				if value := last.Detail[name]; strings.HasPrefix(name, "sts_") && name != "sts_request_id" {
					fmt.Fprintf(&table, "\t       %s: %s\n", name, value)
				} else if len(value) > 600 {
					t.Errorf("%s: %s has %d bytes", r.name, name, len(value))
				}
			}
			if err == nil && strings.HasPrefix(r.name, "ValidationError") {
				fmt.Fprintf(&table, "\t       clamped: %s\n", last.Detail["clamped"])
				// S-73: what was learned is kept, and the next session is not tried too long.
				calls := e.cloud.CountCalls("AssumeRoleWithWebIdentity")
				e.open(e.ana, request.ID)
				if n := e.cloud.CountCalls("AssumeRoleWithWebIdentity") - calls; n != 1 {
					t.Errorf("the next session took %d calls, want 1", n)
				}
				e.push(prod, e.role("reader"), e.role("chain"))
			}
		}
		e.wantNoCanary()
		if strings.Contains(fmt.Sprint(e.events(0)), canary) {
			t.Error("a token that AWS repeated is in the audit log")
		}
	})
	name := filepath.Join("testdata", "sts_errors.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), table.String()); d != "" {
		t.Errorf("errors of STS (-want +got):\n%s", d)
	}
}
