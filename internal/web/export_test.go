package web

import (
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// SetPatience shortens how long a connection stays open for a body that nobody
// reads.
func (s *Server) SetPatience(d time.Duration) { s.patience = d }

// SetMaxComing sets how many may be coming back from signing in at a time.
func (s *Server) SetMaxComing(n int) { s.coming = make(chan struct{}, n) }

// Pretty returns documents as they stand on one page.
func Pretty(documents []serval.Document) []string {
	p := &paper{left: maxPaper}
	var texts []string
	for _, d := range documents {
		texts = append(texts, p.pretty(d))
	}
	return texts
}
