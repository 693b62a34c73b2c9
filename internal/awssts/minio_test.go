package awssts_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/porttest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// startMinIO runs MinIO as an STS that verifies ID tokens of the issuer, and
// returns where it is and the one role it has. The binary is named by
// TEST_MINIO; make test-sts builds it.
func startMinIO(t *testing.T, issuer string) (endpoint, roleARN string) {
	t.Helper()
	binary := os.Getenv("TEST_MINIO")
	if binary == "" {
		const missing = "TEST_MINIO names no MinIO: run make test-sts"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	address := porttest.Own(t)
	cmd := exec.Command(binary, "server", "--address", address, t.TempDir())
	cmd.Env = []string{
		"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "MINIO_BROWSER=off", "MINIO_ROOT_USER=root", "MINIO_ROOT_PASSWORD=of-this-test-alone",
		"MINIO_IDENTITY_OPENID_CONFIG_URL=" + issuer + "/.well-known/openid-configuration",
		"MINIO_IDENTITY_OPENID_CLIENT_ID=" + clientID, "MINIO_IDENTITY_OPENID_ROLE_POLICY=readwrite",
	}
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	role := make(chan string, 1)
	said := make(chan string, 1)
	go func() {
		var all strings.Builder
		var arn string
		var serving bool
		for s := bufio.NewScanner(out); s.Scan(); {
			all.WriteString(s.Text() + "\n")
			if found := minioRole.FindString(s.Text()); found != "" {
				arn = found
			}
			serving = serving || strings.HasPrefix(s.Text(), "API: ")
			if serving && arn != "" { // in either order
				select {
				case role <- arn:
				default:
				}
			}
		}
		said <- all.String()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was told to stop
		in.Close()
		if text := <-said; t.Failed() {
			t.Logf("MinIO said:\n%s", text)
		}
	})
	select {
	case roleARN = <-role:
	case <-time.After(60 * time.Second):
		t.Fatal("MinIO names no role after a minute")
	}
	return "http://" + address, roleARN
}

var minioRole = regexp.MustCompile(`arn:minio:iam:::role/[\w-]+`)

// minioWire carries our calls to MinIO and differs from AWS in what MinIO does: the
// role's ARN, and that it knows S3's actions alone, so that no session policy of
// ours can be sent. Everything else of the call is as it goes to AWS.
type minioWire struct {
	role string
	sent url.Values
}

func (w *minioWire) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if w.sent, err = url.ParseQuery(string(body)); err != nil {
		return nil, err
	}
	form := url.Values{}
	for name, values := range w.sent {
		form[name] = values
	}
	form.Set("RoleArn", w.role)
	text := form.Encode()
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	return http.DefaultTransport.RoundTrip(r)
}

