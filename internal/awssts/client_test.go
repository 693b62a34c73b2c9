package awssts_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A refusing wire answers every request with AWS's refusal, so that none
// leaves the machine and none is repeated.
type refusing struct{}

func (refusing) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: 403, Header: http.Header{}, Request: r,
		Body: io.NopCloser(strings.NewReader(`<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`)),
	}, nil
}

func mintIn(partition string) serval.Mint {
	return serval.Mint{
		Role:        serval.RoleKey{Partition: partition, AccountID: account, RoleID: "AROAX", ARN: "arn:" + partition + ":iam::" + account + ":role/x"},
		SessionName: session, Token: serval.NewSecret("eyJhbGciOiJSUzI1NiJ9.canary.canary"), Seconds: 900,
	}
}

func minted() serval.Minted {
	return serval.Minted{
		AccessKeyID: "ASIAX", SecretAccessKey: serval.NewSecret("canary-key"), SessionToken: serval.NewSecret("canary+token/="),
		Expiration: time.Now().Add(time.Hour),
	}
}

// S-81: each partition has its own hosts, and never the global one.
func TestHosts(t *testing.T) {
	for _, c := range []struct {
		region, partition string
		sts, signin       string // empty where there is none
	}{
		{"", "aws", "sts.us-west-1.amazonaws.com", "signin.aws.amazon.com"},
		{"", "aws-cn", "sts.cn-north-1.amazonaws.com.cn", "signin.amazonaws.cn"},
		{"", "aws-us-gov", "sts.us-gov-west-1.amazonaws.com", "signin.amazonaws-us-gov.com"},
		{"", "aws-iso", "", ""},
		{"", "aws-eusc", "", ""},
		{"us-east-1", "aws", "sts.us-east-1.amazonaws.com", "signin.aws.amazon.com"},
		{"eu-central-1", "aws", "sts.eu-central-1.amazonaws.com", "signin.aws.amazon.com"},
		{"eu-central-1", "aws-cn", "sts.cn-north-1.amazonaws.com.cn", "signin.amazonaws.cn"},
		{"eu-central-1", "aws-us-gov", "sts.us-gov-west-1.amazonaws.com", "signin.amazonaws-us-gov.com"},
		{"cn-northwest-1", "aws-cn", "sts.cn-northwest-1.amazonaws.com.cn", "signin.amazonaws.cn"},
		{"cn-northwest-1", "aws", "sts.us-west-1.amazonaws.com", "signin.aws.amazon.com"},
		{"us-gov-east-1", "aws-us-gov", "sts.us-gov-east-1.amazonaws.com", "signin.amazonaws-us-gov.com"},
		{"us-iso-east-1", "aws-iso", "sts.us-iso-east-1.c2s.ic.gov", ""},
		{"us-isob-east-1", "aws-iso-b", "sts.us-isob-east-1.sc2s.sgov.gov", ""},
		{"us-isob-east-1", "aws-iso", "", ""},
		{"eusc-de-east-1", "aws-eusc", "sts.eusc-de-east-1.amazonaws.eu", ""},
	} {
		seen := &wire{next: refusing{}}
		client := newClient(t, awssts.Config{Region: c.region, HTTPClient: &http.Client{Transport: seen}})
		asked := func(what, want string, err error) {
			t.Helper()
			if want == "" {
				if len(seen.requests) > 0 || !serval.IsRefusal(err, serval.FailedPrecondition) {
					t.Errorf("region %q, role in %s: %s was asked %d times, want a refusal: %v", c.region, c.partition, what, len(seen.requests), err)
				}
			} else if len(seen.requests) != 1 || seen.requests[0].URL.Host != want || seen.requests[0].URL.Scheme != "https" {
				t.Errorf("region %q, role in %s: %s went to %v, want one call of %s: %v", c.region, c.partition, what, seen.requests, want, err)
			}
			seen.requests = nil
		}
		_, err := client.Mint(context.Background(), mintIn(c.partition))
		asked("STS", c.sts, err)
		_, err = client.SignIn(context.Background(), c.partition, minted(), serval.ConsolePage{})
		asked("the sign-in service", c.signin, err)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		config awssts.Config
		want   string // in the refusal; empty where there is none
	}{
		{awssts.Config{}, ""},
		{awssts.Config{Region: "ap-southeast-2"}, ""},
		{awssts.Config{Region: "aws-global"}, `"aws-global" is not the name of an AWS region`},
		{awssts.Config{Region: "us-west-1.evil.example"}, "is not the name"},
		{awssts.Config{Region: "us-west-1@evil.example/"}, "is not the name"},
		{awssts.Config{Region: "fips-us-west-1"}, "is not the name"},
		{awssts.Config{Endpoint: "https://vpce-1.sts.us-west-1.vpce.amazonaws.com"}, ""},
		{awssts.Config{Endpoint: "http://127.0.0.1:4566"}, ""},
		{awssts.Config{Endpoint: "http://[::1]:4566"}, ""},
		{awssts.Config{Endpoint: "http://sts.us-west-1.amazonaws.com"}, "STS endpoint: must be https"},
		{awssts.Config{Endpoint: "http://10.0.0.1"}, "STS endpoint: must be https"},
		{awssts.Config{Endpoint: "sts.us-west-1.amazonaws.com"}, "STS endpoint: not a URL"},
		{awssts.Config{Endpoint: "https://a:b@sts.example"}, "STS endpoint: not a URL"},
		{awssts.Config{Endpoint: "https://sts.example/?x=y"}, "neither a query nor a fragment"},
		{awssts.Config{SigninEndpoint: "http://signin.aws.amazon.com/federation"}, "Sign-in endpoint: must be https"},
		{awssts.Config{SigninEndpoint: "https://signin.aws.amazon.com/federation?Action=login"}, "neither a query nor a fragment"},
	} {
		_, err := awssts.New(c.config)
		if c.want == "" && err != nil || c.want != "" && (!serval.IsRefusal(err, serval.Invalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: error %v, want %q", c.config, err, c.want)
		}
	}
}

// S-82 and S-83: whatever the environment says, the token goes to AWS, over
// https, unsigned, and nobody is asked for credentials.
func TestTheEnvironmentIsIgnored(t *testing.T) {
	var bytes atomic.Int64
	decoy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		bytes.Add(1)
	}))
	defer decoy.Close()
	home := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(home, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	token := file("token", "decoy-token")
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL":                       decoy.URL,
		"AWS_ENDPOINT_URL_STS":                   decoy.URL,
		"AWS_ACCESS_KEY_ID":                      "AKIADECOY",
		"AWS_SECRET_ACCESS_KEY":                  "decoy",
		"AWS_SESSION_TOKEN":                      "decoy",
		"AWS_PROFILE":                            "decoy",
		"AWS_DEFAULT_PROFILE":                    "decoy",
		"AWS_REGION":                             "eu-west-3",
		"AWS_DEFAULT_REGION":                     "eu-west-3",
		"AWS_STS_REGIONAL_ENDPOINTS":             "legacy",
		"AWS_USE_FIPS_ENDPOINT":                  "true",
		"AWS_USE_DUALSTACK_ENDPOINT":             "true",
		"AWS_CONFIG_FILE":                        file("config", "[profile decoy]\nregion = eu-west-3\nendpoint_url = "+decoy.URL+"\n"),
		"AWS_SHARED_CREDENTIALS_FILE":            file("credentials", "[decoy]\naws_access_key_id = AKIADECOY\naws_secret_access_key = decoy\n"),
		"AWS_WEB_IDENTITY_TOKEN_FILE":            token,
		"AWS_ROLE_ARN":                           "arn:aws:iam::444455556666:role/decoy",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI":     decoy.URL,
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token,
		"AWS_EC2_METADATA_SERVICE_ENDPOINT":      decoy.URL,
		"HTTP_PROXY":                             decoy.URL,
		"HTTPS_PROXY":                            decoy.URL,
		"ALL_PROXY":                              decoy.URL,
		"HOME":                                   home,
	} {
		t.Setenv(name, value)
	}
	seen := &wire{next: refusing{}}
	client := newClient(t, awssts.Config{HTTPClient: &http.Client{Transport: seen}})
	_, err := client.Mint(context.Background(), mintIn("aws"))
	if failed, ok := errors.AsType[*awssts.Error](err); !ok || failed.Code != "AccessDenied" {
		t.Fatalf("error %v, want AccessDenied", err)
	}
	if _, err := client.SignIn(context.Background(), "aws", minted(), serval.ConsolePage{}); err == nil {
		t.Fatal("no error of the sign-in service")
	}
	for i, want := range []string{"https://sts.us-west-1.amazonaws.com/", "https://signin.aws.amazon.com/federation"} {
		r := seen.requests[i]
		if r.URL.String() != want {
			t.Errorf("call %d went to %s, want %s", i, r.URL, want)
		}
		for _, name := range []string{"Authorization", "X-Amz-Security-Token", "X-Amz-Date"} {
			if v := r.Header.Get(name); v != "" {
				t.Errorf("call %d carries %s %q, want none", i, name, v)
			}
		}
	}

	// And so it is with the client's own transport.
	aws := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("signed: %s", r.Header.Get("Authorization"))
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer aws.Close()
	client = newClient(t, awssts.Config{Endpoint: aws.URL, SigninEndpoint: aws.URL})
	_, err = client.Mint(context.Background(), mintIn("aws"))
	if failed, ok := errors.AsType[*awssts.Error](err); !ok || failed.Status != http.StatusForbidden {
		t.Errorf("error %v, want the 403 of the endpoint that is set", err)
	}
	if n := bytes.Load(); n != 0 {
		t.Errorf("the decoy was called %d times", n)
	}
}

