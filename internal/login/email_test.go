package login

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const (
	okta    = "https://acme.okta.com"
	entra   = "https://login.microsoftonline.com/9f/v2.0"
	another = "https://id.example.com"
)

// S-57: every combination of issuer, rule and what the provider says.
func TestS57_EmailVerified(t *testing.T) {
	absent := "absent"
	tests := []struct {
		issuer, rule string
		says         any // email_verified, or absent
		edov         any // xms_edov, or absent
		ok           bool
	}{
		{okta, "", absent, absent, true},
		{okta, "", true, absent, true},
		{okta, "", "true", absent, true},
		{okta, "", false, absent, false},
		{okta, "", "false", absent, false},
		{okta, "", "no", absent, false},
		{okta, "", 0, absent, false},
		{okta, "", nil, absent, false}, // null is not absent
		{okta, "require", absent, absent, false},
		{okta, "require", true, absent, true},
		{okta, "ignore", absent, absent, true},
		{okta, "ignore", false, absent, false},
		{"https://acme.oktapreview.com/oauth2/x", "", absent, absent, true},
		{"https://acme.okta-emea.com", "", absent, absent, true},
		{"https://acme.okta-gov.com", "", absent, absent, true},
		{"https://okta.com.evil.example", "", absent, absent, false},
		{"https://evilokta.com", "", absent, absent, false},
		{"https://okta.com", "", absent, absent, false},
		{another, "", absent, absent, false},
		{another, "", true, absent, true},
		{another, "", "true", absent, true},
		{another, "", false, absent, false},
		{another, "", "false", absent, false},
		{another, "ignore", absent, absent, true},
		{another, "ignore", false, absent, false},
		{another, "ignore", "false", absent, false},
		{another, "require", absent, absent, false},
		{another, "require", true, absent, true},
		{entra, "", absent, absent, false},
		{entra, "", absent, true, true},
		{entra, "", absent, "true", true},
		{entra, "", absent, 1, true},
		{entra, "", absent, "1", true},
		{entra, "require", absent, 1, true},
		{entra, "", absent, false, false},
		{entra, "", absent, 0, false},
		{entra, "", absent, "0", false},
		{entra, "", absent, "yes", false},
		{entra, "ignore", absent, false, false},
		{entra, "", false, true, false},
		{entra, "", true, false, false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s/%s/%v/%v", tt.issuer, tt.rule, tt.says, tt.edov), func(t *testing.T) {
			w := newWorld(t, func(o *idptest.Options, c *Config) {
				at(tt.issuer)(o, c)
				c.EmailVerified = tt.rule
				who := ana
				who.EmailVerified = nil
				who.Extra = map[string]any{}
				if tt.says != absent {
					who.Extra["email_verified"] = tt.says
				}
				if tt.edov != absent {
					who.Extra["xms_edov"] = tt.edov
				}
				o.People = []idptest.Person{who}
			})
			_, err := w.signIn()
			if tt.ok && err != nil {
				t.Errorf("refused: %v", err)
			}
			if !tt.ok {
				wantCause(t, err, CauseEmailVerified)
			}
		})
	}
}

// S-57: a loopback issuer is not Okta.
func TestS57_LoopbackIsNotOkta(t *testing.T) {
	w := newWorld(t, func(o *idptest.Options, _ *Config) {
		who := ana
		who.EmailVerified = nil
		o.People = []idptest.Person{who}
	})
	_, err := w.signIn()
	wantCause(t, err, CauseEmailVerified)
}

