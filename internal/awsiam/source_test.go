package awsiam_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// bareEnvironment is one in which the SDK finds nothing.
func bareEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ROLE_ARN",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_SESSION_NAME", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_EC2_METADATA_DISABLED", "AWS_CA_BUNDLE",
	} {
		t.Setenv(name, "")
	}
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// serve answers on loopback.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// Every mechanism that credentials can come by: the adapter's seeds, product.md section 2.
func TestCredentialSources(t *testing.T) {
	const token = "the-token-of-the-service-account"
	hop := allow("sts:AssumeRole", "sts:TagSession")
	asJSON := func(k awstest.Keys) string {
		return fmt.Sprintf(`{"Code":"Success","Type":"AWS-HMAC","LastUpdated":"2026-01-01T00:00:00Z","AccessKeyId":%q,"SecretAccessKey":%q,"Token":%q,"SessionToken":%q,"Expiration":%q}`,
			k.AccessKeyID, k.SecretAccessKey, k.SessionToken, k.SessionToken, k.Expiration.UTC().Format(time.RFC3339))
	}
	env := func(t *testing.T, k awstest.Keys) {
		t.Setenv("AWS_ACCESS_KEY_ID", k.AccessKeyID)
		t.Setenv("AWS_SECRET_ACCESS_KEY", k.SecretAccessKey)
		t.Setenv("AWS_SESSION_TOKEN", k.SessionToken)
	}
	for _, tt := range []struct {
		name   string
		set    func(t *testing.T, e *estate, c *awsiam.Config, user, session awstest.Keys)
		source string
		who    string // in the ARN
		passed int
		static bool
	}{
		{"static keys", func(_ *testing.T, _ *estate, c *awsiam.Config, user, _ awstest.Keys) {
			c.Credentials = credentials.NewStaticCredentialsProvider(user.AccessKeyID, user.SecretAccessKey, "")
		}, "the program's own setting", "user/adapter", 0, true},
		{"static keys with a session token", func(_ *testing.T, _ *estate, c *awsiam.Config, _, session awstest.Keys) {
			c.Credentials = credentials.NewStaticCredentialsProvider(session.AccessKeyID, session.SecretAccessKey, session.SessionToken)
		}, "the program's own setting", "assumed-role/worker/", 0, false},
		{"environment", func(t *testing.T, _ *estate, _ *awsiam.Config, user, _ awstest.Keys) { env(t, user) },
			"environment variables", "user/adapter", 0, true},
		{"environment with a session token", func(t *testing.T, _ *estate, _ *awsiam.Config, _, session awstest.Keys) { env(t, session) },
			"environment variables", "assumed-role/worker/", 0, false},
		{"web identity file", func(t *testing.T, e *estate, c *awsiam.Config, _, session awstest.Keys) {
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file(t, "token", token))
			t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::"+hub+":role/worker")
			c.STSEndpoint = serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.PostFormValue("Action") == "GetCallerIdentity" {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				if r.PostFormValue("WebIdentityToken") != token || r.PostFormValue("RoleArn") != "arn:aws:iam::"+hub+":role/worker" {
					t.Errorf("asked with %v", r.PostForm)
				}
				fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>`+
					`<AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration>`+
					`</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
					session.AccessKeyID, session.SecretAccessKey, session.SessionToken, session.Expiration.UTC().Format(time.RFC3339))
			})
		}, "web identity (IRSA)", "assumed-role/worker/", 1, false},
		{"shared profile", func(t *testing.T, _ *estate, _ *awsiam.Config, user, _ awstest.Keys) {
			t.Setenv("AWS_PROFILE", "ops")
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file(t, "credentials",
				"[ops]\naws_access_key_id = "+user.AccessKeyID+"\naws_secret_access_key = "+user.SecretAccessKey+"\n"))
		}, "profile ops", "user/adapter", 2, true},
		{"profile that assumes a role", func(t *testing.T, _ *estate, _ *awsiam.Config, user, _ awstest.Keys) {
			t.Setenv("AWS_PROFILE", "ops")
			t.Setenv("AWS_CONFIG_FILE", file(t, "config", "[profile ops]\nregion = eu-west-1\nrole_arn = arn:aws:iam::"+hub+":role/base\nsource_profile = keys\nexternal_id = base-id\n"))
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file(t, "credentials",
				"[keys]\naws_access_key_id = "+user.AccessKeyID+"\naws_secret_access_key = "+user.SecretAccessKey+"\n"))
		}, "profile ops", "assumed-role/base/", 2, false},
		{"container credentials", func(t *testing.T, e *estate, _ *awsiam.Config, _, _ awstest.Keys) {
			now := token
			tokens := file(t, "token", now)
			var asked atomic.Int64
			t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", tokens)
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", serve(t, func(w http.ResponseWriter, r *http.Request) {
				// Pod Identity's agent. The kubelet rotates the file; only the newest token is good.
				if want := now; r.Header.Get("Authorization") != want {
					t.Errorf("fetch %d came with the token %q, want %q", asked.Load(), r.Header.Get("Authorization"), want)
				}
				k := e.Account(hub).PodIdentity("worker", time.Now())
				if asked.Add(1) == 1 {
					k.Expiration = time.Now() // must be fetched again for the next call
				}
				now = fmt.Sprintf("%s-%d", token, asked.Load())
				if err := os.WriteFile(tokens, []byte(now), 0o600); err != nil {
					t.Error(err)
				}
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, asJSON(k))
			})+"/v1/credentials")
		}, "container credentials", "assumed-role/worker/", 4, false},
		{"instance metadata", func(t *testing.T, _ *estate, _ *awsiam.Config, _, session awstest.Keys) {
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", serve(t, func(w http.ResponseWriter, r *http.Request) {
				const of = "the-token-of-the-metadata"
				switch {
				case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
					w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
					fmt.Fprint(w, of)
				case r.Header.Get("X-Aws-Ec2-Metadata-Token") != of: // version 2 only
					w.WriteHeader(http.StatusUnauthorized)
				case r.URL.Path == "/latest/meta-data/iam/security-credentials/":
					fmt.Fprint(w, "worker")
				case r.URL.Path == "/latest/meta-data/iam/security-credentials/worker":
					fmt.Fprint(w, asJSON(session))
				default:
					w.WriteHeader(http.StatusNotFound)
				}
			}))
		}, "instance metadata", "assumed-role/worker/", 5, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bareEnvironment(t)
			e := newEstate(t)
			_, a := e.connect(spoke)
			var strays atomic.Int64 // S-82, S-105: neither tokens nor signed calls go where the environment points
			t.Setenv("AWS_ENDPOINT_URL_STS", serve(t, func(http.ResponseWriter, *http.Request) { strays.Add(1) }))
			e.Account(hub).PutRole(awstest.Role{Name: "base", Trust: trust(hub, "base-id", "sts:AssumeRole", "sts:TagSession"), Inline: map[string]string{"hop": hop}})
			user := e.Account(hub).PutUser("adapter", hop)
			session := e.Account(hub).Session("worker", "pod", time.Hour)
			e.config.Credentials = nil
			a.STS.Endpoint = e.config.STSEndpoint // also where the case has an STS of its own for web identities
			tt.set(t, e, &e.config, user, session)
			r := e.reader(t)
			inv, err := r.Inventory(t.Context(), a, nil, "", nil)
			if err != nil || !inv.Complete {
				t.Fatalf("complete %v: %v", inv.Complete, err)
			}
			if n := strays.Load(); n != 0 {
				t.Errorf("%d calls went to the endpoint that the environment names, want none", n)
			}
			if tt.name == "web identity file" {
				if x, err := r.Explain(t.Context(), serval.Account{}); x.Source != tt.source || err == nil {
					t.Errorf("%v, %+v; want %s, and its STS not to answer who we are", err, x, tt.source)
				}
				return // GetCallerIdentity would go to that STS
			}
			x, err := r.Explain(t.Context(), serval.Account{})
			if err != nil || x.Source != tt.source || !strings.Contains(x.ARN, tt.who) || x.AccountID != hub || len(x.Passed) != tt.passed || x.Temporary == tt.static {
				t.Errorf("%v, %+v; want %s, %s, %d passed, static %v", err, x, tt.source, tt.who, tt.passed, tt.static)
			}
			text := x.String() + string(mustJSON(t, x)) + fmt.Sprintf("%+v", x)
			for _, secret := range []string{user.SecretAccessKey, session.SecretAccessKey, session.SessionToken, token, user.AccessKeyID, session.AccessKeyID} {
				if strings.Contains(text, secret) {
					t.Errorf("a secret is in the explanation: %s", text)
				}
			}
		})
	}
}

