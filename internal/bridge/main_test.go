package bridge

import (
	"os"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// postgres returns the address of an empty database.
func postgres(t *testing.T) serval.Secret {
	t.Helper()
	return serval.NewSecret(pgtest.URL(t))
}