// S-57: UserInfo is asked where the ID token does not say enough, and is held
// to the same rules.
func TestS57_UserInfo(t *testing.T) {
	thin := func(o *idptest.Options, _ *Config) { o.Thin = true }
	ignore := func(_ *idptest.Options, c *Config) { c.EmailVerified = "ignore" }
	answer := func(a idptest.Answer) func(*idptest.Misbehaviour) {
		return func(m *idptest.Misbehaviour) { m.AtUserInfo = a }
	}
	says := func(name string, value any) func(*idptest.Misbehaviour) {
		return func(m *idptest.Misbehaviour) {
			m.UserInfo = func(c map[string]any) {
				c[name] = value
				if value == nil {
					delete(c, name)
				}
			}
		}
	}
	tests := []struct {
		name   string
		change func(*idptest.Options, *Config)
		wrong  func(*idptest.Misbehaviour)
		cause  string
		asked  int
	}{
		{"not asked when the ID token says it all", nil, nil, "", 0},
		{"email from UserInfo", thin, nil, "", 1},
		{"unverified there", thin, says("email_verified", false), CauseEmailVerified, 1},
		{"absent there", thin, says("email_verified", nil), CauseEmailVerified, 1},
		{"the word of the domain's owner on another email", nil, func(m *idptest.Misbehaviour) {
			set("email_verified", nil)(m)
			m.UserInfo = func(c map[string]any) {
				delete(c, "email_verified")
				c["email"], c["xms_edov"] = "bob@example.com", true
			}
		}, CauseEmailVerified, 1},
		{"not asked for a word that the domain's owner gave", nil, func(m *idptest.Misbehaviour) {
			m.Claims = func(c map[string]any) { delete(c, "email_verified"); c["xms_edov"] = true }
		}, "", 0},
		{"not asked for a word that decides nothing", ignore, set("email_verified", nil), "", 0},
		{"down, where no word decides, and the email is to be had there only", func(o *idptest.Options, c *Config) { thin(o, c); ignore(o, c) },
			answer(idptest.Answer{Status: 500, Body: "x"}), CauseUserInfo, 1},
		{"no email there", thin, says("email", nil), CauseEmail, 1},
		{"sub in another case", thin, says("SUB", "x"), CauseUserInfo, 1},
		{"down", thin, answer(idptest.Answer{Status: 500, Body: "x"}), CauseUserInfo, 1},
		{"no JSON", thin, answer(idptest.Answer{Body: "<html>"}), CauseUserInfo, 1},
		{"sub twice", thin, answer(idptest.Answer{Body: `{"sub":"00u1ana5678","sub":"00u1ana5678"}`}), CauseUserInfo, 1},
		{"over 64 KB", thin, answer(idptest.Answer{Body: `{"sub":"00u1ana5678","x":"` + strings.Repeat("x", maxUserInfo) + `"}`}), CauseUserInfo, 1},
		{"over 64 KB of nothing", thin, answer(idptest.Answer{
			Body: `{"sub":"00u1ana5678","email":"ana@example.com","email_verified":true,"groups":["engineering","sre"]}` + strings.Repeat(" ", maxUserInfo),
		}), CauseUserInfo, 1},
		{"the ID token's own word on another's email", thin, func(m *idptest.Misbehaviour) { set("email_verified", false)(m) }, CauseEmailVerified, 1},
		{"no UserInfo endpoint", thin, func(m *idptest.Misbehaviour) {
			m.Discovery = func(d map[string]any) { delete(d, "userinfo_endpoint") }
		}, CauseEmail, 0},
		{"only the word on verified", nil, set("email_verified", nil), "", 1},
		{"only the word on verified, of another email", nil, func(m *idptest.Misbehaviour) {
			set("email_verified", nil)(m)
			m.UserInfo = func(c map[string]any) { c["email"] = "bob@example.com" }
		}, CauseEmailVerified, 1},
		{"the ID token's own word is not replaced", nil, func(m *idptest.Misbehaviour) {
			set("email_verified", false)(m)
			m.UserInfo = func(c map[string]any) { c["email_verified"] = true }
		}, CauseEmailVerified, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.change)
			if tt.wrong != nil {
				w.idp.Misbehave(tt.wrong)
			}
			id, err := w.signIn()
			if tt.cause != "" {
				wantCause(t, err, tt.cause)
			} else if err != nil || id.Email != ana.Email || !slices.Equal(id.Groups, ana.Groups) {
				t.Errorf("got %+v, %v, want Ana with her groups", id, err)
			}
			if calls := w.idp.Calls("userinfo"); calls != tt.asked {
				t.Errorf("UserInfo was asked %d times, want %d", calls, tt.asked)
			}
		})
	}
}

