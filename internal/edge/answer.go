package edge

import (
	"net/http"
	"time"
)

// An Answer knows what was answered.
type Answer struct {
	http.ResponseWriter
	Status  int  // 0 while nothing was answered
	Written bool // the head is on its way
}

// WriteHeader notes the status and passes it on.
func (a *Answer) WriteHeader(status int) {
	if !a.Written && status >= 200 {
		a.Status, a.Written = status, true
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write passes on.
func (a *Answer) Write(p []byte) (int, error) {
	if !a.Written {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *Answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Extend gives a route more time than the server does. What the connection
// cannot do it need not: a test's recorder has no deadlines.
func (a *Answer) Extend(d time.Duration) {
	c := http.NewResponseController(a.ResponseWriter)
	_ = c.SetReadDeadline(time.Now().Add(d))
	_ = c.SetWriteDeadline(time.Now().Add(d))
}

// Linger gives whoever has not sent all of a body a little longer: net/http goes
// on reading it when all is said, until the deadline that Extend has set.
func (a *Answer) Linger(d time.Duration) {
	_ = http.NewResponseController(a.ResponseWriter).SetReadDeadline(time.Now().Add(d))
}
