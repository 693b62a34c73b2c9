package keep

import (
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Ring is a keychain. A test makes it hang and refuse.
type Ring interface {
	Keep(account string, secret serval.Secret) error
	Find(account string) (serval.Secret, error) // ErrNoEntry where there is none
	Remove(account string) error
}

// The errors of a keychain.
var (
	ErrNoEntry  = errors.New("the keychain has no such entry")
	ErrKeychain = errors.New("the keychain, where the key of what serval keeps lies, does not open (unlock it, or set SERVAL_KEYCHAIN=off and sign in again)")
	errSilent   = errors.New("it does not answer")
)

// System returns the keychain of the operating system, or nil where none can be
// expected to answer without asking: on Linux that is outside of a desktop's
// session.
func System(getenv func(string) string) Ring {
	if runtime.GOOS != "darwin" && runtime.GOOS != "windows" &&
		(getenv("DBUS_SESSION_BUS_ADDRESS") == "" || getenv("DISPLAY") == "" && getenv("WAYLAND_DISPLAY") == "" || getenv("SSH_CONNECTION") != "") {
		return nil
	}
	if runtime.GOOS == "darwin" && os.Getuid() == 0 {
		return nil // root has no login keychain
	}
	return system{}
}

// service is what serval's entries are called.
const service = "serval"

// ringTime is how long a keychain may take. One that is locked may wait for
// somebody who is not there.
const ringTime = 2 * time.Second

// system is the keychain of the operating system.
type system struct{}

func (system) Keep(account string, secret serval.Secret) error {
	return within(ringTime, func() error { return keyring.Set(service, account, secret.Reveal()) })
}

func (system) Find(account string) (secret serval.Secret, err error) {
	found := make(chan string, 1)
	err = within(ringTime, func() error {
		text, err := keyring.Get(service, account)
		found <- text
		return err
	})
	if errors.Is(err, keyring.ErrNotFound) {
		return serval.Secret{}, ErrNoEntry
	}
	if err != nil {
		return serval.Secret{}, err
	}
	return serval.NewSecret(<-found), nil
}

func (system) Remove(account string) error {
	err := within(ringTime, func() error { return keyring.Delete(service, account) })
	if errors.Is(err, keyring.ErrNotFound) {
		return ErrNoEntry
	}
	return err
}

// within returns what f does, unless it takes longer. Keychains know no
// deadlines: one that hangs is left behind, and goes with the process.
func within(most time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(most):
		return errSilent
	}
}