// S-14, S-55: only plain ASCII addresses; look-alikes are refused, not folded.
func TestS55_LookAlikes(t *testing.T) {
	for _, email := range []string{
		"\u212Aate@example.com", "\u017Fam@example.com", "ａna@example.com", "an\u200Ba@example.com", "ana@exampl\u0435.com",
		"a\u0308na@example.com", "ana@example.com@corp.com", `"ana"@example.com`, "Ana <ana@example.com>", " ana@example.com",
		"ana@example.com\n", "ana", "", "@example.com", "ana@", "ana@-example.com",
	} {
		w := newWorld(t, nil)
		w.idp.Misbehave(set("email", email))
		_, err := w.signIn()
		wantCause(t, err, CauseEmail)
	}
	w := newWorld(t, nil)
	w.idp.Misbehave(set("email", "Ana@Example.com"))
	if id, err := w.signIn(); err != nil || id.Email != "Ana@Example.com" {
		t.Errorf("email %q, %v, want it as the provider wrote it", id.Email, err)
	}
}

// S-56: the configured claim is the email; there is no second choice.
func TestS56_EmailClaim(t *testing.T) {
	upn := func(issuer string) func(*idptest.Options, *Config) {
		return func(o *idptest.Options, c *Config) {
			at(issuer)(o, c)
			c.EmailClaim = "upn"
			who := ana
			who.EmailVerified = nil
			o.People = []idptest.Person{who}
		}
	}
	w := newWorld(t, upn(entra))
	_, err := w.signIn()
	wantCause(t, err, CauseEmail) // although there is a claim email
	if !serval.IsRefusal(err, serval.FailedPrecondition) {
		t.Errorf("no task of an admin's: %v", err)
	}

	w = newWorld(t, upn(entra))
	w.idp.Misbehave(set("upn", "ana.upn@example.com"))
	if id, err := w.signIn(); err != nil || id.Email != "ana.upn@example.com" {
		t.Errorf("email %q, %v, want the claim that was chosen", id.Email, err)
	}

	w = newWorld(t, upn(entra))
	w.idp.Misbehave(func(m *idptest.Misbehaviour) {
		m.Claims = func(c map[string]any) {
			c["upn"] = "ana.upn@example.com"
			c["email_verified"] = false
		}
	})
	_, err = w.signIn()
	wantCause(t, err, CauseEmailVerified) // false refuses always
}

// S-54: the identity is issuer and subject; two subjects with one email are two.
func TestS54_TwoSubjectsOneEmail(t *testing.T) {
	w := newWorld(t, nil)
	first, err := w.signIn()
	if err != nil {
		t.Fatal(err)
	}
	w.idp.Misbehave(set("sub", "00u9new5678"))
	second, err := w.signIn()
	if err != nil {
		t.Fatal(err)
	}
	if first.Subject == second.Subject || first.Email != second.Email {
		t.Errorf("subjects %q and %q with emails %q and %q, want two subjects and one email", first.Subject, second.Subject, first.Email, second.Email)
	}
}