// An STS that nobody here wrote takes our call with a token that is valid, and
// refuses it with one that was tampered with, that is another client's, that has
// ended and that another issuer signed.
func TestARealSTS(t *testing.T) {
	idp := idptest.New(idptest.Options{ClientID: clientID, People: []idptest.Person{{Subject: subject, Name: "Ana", Email: session}}})
	endpoint, role := startMinIO(t, idp.Start(t))
	other := idptest.New(idptest.Options{ClientID: clientID, People: []idptest.Person{{Subject: subject, Name: "Ana", Email: session}}})
	other.SetIssuer(idp.Issuer())
	other.Rotate() // providers of tests begin with one key
	wire := &minioWire{role: role}
	client := newClient(t, awssts.Config{Endpoint: endpoint, HTTPClient: &http.Client{Transport: wire}})
	mint := func(token string, change func(m *serval.Mint)) (serval.Minted, error) {
		m := serval.Mint{
			Role:        serval.RoleKey{Partition: "aws", AccountID: account, RoleID: "AROAX", ARN: "arn:aws:iam::" + account + ":role/dev-admin"},
			SessionName: session, Token: serval.NewSecret(token), Seconds: 900,
		}
		if change != nil {
			change(&m)
		}
		return client.Mint(context.Background(), m)
	}
	valid := idp.IDToken(session, nil)

	asked := time.Now()
	got, err := mint(valid, nil)
	for began := asked; err != nil && strings.Contains(err.Error(), "are defined") && time.Since(began) < time.Minute; {
		time.Sleep(100 * time.Millisecond) // MinIO has not read its own policies yet
		asked = time.Now()
		got, err = mint(valid, nil)
	}
	if err != nil {
		t.Fatalf("a valid token: %v", err)
	}
	if got.Subject != subject || got.SecretAccessKey.Empty() || got.SessionToken.Empty() {
		t.Errorf("answered for %q, want %q and credentials", got.Subject, subject)
	}
	if from := got.Expiration.Add(-900 * time.Second); from.Before(asked.Add(-time.Second)) || from.After(time.Now()) { // in whole seconds
		t.Errorf("credentials until %s, want 900 seconds from %s", got.Expiration, asked)
	}
	for name, want := range map[string]string{
		"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "DurationSeconds": "900", "RoleSessionName": session,
		"RoleArn": "arn:aws:iam::" + account + ":role/dev-admin", "WebIdentityToken": valid,
	} {
		if v := wire.sent.Get(name); v != want {
			t.Errorf("sent %s %q, want %q", name, v, want)
		}
	}
	if longer, err := mint(valid, func(m *serval.Mint) { m.Seconds = 7200 }); err != nil || time.Until(longer.Expiration) < 118*time.Minute {
		t.Errorf("two hours: until %s, %v", longer.Expiration, err)
	}

	// The credentials are worth what they say, and no others are.
	list := func(m serval.Minted) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		empty := sha256.Sum256(nil)
		r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(empty[:]))
		err = v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{
			AccessKeyID: m.AccessKeyID, SecretAccessKey: m.SecretAccessKey.Reveal(), SessionToken: m.SessionToken.Reveal(),
		}, r, hex.EncodeToString(empty[:]), "s3", "us-east-1", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	if status := list(got); status != http.StatusOK {
		t.Errorf("with the credentials a call answers %d, want 200", status)
	}
	altered := got
	altered.SecretAccessKey = serval.NewSecret(altered.SecretAccessKey.Reveal() + "x")
	if status := list(altered); status != http.StatusForbidden {
		t.Errorf("with other credentials a call answers %d, want 403", status)
	}

	parts := strings.Split(valid, ".")
	signature := []byte(parts[2])
	signature[10] ^= 'A' ^ 'B'
	for name, token := range map[string]string{
		"tampered with: the signature": strings.Join([]string{parts[0], parts[1], string(bytes.Map(base64URL, signature))}, "."),
		"tampered with: the claims":    strings.Join([]string{parts[0], strings.Split(idp.IDToken(session, func(c map[string]any) { c["sub"] = "00u9eve" }), ".")[1], parts[2]}, "."),
		"another client's":             idp.IDToken(session, func(c map[string]any) { c["aud"], c["azp"] = "another", "another" }),
		"one that has ended": idp.IDToken(session, func(c map[string]any) {
			c["exp"], c["iat"] = asked.Add(-time.Hour).Unix(), asked.Add(-2*time.Hour).Unix()
		}),
		"one that another issuer signed": other.IDToken(session, nil),
		"no token":                       "not-a-token",
	} {
		got, err := mint(token, nil)
		failed, ok := errors.AsType[*awssts.Error](err)
		if !ok || failed.Status != http.StatusBadRequest || got != (serval.Minted{}) {
			t.Errorf("%s: %+v, %v, want it refused with 400", name, got, err)
			continue
		}
		if strings.Contains(failed.Error(), token) || len(token) > 20 && strings.Contains(failed.Error(), strings.Split(token, ".")[1]) {
			t.Errorf("%s: the error holds the token: %v", name, failed)
		}
	}
}

// base64URL keeps what may stand in a token.
func base64URL(r rune) rune {
	if r < 0x80 && strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", r) {
		return r
	}
	return 'A'
}
