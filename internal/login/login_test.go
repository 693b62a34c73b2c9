package login

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
)

func TestSignIn(t *testing.T) {
	w := newWorld(t, nil)
	id, err := w.signIn()
	if err != nil {
		t.Fatalf("Finish: %v", err)
	}
	if id.Subject != ana.Subject || id.Email != ana.Email || !slices.Equal(id.Groups, ana.Groups) || id.GroupsNote != "" ||
		id.Issuer != w.idp.Issuer() || id.Algorithm != "RS256" || id.IDToken.Empty() || !id.AuthTime.Equal(w.clock.Now()) {
		t.Errorf("identity %+v, want Ana's", id)
	}
}

// S-18: what has not two dots is refused before anything of it is parsed. Were
// its header looked at first, the header's own refusal would come.
func TestDotsAreCountedFirst(t *testing.T) {
	for _, header := range []string{`{"alg":"RS256","kid":"key-1"}`, `{"alg":"none"}`, `{"alg":"RSA-OAEP","enc":"A256GCM","zip":"DEF"}`} {
		first := base64.RawURLEncoding.EncodeToString([]byte(header))
		for rest, dots := range map[string]int{"": 0, ".e30": 1, ".e30.x.y": 3, ".e30.x.y.z": 4, strings.Repeat(".", 19_000): 19_000} {
			err := checkForm(first+rest, []string{"RS256"})
			if err == nil {
				t.Errorf("%s and %d dots: taken", header, dots)
				continue
			}
			wantCause(t, err, CauseToken)
		}
	}
	if err := checkForm(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256"}`))+".e30.x", []string{"RS256"}); err != nil {
		t.Errorf("two dots: %v", err)
	}
}

// Claims that AWS makes session tags or a source identity of are named.
func TestAWSClaims(t *testing.T) {
	for _, name := range []string{"", "https://aws.amazon.com/tags", "https://aws.amazon.com/tags/principal_tags/Team", "https://aws.amazon.com/source_identity"} {
		w := newWorld(t, nil)
		var want []string
		if name != "" {
			w.idp.Misbehave(set(name, "x"))
			want = []string{name}
		}
		id, err := w.signIn()
		if err != nil || !slices.Equal(id.AWSClaims, want) {
			t.Errorf("named %q, %v; want %q", id.AWSClaims, err, want)
		}
	}
}

// A token's azp, or that it has none, is told apart: AWS does.
func TestAuthorizedParty(t *testing.T) {
	for _, want := range []string{"", testClient} {
		w := newWorld(t, nil)
		if want != "" {
			w.idp.Misbehave(set("azp", want))
		}
		id, err := w.signIn()
		if err != nil || id.AuthorizedParty != want {
			t.Errorf("azp is %q, %v; want %q", id.AuthorizedParty, err, want)
		}
	}
}