// Base role, role per account, and chains of two and three, each role with its External ID and none of the next.
func TestChains(t *testing.T) {
	hop := map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")}
	for hops := range 3 {
		for _, base := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d hops, base role %v", hops, base), func(t *testing.T) {
				inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
					e.KeepParams(true)
					var want []string
					by := hub
					if base {
						e.Account(hub).PutRole(awstest.Role{Name: "base", Trust: trustOf(hub, "sts:AssumeRole", "sts:TagSession"), Inline: hop})
						e.config.BaseRoleARN = "arn:aws:iam::" + hub + ":role/base"
						want = append(want, e.config.BaseRoleARN+" ")
					}
					for i := range hops {
						id := fmt.Sprintf("77770000000%d", i)
						externalID := fmt.Sprintf("id-of-hop-%d", i)
						e.AddAccount(id, id).PutRole(awstest.Role{Name: "hop", Trust: trust(by, externalID, "sts:AssumeRole", "sts:TagSession"), Inline: hop})
						a.Via = append(a.Via, serval.Hop{RoleARN: "arn:aws:iam::" + id + ":role/hop", ExternalID: externalID})
						want = append(want, a.Via[i].RoleARN+" "+externalID)
						by = id
					}
					owner.SetTrust("serval-ingest", trust(by, external, "sts:AssumeRole", "sts:TagSession"))
					want = append(want, a.RoleARN+" "+external)
					if err := e.reader(t).Connect(t.Context(), a); err != nil {
						t.Fatal(err)
					}
					var got []string
					for _, c := range e.Calls() {
						if c.Action == "AssumeRole" {
							got = append(got, c.Params.Get("RoleArn")+" "+c.Params.Get("ExternalId"))
						}
					}
					if strings.Join(got, "\n") != strings.Join(want, "\n") {
						t.Errorf("assumed %q, want %q", got, want)
					}
				})
			})
		}
	}
}

