package pages

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A clientView is the consent page.
type clientView struct {
	Ask    serval.ClientAsk
	Email  string
	Fields []fact // of the form: what the client asked, as it asked
}

// ShowClient asks whoever is signed in whether a client may act for them. Its form
// sends the named parameters back as they came, and may lead to origin.
func (p *Pages) ShowClient(w http.ResponseWriter, v *Visit, ask serval.ClientAsk, origin string, names []string, values url.Values) error {
	view := clientView{Ask: ask, Email: v.Who.Person.Email}
	for _, name := range names {
		view.Fields = append(view.Fields, fact{name, values.Get(name)})
	}
	allowFormTo(w, origin)
	return p.show(w, v, http.StatusOK, "client", "Sign in a client", view)
}

// allowFormTo lets the forms of a page lead to another origin by a redirect,
// which the policy of all other pages forbids. An IPv6 address cannot be written
// in a policy, only its scheme.
func allowFormTo(w http.ResponseWriter, origin string) {
	if strings.Contains(origin, "[") {
		origin = "http:"
	}
	const own = "form-action 'self'"
	h := w.Header()
	h.Set("Content-Security-Policy", strings.Replace(h.Get("Content-Security-Policy"), own, own+" "+origin, 1))
}

// A DeviceLogin is what the page shows on which a device is let in: what the device
// shows is typed, then what is known of it is looked at.
type DeviceLogin struct {
	Typed  string
	Device *signin.Device
	Said   string // approved or denied, just now; nothing else is shown
	Wrong  string
}

// A deviceView is a DeviceLogin, and who looks at it.
type deviceView struct {
	DeviceLogin
	StartedAt wire.Time
	Email     string
	Here      string // the address that the person is at
}

// ShowDevice shows where the code of a device is typed, or the device.
func (p *Pages) ShowDevice(w http.ResponseWriter, v *Visit, status int, d DeviceLogin) error {
	view := deviceView{DeviceLogin: d, Email: v.Who.Person.Email, Here: v.Who.Address}
	if d.Device != nil {
		view.StartedAt = wire.Time{Time: d.Device.StartedAt}
	}
	return p.show(w, v, status, "device", "Sign in a device", view)
}
