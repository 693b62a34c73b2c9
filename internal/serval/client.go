package serval

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"net/url"
	"strconv"
)

// A ClientAsk is a client on somebody's machine that asks to be let in under
// their name: an authorization request of RFC 6749, section 4.1.1, from a native
// app as RFC 8252 has it, or of RFC 8628 for a device.
type ClientAsk struct {
	Name        string // what the client calls itself, such as "serval 1.2"
	Host        string // what its machine is called; both are shown to the person, and prove nothing
	Challenge   string // PKCE, S256 (RFC 7636)
	RedirectURI string // a listener of the client's on loopback; empty for a device
	State       string // of the client's, handed back; empty for a device
}

// ClientID is the one client that there is.
const ClientID = "serval"

var (
	challengeForm = formOf(`^[A-Za-z0-9_-]+$`, 43, 43)
	verifierForm  = formOf(`^[A-Za-z0-9._~-]+$`, 43, 128)
	stateForm     = formOf(`^[A-Za-z0-9._~-]+$`, 16, 128)
	callbackForm  = formOf(`^/[A-Za-z0-9_-]*$`, 1, 65)
	labelForm     = formOf(`^[A-Za-z0-9][A-Za-z0-9 ._+/()-]*$`, 1, 64)
)

// Check returns what is wrong with what a client asks.
func (c ClientAsk) Check() error {
	if err := c.checkNames(); err != nil {
		return err
	}
	if _, err := LoopbackOrigin(c.RedirectURI); err != nil {
		return err
	}
	if !stateForm.fits(c.State) {
		return Refuse(Invalid, "state has 16 to 128 characters of A-Z, a-z, 0-9, dot, dash, underscore and tilde.")
	}
	return nil
}

// CheckDevice returns what is wrong with what a device asks.
func (c ClientAsk) CheckDevice() error {
	if c.RedirectURI != "" || c.State != "" {
		return Refuse(Invalid, "A device is not redirected to.")
	}
	return c.checkNames()
}

func (c ClientAsk) checkNames() error {
	if !challengeForm.fits(c.Challenge) {
		return Refuse(Invalid, "code_challenge is the SHA-256 of the verifier, base64url without padding: 43 characters.")
	}
	for name, text := range map[string]string{"client_name": c.Name, "client_host": c.Host} {
		if !labelForm.fits(text) {
			return Refuse(Invalid, "%s has 1 to 64 characters of A-Z, a-z, 0-9, space and ._+/()-, and begins with a letter or digit.", name)
		}
	}
	return nil
}

// LoopbackOrigin returns the origin of a redirect URI that leads to a listener
// on the person's own machine: http, 127.0.0.1 or [::1] and never a name, which
// somebody else could resolve, a port, and a short plain path (RFC 8252, sections
// 7.3 and 8.3).
func LoopbackOrigin(uri string) (string, error) {
	refused := Refuse(Invalid, "redirect_uri is http://127.0.0.1:PORT/PATH or http://[::1]:PORT/PATH, with a path of letters, digits, - and _.")
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" || u.Hostname() != "127.0.0.1" && u.Hostname() != "::1" || !callbackForm.fits(u.Path) {
		return "", refused
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		return "", refused
	}
	origin := "http://" + u.Host
	if origin+u.Path != uri { // nothing else is in it, in whatever way it is written
		return "", refused
	}
	return origin, nil
}

// Challenge returns the S256 challenge of a PKCE verifier; empty for a text
// that is none (RFC 7636, sections 4.1 and 4.2).
func Challenge(verifier Secret) string {
	if !verifierForm.fits(verifier.Reveal()) {
		return ""
	}
	sum := sha256.Sum256([]byte(verifier.Reveal()))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// NetworkOf returns what is counted as one line to the internet: an IPv4
// address, and of IPv6 its /64. It is empty for what is no address.
func NetworkOf(address string) string { return prefix(address, 32, 64) }

// SiteOf returns what one subscriber of the internet may have all of: an IPv4
// address, and of IPv6 its /48. It is empty for what is no address.
func SiteOf(address string) string { return prefix(address, 32, 48) }

// IsNear reports whether two addresses are of one /24, or of one /64 in IPv6: as
// near as a laptop and its owner's browser are.
func IsNear(one, other string) bool {
	near := prefix(one, 24, 64)
	return near != "" && near == prefix(other, 24, 64)
}

// prefix returns the network of an address: so many bits of IPv4, or of IPv6.
func prefix(address string, four, six int) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	a = a.Unmap().WithZone("")
	bits := four
	if a.Is6() {
		bits = six
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	if a.Is4() && bits == 32 {
		return a.String()
	}
	return p.String()
}
