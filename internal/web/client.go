package web

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/pages"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// bearer returns the token that a request of the API carries: of a client, or of
// a worker. A request with one is judged by it alone, whatever its cookies say.
func bearer(r *http.Request) (token serval.Secret, present bool) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 || !strings.HasPrefix(r.URL.Path, "/api/") {
		return serval.Secret{}, false
	}
	scheme, text, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return serval.Secret{}, true
	}
	return serval.NewSecret(text), true
}

// clientParameters are those of the consent page: an authorization request of
// RFC 6749 for the one client that there is.
var clientParameters = []string{"response_type", "client_id", "client_name", "client_host", "redirect_uri", "state", "code_challenge", "code_challenge_method"}

// clientAsk returns what a client asks, if it is an authorization request that
// could be granted. Nobody is redirected to what has not been checked.
func clientAsk(values url.Values) (ask serval.ClientAsk, origin string, err error) {
	for name, want := range map[string]string{"response_type": "code", "client_id": serval.ClientID, "code_challenge_method": "S256"} {
		if values.Get(name) != want {
			return ask, "", edge.Refuse(serval.Invalid, "%s must be %s.", name, want)
		}
	}
	ask = serval.ClientAsk{
		Name: values.Get("client_name"), Host: values.Get("client_host"), Challenge: values.Get("code_challenge"),
		RedirectURI: values.Get("redirect_uri"), State: values.Get("state"),
	}
	if err := ask.Check(); err != nil {
		return ask, "", err
	}
	origin, err = serval.LoopbackOrigin(ask.RedirectURI)
	return ask, origin, err
}

// clientPage asks whoever is signed in whether a client may act for them; others
// sign in first, and come back here.
func (s *Server) clientPage(w http.ResponseWriter, r *http.Request, v *visit) error {
	values, err := edge.Query(r, clientParameters...)
	if err != nil {
		return err
	}
	ask, origin, err := clientAsk(values)
	if err != nil {
		return err
	}
	if v.who.Kind != serval.KindPerson {
		return s.redirect(w, loginPath(s.returnTo(r.URL.RequestURI()), ""))
	}
	return s.pages.ShowClient(w, v.page(), ask, origin, clientParameters, values)
}

// postClient lets a client in, or not, and tells it so on its own machine: with a
// code that is of use only to who has the verifier.
func (s *Server) postClient(w http.ResponseWriter, r *http.Request, v *visit) error {
	values, err := edge.Form(r)
	if err != nil {
		return err
	}
	ask, _, err := clientAsk(values)
	if err != nil {
		return err
	}
	answer := url.Values{"state": {ask.State}, "iss": {s.origin.String()}} // RFC 9207
	switch values.Get("decision") {
	case "approve":
		code, err := s.c.Logins.ApproveClient(r.Context(), v.who, ask)
		if err != nil {
			return err
		}
		answer.Set("code", code.Reveal())
	case "deny":
		if err := s.c.Logins.DenyClient(r.Context(), v.who, ask); err != nil {
			return err
		}
		answer.Set("error", "access_denied")
	default:
		return edge.Refuse(serval.Invalid, "The decision is approve or deny.")
	}
	w.Header().Set("Location", ask.RedirectURI+"?"+answer.Encode())
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// The grants by which a client gets its token.
const (
	codeGrant   = "authorization_code"
	deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"
)

// clientToken answers POST /api/v1/client/token.
func (s *Server) clientToken(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := s.returns.Take(v.who.Address, s.c.Now()); err != nil {
		return err
	}
	var ask wire.NewClientToken
	if err := edge.Decode(r, &ask); err != nil {
		return err
	}
	verifier := serval.NewSecret(ask.CodeVerifier)
	var in signin.SignedIn
	var err error
	switch {
	case ask.GrantType == codeGrant && ask.DeviceCode == "":
		in, err = s.c.Logins.SignInClient(r.Context(), v.who, serval.NewSecret(ask.Code), verifier, ask.RedirectURI)
	case ask.GrantType == deviceGrant && s.c.DeviceLogin && ask.Code == "" && ask.RedirectURI == "":
		in, err = s.c.Logins.PollDevice(r.Context(), v.who, serval.NewSecret(ask.DeviceCode), verifier)
	default:
		return edge.Refuse(serval.Invalid, "grant_type is %s with code, redirect_uri and code_verifier%s.", codeGrant,
			map[bool]string{true: ", or " + deviceGrant + " with device_code and code_verifier"}[s.c.DeviceLogin])
	}
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.ClientToken{
		AccessToken: in.Token.Reveal(), TokenType: "Bearer", ExpiresIn: int(in.EndsAt.Sub(s.c.Now()).Seconds()),
		EndsAt: wire.Time{Time: in.EndsAt}, LoginID: in.LoginID, Email: in.Person.Email,
	})
}

// startDevice answers POST /api/v1/client/device. What is typed is not in the
// address: whoever lets a device in has to see what it shows.
func (s *Server) startDevice(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := s.logins.Take(v.who.Address, s.c.Now()); err != nil {
		return err
	}
	var ask wire.NewDevice
	if err := edge.Decode(r, &ask); err != nil {
		return err
	}
	d, err := s.c.Logins.StartDevice(r.Context(), v.who, serval.ClientAsk{Name: ask.ClientName, Host: ask.ClientHost, Challenge: ask.CodeChallenge})
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.Device{
		DeviceCode: d.Code.Reveal(), UserCode: d.Typed[:signin.TypedLength/2] + "-" + d.Typed[signin.TypedLength/2:],
		VerificationURI: s.origin.String() + "/device", ExpiresIn: int(d.EndsAt.Sub(s.c.Now()).Seconds()), Interval: int(d.Interval.Seconds()),
	})
}

// devicePage shows where the code of a device is typed.
func (s *Server) devicePage(w http.ResponseWriter, r *http.Request, v *visit) error {
	values, err := edge.Query(r, "said")
	if err != nil {
		return err
	}
	return s.pages.ShowDevice(w, v.page(), http.StatusOK, pages.DeviceLogin{Said: values.Get("said")})
}

// postDevice shows what is known of the device for which a code was typed.
func (s *Server) postDevice(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := s.logins.Take(v.who.Address, s.c.Now()); err != nil { // nobody tries codes
		return err
	}
	values, err := edge.Form(r)
	if err != nil {
		return err
	}
	typed := values.Get("user_code")
	d, err := s.c.Logins.Device(r.Context(), v.who, typed)
	if refused, ok := errors.AsType[*serval.Refusal](err); ok && refused.Kind == serval.NotFound {
		return s.pages.ShowDevice(w, v.page(), http.StatusNotFound, pages.DeviceLogin{Wrong: refused.Reason})
	}
	if err != nil {
		return err
	}
	return s.pages.ShowDevice(w, v.page(), http.StatusOK, pages.DeviceLogin{Typed: typed, Device: &d})
}

// postDeviceDecision lets a device in, or not.
func (s *Server) postDeviceDecision(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := s.logins.Take(v.who.Address, s.c.Now()); err != nil {
		return err
	}
	values, err := edge.Form(r)
	if err != nil {
		return err
	}
	decide, said := s.c.Logins.DenyDevice, "denied"
	switch values.Get("decision") {
	case "approve":
		decide, said = s.c.Logins.ApproveDevice, "approved"
	case "deny":
	default:
		return edge.Refuse(serval.Invalid, "The decision is approve or deny.")
	}
	if err := decide(r.Context(), v.who, values.Get("user_code")); err != nil {
		return err
	}
	return s.redirect(w, "/device?said="+said)
}