// What comes before is said, and what to do where nothing comes: the hop limit, for one.
func TestNoCredentials(t *testing.T) {
	bareEnvironment(t)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true") // as a hop limit of one seems from within a container
	e := newEstate(t)
	_, a := e.connect(spoke)
	e.config.Credentials = nil
	r := e.reader(t)
	x, err := r.Explain(t.Context(), serval.Account{})
	if f := failureOf(t, err); f.Code != "NoCredentials" || !strings.Contains(f.Cause, "hop limit") || !strings.Contains(f.Cause, "--http-put-response-hop-limit 2") {
		t.Errorf("%v, want the hop limit explained", err)
	}
	golden(t, "explain-nothing", x.String())
	if f := failureOf(t, r.Connect(t.Context(), a)); f.Check != awsiam.StageCredentials {
		t.Errorf("%v, want a failure of the credentials", f)
	}

	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })+"/v1/credentials")
	if _, err := e.reader(t).Explain(t.Context(), serval.Account{}); !strings.Contains(fmt.Sprint(err), "The agent runs on the node") {
		t.Errorf("%v, want the agent named", err)
	}
}

// How an account is reached is said step by step, and without a secret.
func TestTheWayIsExplained(t *testing.T) {
	e := newEstate(t)
	_, a := e.connect(spoke)
	a.Via = []serval.Hop{{RoleARN: "arn:aws:iam::777788889999:role/hop", ExternalID: "id-of-the-hop"}, {RoleARN: "arn:aws:iam::777788889990:role/open"}}
	a.STS = serval.STS{Region: "eu-central-1", Endpoint: "https://sts.example.com", Dial: "10.0.0.1:443", HTTPProxy: "http://ana:password@proxy.example.com:3128/?token=password"}
	e.config.IAMEndpoint = "https://iam.example.com"
	x, err := e.reader(t).Explain(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "explain-way", strings.Join(x.Way, "\n"))
	for _, secret := range []string{external, "id-of-the-hop", "password"} {
		if strings.Contains(x.String(), secret) {
			t.Errorf("%q is in the explanation: %s", secret, x)
		}
	}
}

