package awstest_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
)

func TestSignatures(t *testing.T) {
	now := time.Now()
	c, a, user := admin(t, awstest.Options{Now: func() time.Time { return now }})
	a.PutRole(awstest.Role{Name: "r", Inline: allowing("*")})
	live, other, past := a.Session("r", "live", time.Hour), a.Session("r", "other", time.Hour), a.Session("r", "past", -time.Second)
	url := c.Start(t)
	with := func(k awstest.Keys, change func(*awstest.Keys)) awstest.Keys {
		change(&k)
		return k
	}
	const body = "Action=GetCallerIdentity&Version=2011-06-15"
	tests := []struct {
		name    string
		keys    awstest.Keys
		service string
		at      time.Duration // of the signature, from now
		after   func(*http.Request)
		status  int
		code    string
	}{
		{name: "user", keys: user, status: 200},
		{name: "session", keys: live, status: 200},
		{name: "a little late", keys: live, at: -14 * time.Minute, status: 200},
		{name: "wrong secret", keys: with(user, func(k *awstest.Keys) { k.SecretAccessKey += "x" }), status: 403, code: "SignatureDoesNotMatch"},
		{name: "unknown key", keys: with(user, func(k *awstest.Keys) { k.AccessKeyID += "X" }), status: 403, code: "InvalidClientTokenId"},
		{name: "another session's token", keys: with(live, func(k *awstest.Keys) { k.SessionToken = other.SessionToken }), status: 403, code: "InvalidClientTokenId"},
		{name: "no token", keys: with(live, func(k *awstest.Keys) { k.SessionToken = "" }), status: 403, code: "InvalidClientTokenId"},
		{name: "token of a user", keys: with(user, func(k *awstest.Keys) { k.SessionToken = "x" }), status: 403, code: "InvalidClientTokenId"},
		{name: "expired", keys: past, status: 403, code: "ExpiredToken"},
		{name: "late", keys: live, at: -16 * time.Minute, status: 403, code: "SignatureDoesNotMatch"},
		{name: "early", keys: live, at: 16 * time.Minute, status: 403, code: "SignatureDoesNotMatch"},
		{name: "for another service", keys: live, service: "iam", status: 403, code: "SignatureDoesNotMatch"},
		{name: "unsigned", keys: live, after: func(r *http.Request) { r.Header.Del("Authorization") }, status: 403, code: "MissingAuthenticationToken"},
		{name: "no signature", keys: live, after: func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, status: 400, code: "IncompleteSignature"},
		{name: "changed header", keys: live, after: func(r *http.Request) { r.Header.Set("X-Extra", "b") }, status: 403, code: "SignatureDoesNotMatch"},
		{name: "changed host", keys: live, after: func(r *http.Request) { r.Host = "sts.example.com" }, status: 403, code: "SignatureDoesNotMatch"},
		{name: "changed query", keys: live, after: func(r *http.Request) { r.URL.RawQuery = "x=y" }, status: 403, code: "SignatureDoesNotMatch"},
		{name: "changed body", keys: live, after: func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(body, "06", "07", 1)))
		}, status: 403, code: "SignatureDoesNotMatch"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.NewRequest(http.MethodPost, url+"/", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("X-Extra", "a  a")
			hash := sha256.Sum256([]byte(body))
			service := tt.service
			if service == "" {
				service = "sts"
			}
			err = v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: tt.keys.AccessKeyID, SecretAccessKey: tt.keys.SecretAccessKey, SessionToken: tt.keys.SessionToken},
				r, hex.EncodeToString(hash[:]), service, "us-west-1", now.Add(tt.at))
			if err != nil {
				t.Fatal(err)
			}
			if tt.after != nil {
				tt.after(r)
			}
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || res.StatusCode != tt.status || tt.code != "" && !strings.Contains(string(answer), "<Code>"+tt.code+"</Code>") {
				t.Errorf("status %d, %v, want %d %s:\n%s", res.StatusCode, err, tt.status, tt.code, answer)
			}
		})
	}
}

// TestInMemory lets an hour pass at once: a session ends, and what hangs is given up.
func TestInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := awstest.New(awstest.Options{})
		a := c.AddAccount(spoke, "Spoke")
		a.PutRole(awstest.Role{Name: "r", Inline: allowing("*")})
		transport := &http.Transport{DialContext: c.Dialer()}
		keys := a.Session("r", "ann", time.Hour)
		client := iam.New(iam.Options{
			BaseEndpoint: aws.String("http://iam.amazonaws.com"), Region: "us-east-1", Retryer: aws.NopRetryer{},
			HTTPClient:  &http.Client{Transport: transport},
			Credentials: credentials.NewStaticCredentialsProvider(keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken),
		})
		list := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := client.ListRoles(ctx, &iam.ListRolesInput{})
			return err
		}
		wantError(t, list(), "", "")
		remove := c.Inject(awstest.Fault{Hang: true})
		start := time.Now()
		if err := list(); err == nil || time.Since(start) != time.Minute {
			t.Errorf("hung call: %v after %v, want an error after a minute", err, time.Since(start))
		}
		remove()
		c.SetLatency(func() time.Duration { return 10 * time.Second })
		wantError(t, list(), "", "")
		time.Sleep(time.Hour)
		wantError(t, list(), "ExpiredToken", "")
		transport.CloseIdleConnections()
		c.Close()
		if err := list(); err == nil {
			t.Error("a closed cloud answers")
		}
	})
}

func TestPartition(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{Partition: "aws-us-gov"})
	a.PutRole(awstest.Role{Name: "r"})
	who, err := stsClient(c.Start(t), keys).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil || !strings.HasPrefix(*who.Arn, "arn:aws-us-gov:iam::") || !strings.HasPrefix(a.RoleARN("r"), "arn:aws-us-gov:iam::") {
		t.Errorf("caller %+v, %v, role %s; want ARNs of aws-us-gov", who, err, a.RoleARN("r"))
	}
}
