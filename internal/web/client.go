package web

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
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
			return ask, "", serval.Refuse(serval.Invalid, "%s must be %s.", name, want)
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

// A clientView is the consent page.
type clientView struct {
	Ask    serval.ClientAsk
	Email  string
	Fields []fact // of the form: what the client asked, as it asked
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
	view := clientView{Ask: ask, Email: v.who.Person.Email}
	for _, name := range clientParameters {
		view.Fields = append(view.Fields, fact{name, values.Get(name)})
	}
	s.allowFormTo(w, origin)
	return s.show(w, v, http.StatusOK, "client", "Sign in a client", view)
}

// allowFormTo lets the forms of a page lead to another origin by a redirect,
// which the policy of all other pages forbids. An IPv6 address cannot be written
// in a policy, only its scheme.
func (s *Server) allowFormTo(w http.ResponseWriter, origin string) {
	if strings.Contains(origin, "[") {
		origin = "http:"
	}
	const own = "form-action 'self'"
	h := w.Header()
	h.Set("Content-Security-Policy", strings.Replace(h.Get("Content-Security-Policy"), own, own+" "+origin, 1))
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
		code, err := s.c.Plane.ApproveClient(r.Context(), v.who, ask)
		if err != nil {
			return err
		}
		answer.Set("code", code.Reveal())
	case "deny":
		if err := s.c.Plane.DenyClient(r.Context(), v.who, ask); err != nil {
			return err
		}
		answer.Set("error", "access_denied")
	default:
		return serval.Refuse(serval.Invalid, "The decision is approve or deny.")
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
	var in control.SignedIn
	var err error
	switch {
	case ask.GrantType == codeGrant && ask.DeviceCode == "":
		in, err = s.c.Plane.SignInClient(r.Context(), v.who, serval.NewSecret(ask.Code), verifier, ask.RedirectURI)
	case ask.GrantType == deviceGrant && s.c.DeviceLogin && ask.Code == "" && ask.RedirectURI == "":
		in, err = s.c.Plane.PollDevice(r.Context(), v.who, serval.NewSecret(ask.DeviceCode), verifier)
	default:
		return serval.Refuse(serval.Invalid, "grant_type is %s with code, redirect_uri and code_verifier%s.", codeGrant,
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
	d, err := s.c.Plane.StartDevice(r.Context(), v.who, serval.ClientAsk{Name: ask.ClientName, Host: ask.ClientHost, Challenge: ask.CodeChallenge})
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.Device{
		DeviceCode: d.Code.Reveal(), UserCode: d.Typed[:serval.TypedLength/2] + "-" + d.Typed[serval.TypedLength/2:],
		VerificationURI: s.origin.String() + "/device", ExpiresIn: int(d.EndsAt.Sub(s.c.Now()).Seconds()), Interval: int(d.Interval.Seconds()),
	})
}

// A deviceView is the page on which a device is let in: what it shows is typed,
// then what is known of it is looked at.
type deviceView struct {
	Typed  string
	Device *control.Device

	StartedAt wire.Time

	Email string
	Here  string // the address that the person is at
	Said  string // approved or denied, just now
	Wrong string
}

// devicePage shows where the code of a device is typed.
func (s *Server) devicePage(w http.ResponseWriter, r *http.Request, v *visit) error {
	values, err := edge.Query(r, "said")
	if err != nil {
		return err
	}
	said := values.Get("said")
	if said != "approved" && said != "denied" {
		said = ""
	}
	return s.show(w, v, http.StatusOK, "device", "Sign in a device", deviceView{Said: said})
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
	d, err := s.c.Plane.Device(r.Context(), v.who, typed)
	if refused, ok := errors.AsType[*serval.Refusal](err); ok && refused.Kind == serval.NotFound {
		return s.show(w, v, http.StatusNotFound, "device", "Sign in a device", deviceView{Wrong: refused.Reason})
	}
	if err != nil {
		return err
	}
	return s.show(w, v, http.StatusOK, "device", "Sign in a device", deviceView{Typed: typed, Device: &d, StartedAt: wire.Time{Time: d.StartedAt}, Email: v.who.Person.Email, Here: v.who.Address})
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
	decide, said := s.c.Plane.DenyDevice, "denied"
	switch values.Get("decision") {
	case "approve":
		decide, said = s.c.Plane.ApproveDevice, "approved"
	case "deny":
	default:
		return serval.Refuse(serval.Invalid, "The decision is approve or deny.")
	}
	if err := decide(r.Context(), v.who, values.Get("user_code")); err != nil {
		return err
	}
	return s.redirect(w, "/device?said="+said)
}
