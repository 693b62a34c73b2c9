package bridge

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// When no session can be opened, the one cause is named, and who can mend it.
func TestCauses(t *testing.T) {
	answering := func(late time.Duration) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(-late).UTC().Format(http.TimeFormat))
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	const closed = "http://127.0.0.1:1"                       // a port that was free a moment ago may be somebody's again
	stranger := httptest.NewTLSServer(http.NotFoundHandler()) // whose authority nobody knows
	t.Cleanup(stranger.Close)
	idp := idptest.New(idptest.Options{ClientID: "client", ClientSecret: "s"})
	issuer := idp.Start(t)
	for name, test := range map[string]struct {
		sts, issuer, code string
		id, says          string // empty: nothing is found
	}{
		"all is well":             {answering(0), issuer, awssts.NoAnswer, "", ""},
		"a little apart":          {answering(4 * time.Minute), issuer, awssts.NoAnswer, "", ""},
		"no name":                 {"https://sts.serval.invalid", issuer, awssts.NoAnswer, "dns", "sts.serval.invalid, where AWS is asked, has no address. The operator of Serval can mend that: look at the cluster's DNS"},
		"no way":                  {closed, issuer, awssts.NoAnswer, "connect", "cannot be reached from Serval. The operator of Serval can mend that: look at egress rules"},
		"TLS is broken open":      {stranger.URL, issuer, awssts.BadAnswer, "tls", "breaks TLS open"},
		"no TLS where it should":  {strings.Replace(answering(0), "http:", "https:", 1), issuer, awssts.NoAnswer, "tls", "breaks TLS open"},
		"ahead":                   {answering(6 * time.Minute), issuer, "ExpiredTokenException", "clock", "The clock of Serval's server is 6m"},
		"behind":                  {answering(-time.Hour), issuer, "RequestExpired", "clock", "behind AWS's"},
		"the provider is away":    {answering(0), closed, "IDPCommunicationError", "tls", "Something is wrong with the identity provider"},
		"AWS cannot get there":    {answering(0), issuer, "IDPCommunicationError", "issuer", "AWS takes no issuer that is not https"},
		"its keys, as AWS says":   {answering(0), issuer, "InvalidIdentityToken", "issuer", "AWS has to read the identity provider's keys"},
		"what AWS has said":       {closed, closed, "PackedPolicyTooLarge", "", ""},
		"what its policy has":     {closed, closed, "AccessDenied", "", ""},
		"throttling is no cause":  {closed, closed, "Throttling", "", ""},
		"a region switched off":   {closed, closed, "RegionDisabledException", "", ""},
		"a provider that says no": {closed, closed, "IDPRejectedClaim", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			c.STSEndpoint, c.OIDC.Issuer, c.Log, c.Now = test.sts, test.issuer, zap.NewNop(), time.Now
			provider, err := login.New(login.Config{Issuer: test.issuer, ClientID: "client", ClientSecret: serval.NewSecret("s"), RedirectURL: "http://127.0.0.1/oidc/auth/callback"})
			if err != nil {
				t.Fatal(err)
			}
			f := newCauses(&c, provider)
			got, ok := f.find(t.Context(), test.code)
			if ok != (test.id != "") || got.ID != test.id || !strings.Contains(got.Sentence, test.says) {
				t.Errorf("%s: %+v, %t; want %q: %s", test.code, got, ok, test.id, test.says)
			}
			if ok && got.MendedBy == "" {
				t.Error("nobody can mend it")
			}
		})
	}
	t.Run("once for many", func(t *testing.T) {
		c := good()
		asked := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked++
			w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		}))
		t.Cleanup(s.Close)
		c.STSEndpoint, c.Log, c.Now = s.URL, zap.NewNop(), time.Now
		f := newCauses(&c, nil)
		var first control.Cause
		for i := range 10 {
			got, ok := f.find(t.Context(), awssts.NoAnswer)
			if i == 0 {
				first = got
			}
			if !ok || got != first {
				t.Errorf("found %+v, %t; want %+v", got, ok, first)
			}
		}
		if asked != 1 {
			t.Errorf("STS was asked %d times, want once", asked)
		}
	})
}
