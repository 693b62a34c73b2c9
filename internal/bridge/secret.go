package bridge

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/settings"
)

// SplitSecret takes a root secret apart: the present one, and older ones after
// commas, under which what was made before still opens.
func SplitSecret(text serval.Secret) (root serval.Secret, older []serval.Secret) {
	for i, part := range strings.Split(text.Reveal(), ",") {
		if i == 0 {
			root = serval.NewSecret(part)
		} else {
			older = append(older, serval.NewSecret(part))
		}
	}
	return root, older
}

// rootSecret is the setting that holds several.
const rootSecret = "SERVAL_SECRET"

// secret returns where the secret of a setting is kept; of the root secrets, the
// present one.
func (c *Config) secret(setting string) *serval.Secret {
	switch setting {
	case rootSecret:
		return &c.Secret
	case "SERVAL_OIDC_CLIENT_SECRET":
		return &c.OIDC.ClientSecret
	case "SERVAL_EXTERNAL_ID_SECRET":
		return &c.ExternalIDSecret
	case "SERVAL_DATABASE_URL":
		return &c.DatabaseURL
	case "SERVAL_WEBHOOK_URL":
		return &c.Notices.Webhook.URL
	case "SERVAL_WEBHOOK_SECRET":
		return &c.Notices.Webhook.Secret
	case "SERVAL_SLACK_WEBHOOK_URL":
		return &c.Notices.Slack.WebhookURL
	case "SERVAL_SLACK_APP_TOKEN":
		return &c.Notices.Slack.AppToken
	case "SERVAL_SLACK_BOT_TOKEN":
		return &c.Notices.Slack.BotToken
	case "SERVAL_SMTP_PASSWORD":
		return &c.Notices.Mail.Password
	default:
		panic("bridge: " + setting + " is no secret that changes") // a rotation names it
	}
}

// change makes text the secret of a setting, and reports whether it was another.
func (c *Config) change(setting string, text serval.Secret) bool {
	if setting == rootSecret {
		root, older := SplitSecret(text)
		same := root.Equal(c.Secret) && slices.EqualFunc(older, c.OlderSecrets, serval.Secret.Equal)
		c.Secret, c.OlderSecrets = root, older
		return !same
	}
	at := c.secret(setting)
	same := text.Equal(*at)
	*at = text
	return !same
}

// A rotation is secrets that are taken up together: all of them, or none.
type rotation struct {
	settings []string
	// take takes those of next up in place of those in use, or says why they cannot be.
	take func(ctx context.Context, used, next *Config) error
}

// A keeper has the secrets that change on disk be taken up while the bridge
// serves (S-108). One that cannot be read or used changes nothing: the last good
// one stays in use, and log, metric and /readyz say so. (Of upstream tokens there
// is no last good one: they let others in, and a file that is taken away lets
// nobody.) Files are read and not watched, as the configuration file is; one
// goroutine looks.
type keeper struct {
	used      Config // whose secrets are in use
	files     map[string]string
	rotations []rotation
	others    map[string]func() error // by setting: reads what takes itself up
	log       *zap.Logger

	seen    map[string]string  // by setting, the digest of what its file said at the last look
	refused map[string]refusal // by a rotation's first setting

	unusable *prometheus.GaugeVec
	mu       sync.Mutex
	told     map[string]string // by setting, why the last good one is in use
}

// A refusal is what the files of a rotation said that was not taken up, and how many
// looks to wait before the same is tried again.
type refusal struct {
	said []string
	wait int
}

// again is how many looks lie between two attempts with a secret that whoever it
// is for did not take: it may be the secret, or they are away.
const again = 15

func newKeeper(c *Config, rotations []rotation, registry *prometheus.Registry) *keeper {
	k := &keeper{used: *c, files: c.SecretFiles, others: map[string]func() error{}, log: c.Log,
		seen: map[string]string{}, refused: map[string]refusal{}, told: map[string]string{},
		unusable: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "serval_secret_unreadable", Help: "1 where the file of a secret cannot be read or used, and what was read before stays in use, by setting.",
		}, []string{"setting"}),
	}
	registry.MustRegister(k.unusable)
	for _, r := range rotations {
		// What does not come from a file cannot change.
		r.settings = slices.DeleteFunc(slices.Clone(r.settings), func(setting string) bool { return k.files[setting] == "" })
		if len(r.settings) > 0 {
			k.rotations = append(k.rotations, r)
		}
		for _, setting := range r.settings {
			k.unusable.WithLabelValues(setting)
		}
	}
	return k
}

// follow has read be called at each look, which takes up by itself what it reads.
func (k *keeper) follow(setting string, read func() error) {
	k.others[setting] = read
	k.unusable.WithLabelValues(setting)
}

// watch looks until ctx ends.
func (k *keeper) watch(ctx context.Context, c *Config) {
	every := time.NewTicker(cmp.Or(c.lookEvery, lookEvery))
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			c.guard("secrets", func() { k.look(ctx) })
		}
	}
}

