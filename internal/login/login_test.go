package login

import (
	"slices"
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
