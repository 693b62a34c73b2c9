package web

import "time"

// SetPatience shortens how long a connection stays open for a body that nobody
// reads.
func (s *Server) SetPatience(d time.Duration) { s.patience = d }
