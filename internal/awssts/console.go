package awssts

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// federation are AWS's federation endpoints by partition (IAM User Guide,
// "Enable custom identity broker access to the AWS console").
var federation = map[string]string{
	serval.PartitionAWS:   "https://signin.aws.amazon.com/federation",
	serval.PartitionChina: "https://signin.amazonaws.cn/federation",
	serval.PartitionGov:   "https://signin.amazonaws-us-gov.com/federation",
}

// withFederation adds the path that federation endpoints have.
func withFederation(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && (u.Path == "" || u.Path == "/") {
		u.Path = "/federation"
		return u.String()
	}
	return endpoint
}

// SignIn returns a link that signs whoever opens it in to a page of the console
// with the session's permissions. The link is a secret, works once, and for
// fifteen minutes at most (IAM User Guide): answer it as a redirect, and write it
// nowhere.
//
// SessionDuration is never sent, because the console session would then outlive
// the credentials: without it both end together. The session travels in the body
// of a POST, so that it is in no log of URLs.
//
// The error is a serval.Refusal where nothing was asked, and an [*Error] where
// the sign-in service was.
func (c *Client) SignIn(ctx context.Context, partition string, m serval.Minted, page serval.ConsolePage) (serval.Secret, error) {
	var none serval.Secret
	endpoint := c.signin[partition]
	if endpoint == "" {
		return none, serval.Refuse(serval.FailedPrecondition, "No console sign-in is set up for partition %s. The operator of Serval can set its sign-in endpoint.", partition)
	}
	destination, err := page.URL(partition)
	if err != nil {
		return none, err
	}
	if m.AccessKeyID == "" || m.SecretAccessKey.Empty() || m.SessionToken.Empty() {
		return none, serval.Refuse(serval.Invalid, "There are no credentials to open the console with.")
	}
	if !m.Expiration.After(c.now()) {
		return none, serval.Refuse(serval.FailedPrecondition, "These credentials have ended. Open another session.")
	}
	session, err := json.Marshal(map[string]string{
		"sessionId":    m.AccessKeyID,
		"sessionKey":   m.SecretAccessKey.Reveal(),
		"sessionToken": m.SessionToken.Reveal(),
	})
	if err != nil {
		return none, serval.Refuse(serval.Invalid, "These credentials cannot be sent.") // texts always marshal
	}
	form := url.Values{"Action": {"getSigninToken"}, "Session": {string(session)}}.Encode()
	token, err := repeat(ctx, func(ctx context.Context) (serval.Secret, *Error) {
		return c.signinToken(ctx, endpoint, form, m)
	})
	if err != nil {
		return none, err
	}
	return serval.NewSecret(endpoint + "?" + url.Values{
		"Action": {"login"}, "Destination": {destination}, "SigninToken": {token.Reveal()},
	}.Encode()), nil
}

// ConsoleHosts returns where a sign-in to the console may lead, as sources of a
// Content-Security-Policy, for all partitions that are served.
func (c *Client) ConsoleHosts() []string {
	var hosts []string
	for _, partition := range slices.Sorted(maps.Keys(c.signin)) {
		if u, err := url.Parse(c.signin[partition]); err == nil {
			hosts = append(hosts, u.Scheme+"://"+u.Host)
		}
		hosts = append(hosts, serval.ConsoleHosts(partition)...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// Signin returns the federation endpoint of the client's own partition.
func (c *Client) Signin() string { return c.signin[c.own] }

// signinToken asks for a sign-in token, once.
func (c *Client) signinToken(ctx context.Context, endpoint, form string, m serval.Minted) (serval.Secret, *Error) {
	failed := func(status int, id string, err error) (serval.Secret, *Error) {
		return serval.Secret{}, signInFailed(status, id, err, m)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form))
	if err != nil {
		return failed(0, "", err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	res, err := c.http.Do(r)
	if err != nil {
		return failed(0, "", err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	id := res.Header.Get("X-Amzn-Requestid")
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return failed(0, id, err)
	}
	var answer struct{ SigninToken serval.Secret }
	if res.StatusCode != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.SigninToken.Empty() {
		return failed(res.StatusCode, id, nil)
	}
	return answer.SigninToken, nil
}
