package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// An Archive is a database opened beside the process that serves it, to look at
// the audit log.
type Archive struct{ store *store.Store }

// OpenArchive opens the database read-only. The secrets are those that the log
// was written under; the first is the present one.
func OpenArchive(ctx context.Context, url serval.Secret, secret serval.Secret, older ...serval.Secret) (*Archive, error) {
	s, err := store.Open(ctx, store.Config{URL: url, Chain: serval.NewChain(secret, older...), ReadOnly: true})
	if err != nil {
		return nil, err
	}
	return &Archive{s}, nil
}

// Close closes the database.
func (a *Archive) Close() error { return a.store.Close() }

// Verify walks the audit log and returns the last row that holds. Where one does
// not, or the log does not reach published, the error is a *store.BrokenChain
// that names the row.
func (a *Archive) Verify(ctx context.Context, published store.Head) (head store.Head, err error) {
	err = a.store.Read(ctx, func(v *store.View) error {
		head, err = v.VerifyChain(published)
		return err
	})
	return head, err
}

// Export writes the audit log as JSON lines, oldest first, and returns the
// chain's head as it was then.
func (a *Archive) Export(ctx context.Context, w io.Writer) (head store.Head, err error) {
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	err = a.store.Read(ctx, func(v *store.View) error {
		if head, err = v.ChainHead(); err != nil {
			return err
		}
		return v.EachEvent(0, func(l serval.Link) error { return lines.Encode(l) })
	})
	return head, err
}

// ParseHead reads a published head: the number and the hash of a row, with a
// colon between.
func ParseHead(text string) (store.Head, error) {
	number, hash, found := strings.Cut(text, ":")
	seq, err := strconv.ParseInt(number, 10, 64)
	if !found || err != nil || seq < 1 || len(hash) != 64 {
		return store.Head{}, errors.New("a head is given as NUMBER:HASH, as it was logged")
	}
	return store.Head{Seq: seq, Hash: hash}, nil
}
