package signin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// How long things last.
const (
	loginLife    = 8 * time.Hour
	loginIdle    = 30 * time.Minute
	touchEvery   = time.Minute
	tokenMargin  = 60 * time.Second // that an ID token has to have left
	maxAgentText = 200
)

// An Identity is what the identity provider said, verified.
type Identity struct {
	Issuer     string
	Subject    string
	Email      string
	Groups     []string
	GroupsNote string // why groups are missing; empty where they are not
	IDToken    serval.Secret
	ExpiresAt  time.Time // of the ID token

	AuthorizedParty string        // the ID token's claim azp; empty where it has none
	AWSClaims       []string      // of the ID token: what AWS makes session tags or a source identity of
	AuthTime        time.Time     // of the sign-in at the provider; zero where it does not say
	RefreshToken    serval.Secret // empty where there is none
}

// A SignedIn is a login that was just made. Token is what the browser or client
// holds from now on; the store has its digest.
type SignedIn struct {
	LoginID  string
	Token    serval.Secret
	Person   serval.Person
	ReturnTo string
	EndsAt   time.Time
}

// SignIn takes the attempt of state and browser, once, has identify ask the
// identity provider, and opens a login for whoever it names. A second call for
// the same attempt, at the same time or later, is refused and asks nobody.
func (s *Logins) SignIn(ctx context.Context, who serval.Principal, state, browser serval.Secret, agent string,
	identify func(context.Context, Attempt) (Identity, error)) (SignedIn, error) {
	row := state.Digest()
	kept, err := s.door.Store.TakeAttempt(ctx, s.now(), row, browser.Digest())
	if err != nil {
		s.door.Refused(ctx, who, serval.LoginCreate, "", err)
		return SignedIn{}, err
	}
	// A crash here costs the person a new sign-in and nothing else.
	opened, err := s.sealer.Load().open(kept.Sealed, row)
	if err != nil {
		s.door.Log.Warn("a sealed login attempt does not open", zap.Error(err))
		err = serval.Refuse(serval.NotFound, "This sign-in was begun before the server's secret changed. Start again.")
		s.door.Refused(ctx, who, serval.LoginCreate, "", err)
		return SignedIn{}, err
	}
	secrets := split(opened)
	if len(secrets) != 5 {
		return SignedIn{}, fmt.Errorf("a login attempt holds %d texts, want 5", len(secrets))
	}
	back := Attempt{Issuer: secrets[2].Reveal(), Nonce: secrets[0], Verifier: secrets[1], Subject: secrets[3].Reveal(), ReturnTo: secrets[4].Reveal(), CreatedAt: kept.CreatedAt}
	id, err := identify(ctx, back)
	if err == nil && back.Subject != "" && id.Subject != back.Subject {
		err = serval.Refuse(serval.LoginRequired, "Somebody else is signed in at the identity provider now. Please sign in again.")
	}
	if err != nil {
		s.door.Refused(ctx, who, serval.LoginCreate, "", err)
		return SignedIn{}, err
	}

	s.noteAWSClaims(id.AWSClaims)

	in := SignedIn{Token: door.NewToken(), ReturnTo: back.ReturnTo}
	loginID := door.NewID("login")
	in.LoginID = loginID
	err = s.act(ctx, who, serval.LoginCreate, loginID, func(tx *store.Tx, e *serval.Event) error {
		known, err := s.recogniseIdentity(tx, id)
		if err != nil {
			return err
		}
		in.Person, in.EndsAt = known, tx.Now.Add(loginLife)
		e.ActorKind, e.ActorID, e.Actor = serval.KindPerson, known.ID, known.Email
		e.Detail = identityDetail(id, known)
		given := s.sealed(door.NewID("token"), id, tx.Now)
		if err := tx.SaveIDToken(given); err != nil {
			return err
		}
		return tx.CreateLogin(store.Login{
			ID: loginID, Token: in.Token.Digest(), PersonID: known.ID, Kind: store.BrowserLogin,
			CreatedAt: tx.Now, SeenAt: tx.Now, ExpiresAt: in.EndsAt, Address: who.Address, Agent: serval.Cut(agent, maxAgentText), IDToken: given,
		})
	})
	if err != nil {
		return SignedIn{}, err
	}
	return in, nil
}

// refreshRow is appended to the row that a refresh token is sealed for.
const refreshRow = " refresh"

// sealed returns what the provider gave as it is kept, in the row with the id.
func (s *Logins) sealed(row string, id Identity, now time.Time) store.IDToken {
	k := store.IDToken{
		ID: row, Sealed: s.sealer.Load().seal(id.IDToken, row), EndsAt: id.ExpiresAt,
		AuthTime: id.AuthTime, RefreshedAt: now,
	}
	if !id.RefreshToken.Empty() {
		k.Refresh = s.sealer.Load().seal(id.RefreshToken, row+refreshRow)
	}
	return k
}

