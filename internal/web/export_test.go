package web

import (
	"net/http"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/pages"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// SetPatience shortens how long a connection stays open for a body that nobody
// reads.
func (s *Server) SetPatience(d time.Duration) { s.patience = d }

// ReturnTo returns where a sign-in leads that was begun with text, by the table
// of routes alone.
func ReturnTo() func(text string) string {
	s := &Server{mux: http.NewServeMux()}
	s.route(table)
	return s.returnTo
}

// SetMaxComing sets how many may be coming back from signing in at a time.
func (s *Server) SetMaxComing(n int) { s.coming = make(chan struct{}, n) }

// SetMaxGoing sets how many may be beginning to sign in at a time.
func (s *Server) SetMaxGoing(n int) { s.going = make(chan struct{}, n) }

// Forms returns credentials in every form, by its id.
func Forms(c wire.Credentials) (map[string]string, error) {
	forms, err := pages.CredentialsForms(c)
	texts := map[string]string{}
	for _, f := range forms {
		texts[f.ID] = f.Text
	}
	return texts, err
}
