package awstest

import (
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"strconv"
	"time"
)

// A signin is what a sign-in token stands for, once.
type signin struct {
	arn     string
	expires time.Time
}

// signinLife is how long a sign-in token is good:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_enable-console-custom-url.html
const signinLife = 15 * time.Minute

func (c *Cloud) federate(req *Request) answer {
	if f := c.throttled(req); f != nil {
		return req.refusal(f)
	}
	switch req.Action {
	case "getSigninToken":
		return c.signinToken(req)
	case "login":
		return c.signIn(req)
	}
	return req.refusal(fail(400, "InvalidAction", "Unknown action"))
}

// consoleSession is the parameter Session of getSigninToken.
type consoleSession struct {
	ID    string `json:"sessionId"`
	Key   string `json:"sessionKey"`
	Token string `json:"sessionToken"`
}

// console reads the session; what cannot be read has no keys, and no such session exists.
func (req *Request) console() consoleSession {
	var s consoleSession
	_ = json.Unmarshal([]byte(req.Params.Get("Session")), &s)
	return s
}

func (c *Cloud) signinToken(req *Request) answer {
	s := req.console()
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.keys[s.ID]
	if k == nil || k.role == nil || k.role.deleted || k.secret != s.Key || k.token != s.Token || !now.Before(k.expires) {
		return req.refusal(fail(400, "InvalidSession", "The credentials of the session are not valid."))
	}
	if d := req.Params.Get("SessionDuration"); d != "" {
		n, err := strconv.Atoi(d)
		if err != nil || n < minSession || n > maxSession || k.chained {
			return req.refusal(fail(400, "InvalidSessionDuration", "SessionDuration is not allowed here."))
		}
	}
	token := random(64)
	maps.DeleteFunc(c.signins, func(_ string, s signin) bool { return now.After(s.expires) })
	c.signins[token] = signin{k.arn(), earlier(now.Add(signinLife), k.expires)}
	b, _ := json.Marshal(map[string]string{"SigninToken": token}) // a text always marshals
	return answer{status: 200, contentType: "application/json", body: b}
}

func (c *Cloud) signIn(req *Request) answer {
	token := req.Params.Get("SigninToken")
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.signins[token]
	delete(c.signins, token)
	if !ok || !c.now().Before(s.expires) || req.Params.Get("Destination") == "" {
		return req.refusal(fail(400, "InvalidSigninToken", "The sign-in link is not valid."))
	}
	page := fmt.Sprintf("<!doctype html>\n<title>AWS Management Console</title>\n<p>Signed in as %s</p>\n<p>Destination %s</p>\n",
		html.EscapeString(s.arn), html.EscapeString(req.Params.Get("Destination")))
	return answer{status: 200, contentType: "text/html; charset=utf-8", body: []byte(page)}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
