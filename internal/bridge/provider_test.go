package bridge

import "testing"

// Accounts are asked for the provider of the issuer, and for none where AWS needs none.
func TestProviderIssuer(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://acme.okta.com": "https://acme.okta.com", "https://accounts.google.com": "", "http://127.0.0.1:8081": "http://127.0.0.1:8081",
	} {
		if got := providerIssuer(issuer); got != want {
			t.Errorf("for %s accounts are asked for %q, want %q", issuer, got, want)
		}
	}
}