// A redirect would carry the token to whatever host it names.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var calls atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		aws := httptest.NewServer(http.RedirectHandler(elsewhere.URL, status))
		for _, given := range []*http.Client{nil, {}} {
			client := newClient(t, awssts.Config{Endpoint: aws.URL, SigninEndpoint: aws.URL, HTTPClient: given})
			_, err := client.Mint(context.Background(), mintIn("aws"))
			if failed, ok := errors.AsType[*awssts.Error](err); !ok || failed.Code != awssts.BadAnswer || failed.Status != status {
				t.Errorf("minting meets %d: %v, want %s", status, err, awssts.BadAnswer)
			}
			_, err = client.SignIn(context.Background(), "aws", minted(), serval.ConsolePage{})
			if failed, ok := errors.AsType[*awssts.Error](err); !ok || failed.Code != awssts.BadAnswer || failed.Status != status {
				t.Errorf("signing in meets %d: %v, want %s", status, err, awssts.BadAnswer)
			}
		}
		aws.Close()
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// An endless is a server whose answer does not end.
type endless struct{ read atomic.Int64 }

func (e *endless) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 400, Header: http.Header{}, Request: r, Body: io.NopCloser(e)}, nil
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, strings.Repeat("<a>", len(p)/3+1))
	if e.read.Add(int64(n)) > 16<<20 {
		return 0, errors.New("enough")
	}
	return n, nil
}

func TestAnEndlessAnswerIsCut(t *testing.T) {
	server := &endless{}
	client := newClient(t, awssts.Config{HTTPClient: &http.Client{Transport: server}})
	if _, err := client.Mint(context.Background(), mintIn("aws")); err == nil {
		t.Error("no error for an answer that does not end")
	}
	if _, err := client.SignIn(context.Background(), "aws", minted(), serval.ConsolePage{}); err == nil {
		t.Error("no error for a sign-in answer that does not end")
	}
	if n := server.read.Load(); n > 3<<20 {
		t.Errorf("%d bytes were read, want about 1 MiB of each answer", n)
	}
}
