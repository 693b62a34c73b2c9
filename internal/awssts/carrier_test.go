package awssts

import (
	"crypto/tls"
	"net/http"
	"net/http/cookiejar"
	"testing"
)

// The client's own transport asks no proxy: the token would go through it.
func TestCarrier(t *testing.T) {
	own := carrier(nil, nil).Transport.(bounded).RoundTripper.(*http.Transport)
	if own.Proxy != nil {
		t.Error("the transport takes a proxy from the environment")
	}
	if own.TLSClientConfig.MinVersion < tls.VersionTLS12 || own.TLSClientConfig.InsecureSkipVerify {
		t.Errorf("TLS %+v, want 1.2 or later, verified", own.TLSClientConfig)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	given := &http.Client{Jar: jar}
	if got := carrier(given, nil); given.CheckRedirect != nil || given.Transport != nil || given.Jar != jar {
		t.Error("the caller's client was changed")
	} else if got.Jar != nil {
		t.Error("the client keeps cookies, by which AWS could tell one person's call from another's")
	}
}
