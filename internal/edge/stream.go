package edge

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Stream returns a JSON body as it comes in, at most so many bytes of it on the
// wire, and out of gzip where it comes in it. What is wrong with that is the
// sender's fault.
func Stream(w http.ResponseWriter, r *http.Request, most int64) (io.Reader, error) {
	if !isJSON(r) {
		return nil, Refuse(serval.Invalid, "What is pushed is JSON: send Content-Type: application/json.")
	}
	if a, ok := w.(*Answer); ok {
		w = a.ResponseWriter
	}
	var body io.Reader = http.MaxBytesReader(w, r.Body, most)
	switch encoding := r.Header.Get("Content-Encoding"); strings.ToLower(encoding) {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(body)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // not even its head came
		}
		if err != nil {
			return nil, senders(err)
		}
		body = z
	default:
		return nil, Refuse(serval.Invalid, "Content-Encoding is gzip or none, not %q.", serval.Clip(encoding, 40))
	}
	return faulty{body}, nil
}

// A faulty reader says whose fault an error is.
type faulty struct{ io.Reader }

// Read reads.
func (f faulty) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	return n, senders(err)
}

// senders returns err as a refusal where the sender can mend it.
func senders(err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || isCorrupt(err):
		return Refuse(serval.Invalid, "The body is not the gzip that Content-Encoding says.")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Refuse(serval.Invalid, "The body breaks off.")
	}
	return err
}

func isCorrupt(err error) bool {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	return corrupt
}