// look reads each file and takes up what is another, and right.
func (k *keeper) look(ctx context.Context) {
	for _, r := range k.rotations {
		k.turn(ctx, r)
	}
	for setting, read := range k.others {
		err := read()
		k.settles(setting, fmt.Sprint(err))
		k.note(setting, err)
	}
}

// settles reports whether a file says the same twice: half a file that somebody
// is writing changes nothing.
func (k *keeper) settles(setting, said string) bool {
	same := k.seen[setting] == said
	k.seen[setting] = said
	return same
}

// turn takes the secrets of a rotation up, where they are others.
func (k *keeper) turn(ctx context.Context, r rotation) {
	next, settled, sound := k.used, true, true
	var changed, all []string
	for _, setting := range r.settings {
		text, err := settings.ReadSecret(k.files[setting])
		said := text.Digest()
		if err != nil {
			said = err.Error()
		}
		all = append(all, said)
		switch {
		case !k.settles(setting, said):
			settled = false
		case err != nil:
			k.note(setting, err)
			sound = false
		case next.change(setting, text):
			changed = append(changed, setting)
		default:
			k.note(setting, nil)
		}
	}
	if !settled || !sound || len(changed) == 0 {
		return
	}
	for _, fault := range next.Faults() {
		name, text, _ := strings.Cut(fault, ": ")
		if slices.Contains(r.settings, name) {
			k.note(name, errors.New(strings.TrimSuffix(text, ".")))
			return
		}
	}
	if before := k.refused[r.settings[0]]; before.wait > 0 && slices.Equal(before.said, all) {
		before.wait--
		k.refused[r.settings[0]] = before
		return
	}
	if err := r.take(ctx, &k.used, &next); err != nil {
		if ctx.Err() == nil {
			k.refused[r.settings[0]] = refusal{all, again}
			k.note(changed[0], err)
		}
		return
	}
	k.used = next
	for _, setting := range changed {
		k.note(setting, nil)
		k.log.Info("a secret has changed and is in use", zap.String("setting", setting))
	}
}

// note keeps how things stand with a setting, and tells what is new of it.
func (k *keeper) note(setting string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch before, bad := k.told[setting]; {
	case err == nil && bad:
		delete(k.told, setting)
		k.unusable.WithLabelValues(setting).Set(0)
		k.log.Info("the file of a secret can be used again", zap.String("setting", setting))
	case err != nil && (!bad || before != err.Error()):
		k.told[setting] = err.Error()
		k.unusable.WithLabelValues(setting).Set(1)
		k.log.Error("the file of a secret cannot be used; what was read before stays in use", zap.String("setting", setting), zap.Error(err))
	}
}

// report says how things stand. It never fails: who works by the last good ones
// works.
func (k *keeper) report(context.Context) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.told) == 0 {
		return "", nil
	}
	var lines []string
	for _, setting := range slices.Sorted(maps.Keys(k.told)) {
		lines = append(lines, setting+": "+k.told[setting])
	}
	return "what was read before stays in use: " + strings.Join(lines, "; "), nil
}

// rekey takes a root secret up. One that does not say what the one in use was
// would leave all that was made under it closed.
func rekey(take ...func(root serval.Secret, older ...serval.Secret)) rotation {
	return rotation{[]string{rootSecret}, func(_ context.Context, used, next *Config) error {
		if !slices.ContainsFunc(append([]serval.Secret{next.Secret}, next.OlderSecrets...), used.Secret.Equal) {
			return errors.New("the one in use is not in it: put that behind a comma, for what was made under it")
		}
		for _, f := range take {
			f(next.Secret, next.OlderSecrets...)
		}
		return nil
	}}
}

// kept is no rotation: it says why a secret is not changed while the bridge runs.
func kept(setting, why string) rotation {
	return rotation{[]string{setting}, func(context.Context, *Config, *Config) error { return errors.New(why) }}
}

// A keyPair is what TLS is served with: the last that could be used of what
// the two files held.
type keyPair struct {
	certFile, keyFile string
	cert, key         []byte // as they were read
	pair              atomic.Pointer[tls.Certificate]
}

// keyPair returns what TLS is served with; nil where it is not.
func (c *Config) keyPair() (*keyPair, error) {
	if c.TLSCertFile == "" {
		return nil, nil
	}
	cert := &keyPair{certFile: c.TLSCertFile, keyFile: c.TLSKeyFile}
	if err := cert.read(); err != nil {
		return nil, fmt.Errorf("reading SERVAL_TLS_CERT_FILE and SERVAL_TLS_KEY_FILE: %w", err)
	}
	return cert, nil
}

// read takes the files up where they are others.
func (c *keyPair) read() error {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return err
	}
	if c.pair.Load() != nil && bytes.Equal(cert, c.cert) && bytes.Equal(key, c.key) {
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return err
	}
	c.cert, c.key = cert, key
	c.pair.Store(&pair)
	return nil
}
