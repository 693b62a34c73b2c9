package worker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The account is asked for the provider of the issuer that the sync was opened with, and of none where it names none:
// an upstream of before does not, and takes no such field.
func TestProviderOfTheIssuerThatTheUpstreamTold(t *testing.T) {
	for _, issuer := range []string{"", "https://acme.okta.com"} {
		inBubble(t, "issuer "+issuer, func(t *testing.T) {
			f := newFar(t, account(1))
			f.issuer = issuer
			pushed := 0
			f.onPush = func(inv serval.Inventory) error {
				pushed++
				if got := inv.OIDCProvider; (got != nil) != (issuer != "") || got != nil && got.Issuer != issuer {
					t.Errorf("pushed with the provider %+v, want that of %q", got, issuer)
				}
				return nil
			}
			start(t, f, &near{})
			time.Sleep(time.Minute)
			synctest.Wait()
			if pushed != 1 {
				t.Errorf("%d pushes, want 1", pushed)
			}
		})
	}
}
