// Package storetest prepares databases for the tests of whatever has a store.
package storetest

import (
	"context"
	"errors"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// Migrate gives the database at url the store's schema, and leaves nothing open: it
// is the prepare that sqlitetest's and pgtest's URLOf copy. No row is written, so
// whoever opens a copy does so with any secret.
func Migrate(url string) error {
	s, err := store.Open(context.Background(), store.Config{URL: serval.NewSecret(url)})
	if err != nil {
		return err
	}
	return errors.Join(s.Migrate(context.Background()), s.Close())
}
