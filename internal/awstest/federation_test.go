package awstest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
)

func TestSignIn(t *testing.T) {
	now := time.Now()
	c, a, user := admin(t, awstest.Options{Now: func() time.Time { return now }})
	a.PutRole(awstest.Role{Name: "r", Inline: allowing("*"), Trust: trustOf(`{"AWS":"`+spoke+`"}`, "sts:AssumeRole")})
	c.KeepParams(true)
	base := c.Start(t)
	direct := a.Session("r", "ann@example.com", time.Hour)
	out, err := stsClient(base, direct).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(a.RoleARN("r")), RoleSessionName: aws.String("chained")})
	chained := session(t, out, err)

	post := func(form url.Values) (int, string) {
		t.Helper()
		res, err := http.PostForm(base+"/federation", form)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	token := func(k awstest.Keys, more ...string) (int, string) {
		t.Helper()
		b, _ := json.Marshal(map[string]string{"sessionId": k.AccessKeyID, "sessionKey": k.SecretAccessKey, "sessionToken": k.SessionToken})
		form := url.Values{"Action": {"getSigninToken"}, "Session": {string(b)}}
		if len(more) > 0 {
			form.Set("SessionDuration", more[0])
		}
		status, body := post(form)
		var answer struct{ SigninToken string }
		_ = json.Unmarshal([]byte(body), &answer)
		return status, answer.SigninToken
	}
	login := func(token string) (int, string) {
		return post(url.Values{"Action": {"login"}, "Issuer": {"https://serval.example.com"}, "Destination": {"https://console.aws.amazon.com/"}, "SigninToken": {token}})
	}

	status, tok := token(direct)
	if status != 200 || tok == "" {
		t.Fatalf("status %d, token %q; want one", status, tok)
	}
	if status, body := login(tok); status != 200 || !strings.Contains(body, ":assumed-role/r/ann@example.com") {
		t.Errorf("login: %d %s; want the session's name", status, body)
	}
	if status, _ := login(tok); status != 400 {
		t.Errorf("second login by one token: %d, want 400", status)
	}
	_, tok = token(direct)
	now = now.Add(15 * time.Minute)
	if status, _ := login(tok); status != 400 {
		t.Errorf("login after 15 minutes: %d, want 400", status)
	}
	if status, _ := token(direct, "3600"); status != 200 {
		t.Errorf("SessionDuration: %d, want 200", status)
	}
	calls := c.Calls()
	if last := calls[len(calls)-1]; last.Params.Get("SessionDuration") != "3600" || last.Account != spoke || last.Action != "getSigninToken" {
		t.Errorf("last call %+v: want SessionDuration recorded, in the session's account", last)
	}
	bad := direct
	bad.SecretAccessKey += "x"
	for name, status := range map[string]int{
		"chained with SessionDuration": first(token(chained, "3600")),
		"user":                         first(token(user)),
		"wrong secret":                 first(token(bad)),
	} {
		if status != 400 {
			t.Errorf("%s: %d, want 400", name, status)
		}
	}
	now = now.Add(time.Hour)
	if status, _ := token(direct); status != 400 {
		t.Errorf("expired session: %d, want 400", status)
	}
}

func first(status int, _ string) int { return status }