// S-58: missing and overflowing groups are named, and are no groups.
func TestS58_Groups(t *testing.T) {
	noGroups := func(m *idptest.Misbehaviour) { m.UserInfo = func(c map[string]any) { delete(c, "groups") } }
	source := `"_claim_names":{"groups":"src1"},"_claim_sources":{"src1":{"endpoint":"https://graph.example.com"}}`
	tests := []struct {
		name   string
		wrong  func(*idptest.Misbehaviour)
		groups []string
		note   string // a part of it; "" wants none
	}{
		{"there", nil, ana.Groups, ""},
		{"none", set("groups", []string{}), nil, ""},
		{"one, as a text", set("groups", "engineering"), []string{"engineering"}, ""},
		{"absent", both(set("groups", nil), noGroups), nil, "no claim"},
		{"absent, and UserInfo knows them", set("groups", nil), ana.Groups, ""},
		{"absent, and UserInfo does not answer", both(set("groups", nil), func(m *idptest.Misbehaviour) {
			m.AtUserInfo = idptest.Answer{Status: 500, Body: "x"}
		}), nil, "did not answer"},
		{"absent, and UserInfo's answer cannot be read", both(set("groups", nil), func(m *idptest.Misbehaviour) {
			m.AtUserInfo = idptest.Answer{Body: "<html>"}
		}), nil, "did not answer"},
		{"null", replace(`"groups":["engineering","sre"]`, `"groups":null`), nil, "not a list of texts"},
		{"numbers", set("groups", []int{1, 2}), nil, "not a list of texts"},
		{"nothing among texts", set("groups", []any{"engineering", nil}), nil, "not a list of texts"},
		{"absent, and UserInfo knows them and another email", both(set("groups", nil), func(m *idptest.Misbehaviour) {
			m.UserInfo = func(c map[string]any) { c["email"] = "bob@example.com" }
		}), ana.Groups, ""},
		{"object", set("groups", map[string]any{"a": 1}), nil, "not a list of texts"},
		{"overflow by claim source", func(m *idptest.Misbehaviour) {
			set("groups", nil)(m)
			insert(source)(m)
		}, nil, "more groups than"},
		{"overflow by hasgroups", func(m *idptest.Misbehaviour) {
			set("groups", nil)(m)
			insert(`"hasgroups":true`)(m)
		}, nil, "more groups than"},
		{"absent, and hasgroups is false", both(set("groups", nil), noGroups, insert(`"hasgroups":false`)), nil, "no claim"},
		{"overflow by hasgroups as a text", func(m *idptest.Misbehaviour) {
			set("groups", nil)(m)
			insert(`"hasgroups":"true"`)(m)
		}, nil, "more groups than"},
		{"overflow beats a part", insert(source), nil, "more groups than"},
		{"another claim's source", insert(strings.Replace(source, "groups", "photos", 1)), ana.Groups, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			if tt.wrong != nil {
				w.idp.Misbehave(tt.wrong)
			}
			id, err := w.signIn()
			if err != nil {
				t.Fatalf("signing in: %v", err)
			}
			if !slices.Equal(id.Groups, tt.groups) {
				t.Errorf("groups %q, want %q", id.Groups, tt.groups)
			}
			if (id.GroupsNote == "") != (tt.note == "") || !strings.Contains(id.GroupsNote, tt.note) {
				t.Errorf("note %q, want one with %q", id.GroupsNote, tt.note)
			}
			if strings.HasPrefix(tt.name, "overflow") && w.idp.Calls("userinfo") != 0 {
				t.Error("UserInfo was asked for groups that are too many")
			}
		})
	}
}

// S-58: Okta puts a hundred groups into a claim at most, and does not say so.
func TestS58_OktaGroups(t *testing.T) {
	for issuer, noted := range map[string]bool{"https://acme.okta.com": true, "https://idp.example.com": false} {
		for _, n := range []int{99, 100} {
			w := newWorld(t, func(o *idptest.Options, c *Config) { o.Issuer, c.Issuer = issuer, issuer })
			w.idp.Misbehave(set("groups", manyGroups(n)))
			id, err := w.signIn()
			if want := noted && n == 100; err != nil || len(id.Groups) != n || (id.GroupsNote != "") != want {
				t.Errorf("%d groups of %s: %d and the note %q, %v; want a note: %t", n, issuer, len(id.Groups), id.GroupsNote, err, want)
			}
		}
	}
}

// The person that UserInfo speaks of is the ID token's, also where only the
// groups are asked for. S-57
func TestUserInfoOfAnotherPerson(t *testing.T) {
	w := newWorld(t, nil)
	w.idp.Misbehave(both(set("groups", nil), func(m *idptest.Misbehaviour) {
		m.UserInfo = func(c map[string]any) { c["sub"] = "00u2bob5678" }
	}))
	_, err := w.signIn()
	wantCause(t, err, CauseUserInfo)
}

// S-33: a subject that AWS may not take is noted.
func TestS33_ShortSubject(t *testing.T) {
	for sub, noted := range map[string]bool{"12345": true, "123456": false} {
		w := newWorld(t, nil)
		w.idp.Misbehave(set("sub", sub))
		id, err := w.signIn()
		if err != nil || (id.SubjectNote != "") != noted {
			t.Errorf("subject %q: note %q, %v, want a note: %t", sub, id.SubjectNote, err, noted)
		}
	}
}
