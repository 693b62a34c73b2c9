package awssts

import (
	"crypto/tls"
	"net/http"
	"testing"
)

// The client's own transport asks no proxy: the token would go through it.
func TestCarrier(t *testing.T) {
	own := carrier(nil).Transport.(bounded).RoundTripper.(*http.Transport)
	if own.Proxy != nil {
		t.Error("the transport takes a proxy from the environment")
	}
	if own.TLSClientConfig.MinVersion < tls.VersionTLS12 || own.TLSClientConfig.InsecureSkipVerify {
		t.Errorf("TLS %+v, want 1.2 or later, verified", own.TLSClientConfig)
	}
	given := &http.Client{}
	if carrier(given); given.CheckRedirect != nil || given.Transport != nil {
		t.Error("the caller's client was changed")
	}
}
