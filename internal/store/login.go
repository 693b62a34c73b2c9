package store

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// A Login is a browser or client that a person is signed in with. Token is the
// digest of what it holds.
type Login struct {
	ID        string
	Token     string
	PersonID  string
	Kind      string // BrowserLogin or ClientLogin
	CreatedAt time.Time
	SeenAt    time.Time
	ExpiresAt time.Time
	EndedAt   time.Time
	Address   string
	Agent     string
	IDToken   IDToken // that it stands on
}

// The kinds of logins.
const (
	BrowserLogin = "browser"
	ClientLogin  = "client"
)

const selectLogin = `select login.id, login.token, login.person_id, login.kind, login.created_at, login.seen_at, login.expires_at, login.ended_at,
	login.address, login.agent, ` + idTokenColumns + ` from login join id_token on id_token.id = login.id_token_id`

func scanLogin(row scanner) (Login, error) {
	var l Login
	var created, seen, expires, ended int64
	var t idTokenRow
	err := row.Scan(append([]any{&l.ID, &l.Token, &l.PersonID, &l.Kind, &created, &seen, &expires, &ended, &l.Address, &l.Agent}, t.columns()...)...)
	if err != nil {
		return Login{}, fmt.Errorf("reading a login: %w", err)
	}
	l.CreatedAt, l.SeenAt, l.ExpiresAt, l.EndedAt = instant(created), instant(seen), instant(expires), instant(ended)
	l.IDToken = t.token()
	return l, nil
}

// CreateLogin keeps a new login; its ID token is kept already. What a browser
// calls itself is kept as far as it is text.
func (t *Tx) CreateLogin(l Login) error {
	return t.exec("keeping a login", `insert into login
		(id, token, person_id, kind, created_at, seen_at, expires_at, ended_at, address, agent, id_token_id)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		l.ID, l.Token, l.PersonID, l.Kind, micros(l.CreatedAt), micros(l.SeenAt), micros(l.ExpiresAt), micros(l.EndedAt),
		l.Address, asText(l.Agent), l.IDToken.ID)
}

// asText returns what a stranger wrote as text that both databases keep.
func asText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// LoginByToken returns the login whose token has the digest, ended or not.
func (v *View) LoginByToken(digest string) (Login, error) {
	l, err := remember(v, source{"login", []string{"login", "id_token"}}, digest, func() (Login, error) {
		return one(v, "You are not signed in.", scanLogin, selectLogin+` where login.token = $1`, digest)
	})
	if err == nil && l.Token != digest {
		// A cancelled query could have given another's row (CVE-2025-47907).
		return Login{}, fmt.Errorf("reading a login: the database answered with another row")
	}
	return l, err
}

// Login returns the person's login with the id, ended or not.
func (v *View) Login(personID, id string) (Login, error) {
	return one(v, "There is no such login.", scanLogin, loginOfPerson, id, personID)
}

// LoginByID returns the login with the id, whoever's it is, ended or not.
func (v *View) LoginByID(id string) (Login, error) {
	return one(v, "There is no such login.", scanLogin, selectLogin+` where login.id = $1`, id)
}

// Logins returns the person's logins that have not ended, newest first.
func (v *View) Logins(personID string, now time.Time) ([]Login, error) {
	return all(v, scanLogin, selectLogin+`
		where login.person_id = $1 and login.ended_at = 0 and login.expires_at > $2 order by login.created_at desc, login.id`, personID, micros(now))
}

// TouchLogin notes that a login was used. It is not an act: no chain is taken.
func (s *Store) TouchLogin(ctx context.Context, id string, now time.Time) error {
	err := s.alone(ctx, `update login set seen_at = $2 where id = $1 and seen_at < $2`, id, micros(now))
	if err != nil {
		return fmt.Errorf("noting that a login was used: %w", err)
	}
	return nil
}

// EndLogin ends a login of the person, and wipes the tokens that no other login
// stands on; found is false where there is none that could be ended.
func (t *Tx) EndLogin(personID, id string) (found bool, err error) {
	n, err := t.execCount("ending a login", `update login set ended_at = $3 where id = $1 and person_id = $2 and ended_at = 0`,
		id, personID, micros(t.Now))
	if err != nil || n == 0 {
		return false, err
	}
	return true, t.exec("wiping the tokens of a login", `update id_token set sealed = '', refresh = ''
		where id = (select id_token_id from login where id = $1) and not exists
		(select 1 from login where id_token_id = id_token.id and ended_at = 0 and expires_at > $2)`, id, micros(t.Now))
}