// recogniseIdentity returns the person behind an identity, making one at the
// first login. Issuer and subject are who they are. An email that changed, or
// that another subject already has, lets them in and suspends their sessions:
// a mailbox given to somebody else must not inherit anything.
func (s *Logins) recogniseIdentity(tx *store.Tx, id Identity) (serval.Person, error) {
	who, err := tx.PersonBySubject(id.Issuer, id.Subject)
	switch {
	case serval.IsRefusal(err, serval.NotFound):
		who = serval.Person{ID: door.NewID("person"), Issuer: id.Issuer, Subject: id.Subject, Email: id.Email, CreatedAt: tx.Now}
		same, err := tx.PeopleByEmail(id.Email)
		if err != nil {
			return serval.Person{}, err
		}
		if len(same) > 0 {
			who.Suspended = "Another identity at the identity provider already has the email " + id.Email + ". An admin has to say that both are you."
		}
	case err != nil:
		return serval.Person{}, err
	case serval.SameEmail(who.Email, id.Email):
		who.NewEmail = "" // whoever went back to it stays suspended all the same
	default:
		who.NewEmail = id.Email
		who.Suspended = "Your email was " + who.Email + " and is " + id.Email + " now. An admin has to say that both are you."
	}
	who.Groups, who.GroupsAt, who.GroupsNote, who.AuthorizedParty = id.Groups, tx.Now, id.GroupsNote, id.AuthorizedParty
	return who, tx.SavePerson(who)
}

// identityDetail is what the record says of a sign-in, or of a refresh.
func identityDetail(id Identity, known serval.Person) map[string]string {
	d := map[string]string{"issuer": id.Issuer, "subject": id.Subject}
	if id.GroupsNote != "" {
		d["groups"] = id.GroupsNote
	}
	if known.Suspended != "" {
		d["suspended"] = known.Suspended
	}
	if len(id.AWSClaims) > 0 {
		d["aws_claims"] = strings.Join(id.AWSClaims, " ")
	}
	return d
}

// noteAWSClaims warns, once for each set of them, of claims that change what AWS
// asks of every role.
func (s *Logins) noteAWSClaims(names []string) {
	said := strings.Join(names, " ")
	if before := s.awsClaims.Swap(&said); said == "" || before != nil && *before == said {
		return
	}
	s.door.Log.Warn("the identity provider's ID tokens carry session tags or a source identity for AWS: every role must allow sts:TagSession, "+
		"or sts:SetSourceIdentity, in its trust policy, or it refuses everybody; take the claims out of the app if nobody needs them",
		zap.Strings("claims", names))
}

// A Login is a login, recognised.
type Login struct {
	ID            string
	EndsAt        time.Time
	IDTokenEndsAt time.Time
}

// Recognise returns who holds the token of a browser's login, with the request
// id and address of who asks. Nobody, or a login that has ended or was idle for
// half an hour, is refused as unauthenticated.
func (s *Logins) Recognise(ctx context.Context, who serval.Principal, token serval.Secret) (serval.Principal, Login, error) {
	return s.recognise(ctx, who, token, store.BrowserLogin)
}

// RecogniseClient is Recognise for the token of a client, which may be idle: it
// is used whenever some program on the laptop needs credentials.
func (s *Logins) RecogniseClient(ctx context.Context, who serval.Principal, token serval.Secret) (serval.Principal, Login, error) {
	return s.recognise(ctx, who, token, store.ClientLogin)
}

// recognise returns who holds the token of a login of one kind; one of the other
// kind is nobody's.
func (s *Logins) recognise(ctx context.Context, who serval.Principal, token serval.Secret, kind string) (serval.Principal, Login, error) {
	refused := serval.Refuse(serval.Unauthenticated, "You are not signed in.")
	who = serval.Principal{RequestID: who.RequestID, Address: who.Address}
	if token.Empty() {
		return who, Login{}, refused
	}
	now := s.now()
	var l store.Login
	var known serval.Person
	err := s.view(ctx, who, serval.LoginRead, "", func(v *store.View) (err error) {
		l, err = v.LoginByToken(token.Digest())
		idle := l.Kind == store.BrowserLogin && now.Sub(l.SeenAt) >= loginIdle
		if serval.IsRefusal(err) || err == nil && (l.Kind != kind || idle || !l.EndedAt.IsZero() || !now.Before(l.ExpiresAt)) {
			return refused
		}
		if err != nil {
			return err
		}
		known, err = v.Person(l.PersonID)
		return err
	})
	if err != nil {
		return who, Login{}, err
	}
	if now.Sub(l.SeenAt) >= touchEvery {
		if err := s.door.Store.TouchLogin(ctx, l.ID, now); err != nil {
			s.door.Log.Warn("a login's use could not be noted", zap.Error(err))
		}
	}
	who.Kind, who.Person, who.LoginID = serval.KindPerson, known, l.ID
	// Whoever is suspended may not be who their email says.
	appointed := s.appointed.Load()
	who.Admin = known.Suspended == "" && appointed.admins.Include(known)
	who.Auditor = known.Suspended == "" && appointed.auditors.Include(known)
	return who, Login{ID: l.ID, EndsAt: l.ExpiresAt, IDTokenEndsAt: l.IDToken.EndsAt}, nil
}

// Logins returns the logins that who is signed in with, without what they hold.
func (s *Logins) List(ctx context.Context, who serval.Principal) (logins []store.Login, err error) {
	err = s.view(ctx, who, serval.LoginList, "", func(v *store.View) error {
		logins, err = v.Logins(who.Person.ID, s.now())
		for i := range logins {
			logins[i].Token, logins[i].IDToken = "", store.IDToken{}
		}
		return err
	})
	return logins, err
}

// EndLogin ends one of who's logins; their own is signing out.
func (s *Logins) End(ctx context.Context, who serval.Principal, id string) error {
	return s.act(ctx, who, serval.LoginEnd, id, func(tx *store.Tx, e *serval.Event) error {
		found, err := tx.EndLogin(who.Person.ID, id)
		if err == nil && !found {
			err = serval.Refuse(serval.NotFound, "There is no such login.")
		}
		return err
	})
}
