package awssts_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Every error that AssumeRoleWithWebIdentity may answer with: how often the call
// is made, and what the person reads. The sentences are in the golden file.
func TestErrors(t *testing.T) {
	const noKey = "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements"
	var golden strings.Builder
	for _, c := range []struct {
		name    string
		fault   awstest.Fault
		seconds int
		tries   int
	}{
		{"provider unreachable", awstest.Fault{Status: 400, Code: "IDPCommunicationError", Message: "An error occurred"}, 0, 3},
		{"keys not fetched", awstest.Fault{Status: 400, Code: "InvalidIdentityToken", Message: noKey}, 0, 2},
		{"provider unknown", awstest.Fault{Status: 400, Code: "InvalidIdentityToken", Message: "No OpenIDConnect provider found in your account for " + issuer}, 0, 1},
		{"audience unknown", awstest.Fault{Status: 400, Code: "InvalidIdentityToken", Message: "Incorrect token audience"}, 0, 1},
		{"token not taken", awstest.Fault{Status: 400, Code: "InvalidIdentityToken", Message: "The ID Token's signature could not be verified"}, 0, 1},
		{"token expired", awstest.Fault{Status: 400, Code: "ExpiredTokenException", Message: "Token expired: current date/time 2 must be before the expiration date/time 1"}, 0, 1},
		{"claim rejected", awstest.Fault{Status: 403, Code: "IDPRejectedClaim", Message: "Rejected"}, 0, 1},
		{"region disabled", awstest.Fault{Status: 403, Code: "RegionDisabledException", Message: "STS is not activated in this region"}, 0, 1},
		{"packed policy too large", awstest.Fault{Status: 400, Code: "PackedPolicyTooLarge", Message: "Packed size of session tags and policies consumes 104% of allotted space"}, 0, 1},
		{"policy malformed", awstest.Fault{Status: 400, Code: "MalformedPolicyDocument", Message: "Syntax errors in policy."}, 0, 1},
		{"denied: trust", awstest.Fault{Status: 403, Code: "AccessDenied", Message: "Not authorized to perform sts:AssumeRoleWithWebIdentity"}, 0, 1},
		{"denied: tags", awstest.Fault{Status: 403, Code: "AccessDenied", Message: "Not authorized to perform sts:TagSession"}, 0, 1},
		{"denied: source identity", awstest.Fault{Status: 403, Code: "AccessDenied", Message: "Not authorized to perform sts:SetSourceIdentity"}, 0, 1},
		{"too long for the role", awstest.Fault{Status: 400, Code: "ValidationError", Message: "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."}, 7200, 1},
		{"too long, in fewer words", awstest.Fault{Status: 400, Code: "ValidationError", Message: "DurationSeconds is too large"}, 7200, 1},
		{"too long, in other words", awstest.Fault{Status: 400, Code: "ValidationError", Message: "This exceeds MaxSessionDuration"}, 7200, 1},
		{"an hour too long for the role", awstest.Fault{Status: 400, Code: "ValidationError", Message: "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."}, 3600, 1},
		{"malformed", awstest.Fault{Status: 400, Code: "ValidationError", Message: "1 validation error detected: Value 'x' at 'policy' failed to satisfy constraint"}, 0, 1},
		{"clock", awstest.Fault{Status: 400, Code: "RequestExpired", Message: "Request has expired"}, 0, 1},
		{"throttled", awstest.Fault{Status: 400, Code: "Throttling", Message: "Rate exceeded"}, 0, 3},
		{"too many requests", awstest.Fault{Status: 429, Code: "TooManyRequestsException", Message: "Rate exceeded"}, 0, 3},
		{"limit exceeded", awstest.Fault{Status: 400, Code: "RequestLimitExceeded", Message: "Rate exceeded"}, 0, 3},
		{"429 with an unknown code", awstest.Fault{Status: 429, Code: "Hurry", Message: "slowly"}, 0, 3},
		{"bare 429", awstest.Fault{Status: 429}, 0, 3},
		{"500", awstest.Fault{Status: 500, Code: "InternalFailure", Message: "Oh no"}, 0, 3},
		{"bare 500", awstest.Fault{Status: 500}, 0, 3},
		{"502 of a load balancer", awstest.Fault{Status: 502, Body: "<html><h1>502 Bad Gateway", ContentType: "text/html"}, 0, 3},
		{"503", awstest.Fault{Status: 503, Code: "ServiceUnavailable", Message: "Later"}, 0, 3},
		{"504", awstest.Fault{Status: 504}, 0, 3},
		{"reset", awstest.Fault{Reset: true}, 0, 3},
		{"reset, and happened", awstest.Fault{Reset: true, Happened: true}, 0, 3},
		{"empty 200", awstest.Fault{Status: 200}, 0, 1},
		{"unheard of", awstest.Fault{Status: 409, Code: "TeapotException", Message: "Short and stout"}, 0, 1},
	} {
		inBubble(t, func(t *testing.T, e *estate) {
			e.cloud.Inject(c.fault)
			m := e.mint()
			if c.seconds > 0 {
				m.Seconds = c.seconds
			}
			_, err := e.client.Mint(context.Background(), m)
			failed, ok := errors.AsType[*awssts.Error](err)
			if !ok {
				t.Fatalf("%s: error %v, want ours", c.name, err)
			}
			if n := e.cloud.CountCalls(""); n != c.tries || failed.Retried != c.tries-1 {
				t.Errorf("%s: %d calls and %d said to be repeated, want %d calls", c.name, n, failed.Retried, c.tries)
			}
			if refused := serval.IsRefusal(err); refused != (failed.Kind != "") {
				t.Errorf("%s: a refusal: %t, with kind %q", c.name, refused, failed.Kind)
			}
			fmt.Fprintf(&golden, "%s: %s, %d, %s\n", c.name, failed.Code, failed.Status, kind(failed))
			fmt.Fprintf(&golden, "\t%s\n", failed.Sentence)
		})
	}
	name := filepath.Join("testdata", "errors.golden")
	if *update {
		if err := os.WriteFile(name, []byte(golden.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), golden.String()); diff != "" {
		t.Errorf("sentences (-want +got):\n%s", diff)
	}
}

func kind(e *awssts.Error) string {
	words := []string{string(e.Kind)}
	if e.Kind == "" {
		words[0] = "a fault of ours"
	}
	if e.Clamp {
		words = append(words, "clamp")
	}
	if e.Reauth {
		words = append(words, "sign in again")
	}
	return strings.Join(words, ", ")
}

func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		e    awssts.Error
		want string
	}{
		{awssts.Error{Operation: "getSigninToken", Code: awssts.NoAnswer}, "getSigninToken: NoAnswer"},
		{awssts.Error{Operation: "AssumeRoleWithWebIdentity", Code: "Throttling", Status: 400, RequestID: "4f-1", Retried: 2, Message: "Rate exceeded"},
			"AssumeRoleWithWebIdentity: Throttling, HTTP status 400, request 4f-1, tried 3 times: Rate exceeded"},
	} {
		if got := c.e.Error(); got != c.want {
			t.Errorf("error %q, want %q", got, c.want)
		}
	}
}