// Who does not speak TLS is told apart from who cannot be reached, and neither is asked for half a minute.
func TestWhatIsFinalFailsSoon(t *testing.T) {
	bareEnvironment(t)
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	refusing := httptest.NewUnstartedServer(nil)
	refusing.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("not you") }}
	refusing.Config.ErrorLog = log.New(io.Discard, "", 0)
	refusing.StartTLS()
	defer refusing.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	for _, tt := range []struct {
		name, address, code string
		most                int64 // connections, with those for who we are
	}{
		{"plain HTTP", strings.TrimPrefix(plain, "http://"), "NoTLS", 2},
		{"a refused handshake", refusing.Listener.Addr().String(), "NoTLS", 2},
		{"nobody there", nobody, "NoConnection", 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEstate(t)
			_, a := e.connect(spoke)
			var dialed atomic.Int64
			e.config.Dial = dials(&dialed, (&net.Dialer{}).DialContext)
			e.config.STSEndpoint = "https://" + tt.address
			f := failureOf(t, e.reader(t).Guard(t.Context(), a))
			if f.Code != tt.code || dialed.Load() > tt.most {
				t.Errorf("%s after %d connections: %v; want %s after %d at most", f.Code, dialed.Load(), f, tt.code, tt.most)
			}
		})
	}
}

// A certificate for another name, and one that nobody trusted has signed, are explained.
func TestCertificates(t *testing.T) {
	bareEnvironment(t)
	e := newEstate(t)
	_, a := e.connect(spoke)
	k, err := e.config.Credentials.Retrieve(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", k.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", k.SecretAccessKey)
	t.Setenv("AWS_SESSION_TOKEN", k.SessionToken)
	e.config.Credentials = nil
	var dialed atomic.Int64
	e.config.Dial = dials(&dialed, (&net.Dialer{}).DialContext)
	far := httptest.NewUnstartedServer(e)
	far.Config.ErrorLog = log.New(io.Discard, "", 0)
	far.StartTLS()
	defer far.Close()
	bundle := file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: far.Certificate().Raw})))
	a.STS.Dial = far.Listener.Addr().String() // a load balancer in front of example.com

	for _, tt := range []struct{ name, endpoint, bundle, want string }{
		{"good", "https://example.com", bundle, ""},
		{"other name", "https://sts.eu-central-1.amazonaws.com", bundle, "The connection leads to a server of another name."},
		{"unknown authority", "https://example.com", "", "Nobody who is trusted here has signed it."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("AWS_CA_BUNDLE", tt.bundle)
			a.STS.Endpoint = tt.endpoint
			before := dialed.Load()
			err := e.reader(t).Connect(t.Context(), a)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if f := failureOf(t, err); f.Code != "BadCertificate" || f.Check != awsiam.StageAssume || !strings.Contains(f.Cause, tt.want) {
				t.Errorf("%s: %v, want %q", f.Code, f, tt.want)
			}
			if n := dialed.Load() - before; n > 2 { // that call, and one for who we are
				t.Errorf("%d connections, want none tried again", n)
			}
		})
	}
}
