package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A situation is one thing that serval-worker check may find.
type situation struct {
	title        string
	text         string // the first line of what is printed, to the letter
	organization bool
	mess         func(*stage)
}

// A stage is a cloud as a situation finds it, and how check is called.
type stage struct {
	cloud      *awstest.Cloud
	now        atomic.Int64 // how far AWS's clock is ahead, in nanoseconds
	env        map[string]string
	untrusted  string
	captive    string
	role       string
	externalID string
}

// TestCheckTranscript has serval-worker check find each of its outcomes and each cause that it knows, and holds what
// is printed against docs/checks.md, where whoever runs the product can look it up. UPDATE_GOLDEN=1 renews it.
func TestCheckTranscript(t *testing.T) {
	t.Parallel()
	trust := func(statements string) func(*stage) {
		return func(s *stage) {
			s.cloud.Account(member).SetTrust("serval-ingestion", `{"Version":"2012-10-17","Statement":[`+statements+`]}`)
		}
	}
	allowed := func(account, actions, condition string) string {
		return fmt.Sprintf(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:root"},"Action":[%s]%s}`, account, actions, condition)
	}
	const both, ours = `"sts:AssumeRole","sts:TagSession"`, `,"Condition":{"StringEquals":{"sts:ExternalId":"` + external + `"}}`
	answers := func(action, code string, status int, message string) func(*stage) {
		return func(s *stage) {
			s.cloud.Inject(awstest.Fault{Action: action, Status: status, Code: code, Message: message})
		}
	}
	mayOnly := func(actions ...string) func(*stage) {
		return func(s *stage) { s.cloud.Account(member).SetInline("serval-ingestion", "read", allow(actions...)) }
	}
	but := func(denied ...string) func(*stage) {
		return mayOnly(slices.DeleteFunc(serval.IngestionActions(), func(a string) bool { return slices.Contains(denied, a) })...)
	}
	worker := func(actions ...string) func(*stage) {
		return func(s *stage) { s.cloud.Account(hub).SetInline("worker", "hop", allow(actions...)) }
	}
	managedBy := func(id string) func(*stage) {
		return func(s *stage) {
			mayOnly("organizations:ListAccounts")(s)
			s.cloud.SetManagementAccount(id)
		}
	}
	const listed = "Unable to access AWS Organizations. Ensure the IAM role has organizations:ListAccounts permission."
	situations := []situation{
		{"All is well", serval.TextConnected, false, func(*stage) {}},
		{"Some of the seven actions are denied", serval.TextConnected, false, but("iam:GetRolePolicy", "iam:GetPolicyVersion")},
		{"Actions are granted that nobody needs", serval.TextConnected, false, mayOnly("iam:*", "rds:Describe*", "eks:ListClusters")},
		{"`iam:ListRoles` is denied", serval.TextNoListRoles, false, but("iam:ListRoles")},

		{"The External ID is another one", serval.TextNotAssumed, false, func(s *stage) { s.externalID = "another-one" }},
		{"The trust policy names another account", serval.TextNotAssumed, false, trust(allowed("123456789012", both, ours))},
		{"There is no such role", serval.TextNotAssumed, false, func(s *stage) { s.cloud.Account(member).DeleteRole("serval-ingestion") }},
		{"The role can be assumed without the External ID", serval.TextNotAssumed, false, trust(allowed(hub, both, ""))},
		{"The role can be assumed with a wrong External ID", serval.TextNotAssumed, false, trust(allowed(hub, both, `,"Condition":{"Null":{"sts:ExternalId":"false"}}`))},
		{"`sts:TagSession` is missing in the trust policy", serval.TextNotAssumed, false, trust(allowed(hub, `"sts:AssumeRole"`, ours))},
		{"`sts:TagSession` is missing in the worker's own policy", serval.TextNotAssumed, false, worker("sts:AssumeRole")},
		{"The worker's own policy does not allow it", serval.TextNotAssumed, false, worker("s3:GetObject")},
		{"A policy denies it explicitly", serval.TextNotAssumed, false, trust(allowed(hub, both, ours) + `,{"Effect":"Deny","Principal":"*","Action":"sts:AssumeRole"}`)},
		{"The worker's session carries a source identity", serval.TextNotAssumed, false,
			answers("AssumeRole", "AccessDenied", 403, "User: arn:aws:sts::"+hub+":assumed-role/worker/serval is not authorized to perform: sts:SetSourceIdentity on resource: "+ingest)},
		{"STS is turned off in the region", serval.TextNotAssumed, false,
			answers("AssumeRole", "RegionDisabledException", 403, "STS is not activated in this region for account:"+member+".")},
		{"The clock is off", serval.TextNotAssumed, false, func(s *stage) {
			s.now.Store(int64(time.Hour))
			answers("AssumeRole", "SignatureDoesNotMatch", 403, "Signature expired.")(s)
		}},
		{"Session tags fill the session", serval.TextNotAssumed, false,
			answers("AssumeRole", "PackedPolicyTooLarge", 400, "Packed size of session tags consumes 101% of allotted space.")},
		{"Nothing is reached", serval.TextNotAssumed, false, func(s *stage) { s.env["SERVAL_STS_ENDPOINT"] = "http://127.0.0.1:1" }},
		{"Nobody who is trusted has signed the certificate", serval.TextNotAssumed, false, func(s *stage) { s.env["SERVAL_STS_ENDPOINT"] = s.untrusted }},
		{"Something answers in AWS's place", serval.TextNotAssumed, false, func(s *stage) { s.env["SERVAL_STS_ENDPOINT"] = s.captive }},
		{"The session is in another account", serval.TextNotAssumed, false, func(s *stage) {
			s.cloud.Inject(awstest.Fault{Action: "AssumeRole", Mutate: func(body []byte) []byte {
				return bytes.ReplaceAll(body, []byte("arn:aws:sts::"+member), []byte("arn:aws:sts::123456789012"))
			}})
		}},
		{"AWS does not know the worker's access key", serval.TextNotAssumed, false,
			answers("AssumeRole", "InvalidClientTokenId", 403, "The security token included in the request is invalid.")},
		{"The worker's credentials have ended", serval.TextNotAssumed, false,
			answers("AssumeRole", "ExpiredToken", 403, "The security token included in the request is expired")},
		{"AWS is asked too often", serval.TextNotAssumed, false, answers("AssumeRole", "Throttling", 400, "Rate exceeded")},
		{"The role is in another partition", serval.TextNotAssumed, false, func(s *stage) {
			s.role = strings.Replace(ingest, "arn:aws:", "arn:aws-us-gov:", 1)
		}},
		{"The worker has no credentials", serval.TextNotAssumed, false, func(s *stage) {
			s.env["AWS_ACCESS_KEY_ID"], s.env["AWS_SECRET_ACCESS_KEY"], s.env["AWS_SESSION_TOKEN"] = "", "", ""
		}},
		{"AWS fails", serval.TextNotAssumed, false, answers("AssumeRole", "PolicyChanged", 400, "Not now.")},

		{"The organization is listed", "Successfully retrieved 2 accounts from AWS Organizations", true, managedBy(member)},
		{"`organizations:ListAccounts` is denied", "Connection successful, but IAM role lacks organizations:ListAccounts permission.", true, func(*stage) {}},
		{"The account does not manage its organization", listed, true, managedBy(hub)},
		{"The account is in no organization", "This AWS account is not part of an AWS Organization.", true, mayOnly("organizations:ListAccounts")},
		{"The list fails otherwise", listed, true, func(s *stage) {
			managedBy(member)(s)
			answers("ListAccounts", "ServiceException", 400, "Later.")(s)
		}},
		{"The role of the list cannot be assumed", listed, true, func(s *stage) { s.externalID = "another-one" }},
	}
	var doc strings.Builder
	doc.WriteString(intro)
	type played struct {
		text   string
		causes []serval.Cause
	}
	all := make([]played, len(situations))
	var together errgroup.Group
	together.SetLimit(8) // some of them try again for seconds
	for i, one := range situations {
		together.Go(func() error {
			all[i].text, all[i].causes = one.play(t)
			return nil
		})
	}
	_ = together.Wait() // what is wrong was told to t
	found := make(map[serval.Cause]bool)
	for i, one := range situations {
		if one.title == "All is well" {
			doc.WriteString("\n## Test AWS Connection\n")
		}
		if one.title == "The organization is listed" {
			doc.WriteString("\n## List accounts\n")
		}
		text, causes := all[i].text, all[i].causes
		for _, c := range causes {
			found[c] = true
		}
		if first, _, _ := strings.Cut(text, "\n"); first != one.text {
			t.Errorf("%s: %q, want %q", one.title, first, one.text)
		}
		fmt.Fprintf(&doc, "\n### %s\n\nCauses: %s.\n\n```text\n%s```\n", one.title, names(causes), text)
	}
	for _, c := range serval.Causes() {
		if !found[c] {
			t.Errorf("no situation has the cause %s", c)
		}
	}
	const file = "../../docs/checks.md"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(doc.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), doc.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

const intro = `# What serval-worker check says

Each outcome, and each cause that is known, as it is printed: the first line is the health check's own sentence, and below it are the
cause and what mends it. This page is made by a test, which runs the program in front of a played AWS; the account's page shows the same.
`

func names(causes []serval.Cause) string {
	if len(causes) == 0 {
		return "none"
	}
	var all []string
	for _, c := range causes {
		all = append(all, "`"+string(c)+"`")
	}
	return strings.Join(all, ", ")
}

// play runs check in the situation, as text and as JSON, and returns the text and the causes.
func (one situation) play(t *testing.T) (text string, causes []serval.Cause) {
	t.Helper()
	s := &stage{role: ingest, externalID: external, env: make(map[string]string)}
	s.cloud = awstest.New(awstest.Options{Now: func() time.Time { return time.Now().Add(time.Duration(s.now.Load())) }})
	server := httptest.NewServer(s.cloud)
	defer server.Close()
	untrusted := httptest.NewUnstartedServer(s.cloud)
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are broken off
	untrusted.StartTLS()
	defer untrusted.Close()
	captive := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<html>Please sign in to the network.</html>")
	}))
	defer captive.Close()
	s.untrusted, s.captive = untrusted.URL, captive.URL
	home := s.cloud.AddAccount(hub, "hub")
	home.PutRole(awstest.Role{Name: "worker", Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")}})
	keys := home.PodIdentity("worker", time.Now())
	fill(s.cloud)
	for name, value := range map[string]string{
		"SERVAL_STS_ENDPOINT": server.URL, "SERVAL_IAM_ENDPOINT": server.URL, "SERVAL_ORGANIZATIONS_ENDPOINT": server.URL,
		"AWS_ACCESS_KEY_ID": keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": keys.SecretAccessKey, "AWS_SESSION_TOKEN": keys.SessionToken,
		"HOME": t.TempDir(),
	} {
		s.env[name] = value
	}
	one.mess(s)
	environ := []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1", "PATH=" + os.Getenv("PATH"), "GORACE=" + os.Getenv("GORACE")}
	for name, value := range s.env {
		environ = append(environ, name+"="+value)
	}
	args := []string{"check", "--account", member, "--role-arn", s.role, "--external-id", s.externalID}
	if one.organization {
		args = append(args, "--organization")
	}
	program := func(args ...string) (printed []byte, code int) {
		c := exec.CommandContext(t.Context(), "serval-worker", args...)
		var said bytes.Buffer
		c.Env, c.Stderr = environ, &said
		printed, err := c.Output()
		if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited || said.Len() > 0 {
			t.Errorf("%s: %v, on stderr: %s", one.title, err, said.String())
		}
		return printed, c.ProcessState.ExitCode()
	}
	var structured []byte
	var both errgroup.Group
	both.Go(func() error { structured, _ = program(slices.Concat(args, []string{"-o", "json"})...); return nil })
	out, code := program(args...)
	_ = both.Wait() // what is wrong was told to t
	var c struct {
		Findings []struct{ Causes []serval.Cause }
	}
	if err := json.Unmarshal(structured, &c); err != nil {
		t.Errorf("%s: %v in %s", one.title, err, structured)
	}
	for _, f := range c.Findings {
		causes = append(causes, f.Causes...)
	}
	for pattern, with := range map[string]string{
		`assumed-role/worker/[\w-]+`: "assumed-role/worker/SESSION",
		`127\.0\.0\.1:[0-9]+`:        "127.0.0.1:PORT",
		`here is [0-9hms]+ behind`:   "here is 1h0m0s behind",
	} {
		out = regexp.MustCompile(pattern).ReplaceAll(out, []byte(with))
	}
	return string(out) + fmt.Sprintf("(exit code %d)\n", code), slices.Compact(causes)
}