// S-5: of the token just sent no part stays, also one that looks like none; and
// what is kept of AWS's words has a bound.
func TestErrorsHoldNoPartOfTheToken(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate) {
		parts := strings.Split(e.mint().Token.Reveal(), ".")
		for _, part := range parts {
			e.cloud.Inject(awstest.Fault{Status: 400, Code: "InvalidIdentityToken", Message: "The part <" + part + "> is not taken", Times: 1})
			_, err := e.client.Mint(context.Background(), e.mint())
			if failed, ok := errors.AsType[*awssts.Error](err); !ok || failed.Message != "The part <[redacted]> is not taken" {
				t.Errorf("error %v, want one without the part of %d characters", err, len(part))
			}
		}
		e.cloud.Inject(awstest.Fault{Status: 400, Code: "InvalidIdentityToken", Message: strings.Repeat("many words ", 100), Times: 1})
		_, err := e.client.Mint(context.Background(), e.mint())
		if failed, ok := errors.AsType[*awssts.Error](err); !ok || len(failed.Message) > 500+len("…") || !strings.HasSuffix(failed.Message, "…") {
			t.Errorf("error %v, want its words cut", err)
		}
	})
}

// S-5: AWS's words may repeat a token that is not the one just sent, or a piece
// of one.
func TestErrorsHoldNoToken(t *testing.T) {
	const head, body, signature = "eyJhbGciOiJSUzI1NiJ9", "eyJzdWIiOiJhbm90aGVyIn0", "c2lnbmF0dXJl"
	for name, token := range map[string]string{
		"whole": head + "." + body + "." + signature, "without its signature": head + "." + body + ".", "its first part": head, "cut off": head + "." + body[:10],
	} {
		inBubble(t, func(t *testing.T, e *estate) {
			e.cloud.Inject(awstest.Fault{Status: 400, Code: "InvalidIdentityToken", Message: "The token '" + token + "' is not taken"})
			_, err := e.client.Mint(context.Background(), e.mint())
			failed, ok := errors.AsType[*awssts.Error](err)
			if !ok {
				t.Fatalf("%s: error %v, want ours", name, err)
			}
			if want := "The token '[redacted]' is not taken"; failed.Message != want || strings.Contains(failed.Sentence+err.Error(), "eyJ") {
				t.Errorf("%s: the message is %q and the error %v, want %q and no token", name, failed.Message, err, want)
			}
		})
	}
}
