package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/web"
)

// lookEvery is how often the configuration file is looked at. It is read, not
// watched: a ConfigMap changes by a link elsewhere in its folder, and the text is
// what counts.
const lookEvery = 2 * time.Second

// inForce is the configuration file that is in force, and what became of the one
// on disk. One goroutine looks; others ask.
type inForce struct {
	config *Config
	plane  *control.Plane

	file   atomic.Pointer[File]
	faulty atomic.Pointer[string] // why the file on disk is not in force; nil where it is
	waits  atomic.Bool            // nothing was put into force yet

	// What look has seen: a text counts when it is the same twice, so that half a
	// file that somebody is writing disconnects nothing.
	seen, told string

	reloads *prometheus.CounterVec
}

func newInForce(c *Config, plane *control.Plane, registry *prometheus.Registry) *inForce {
	f := &inForce{config: c, plane: plane, reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "serval_config_reloads_total", Help: "How often a changed configuration file was put into force, or could not be.",
	}, []string{"outcome"})}
	f.file.Store(&c.File)
	for _, outcome := range []string{"done", "failed"} {
		f.reloads.WithLabelValues(outcome)
	}
	registry.MustRegister(f.reloads, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "serval_config_in_force", Help: "1 where the configuration file on disk is the one in force, 0 where it cannot be used.",
	}, func() float64 {
		if f.faulty.Load() != nil {
			return 0
		}
		return 1
	}))
	return f
}

// report says how things stand with the file. Who works by the last good one
// works; it fails where none was good yet.
func (f *inForce) report(context.Context) (string, error) {
	if why := f.faulty.Load(); why != nil {
		if f.waits.Load() {
			return "", errors.New("no configuration is in force here yet: " + *why)
		}
		return "the last good configuration is in force; the file cannot be used: " + *why, nil
	}
	return "", nil
}

// begin puts the file that the bridge starts with into force. Where a newer one is
// in force already, as another replica has it, it waits until this replica's has
// become the newer one, a file that is on its way to here, or ctx ends.
func (f *inForce) begin(ctx context.Context) error {
	file := f.file.Load()
	err := f.config.declare(ctx, f.plane, *file)
	r := older(err)
	if r == nil || f.config.FilePath == "" {
		return err
	}
	f.waits.Store(true)
	f.file.Store(&File{Team: file.Team})
	f.refuse(ctx, file.Digest, []Fault{{Path: "$.revision", Text: r.Reason}})
	look := time.NewTicker(cmp.Or(f.config.lookEvery, lookEvery))
	defer look.Stop()
	for f.waits.Load() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			f.look(ctx)
		}
	}
	return nil
}

// networks returns the names of the networks that a session can be pinned to.
func (f *inForce) networks() []string { return slices.Sorted(maps.Keys(f.file.Load().Networks)) }

// upstreamTokens returns the workers' tokens, read anew for each look so that a
// rotated file counts at once. S-108
func (f *inForce) upstreamTokens() []web.UpstreamToken {
	var tokens []web.UpstreamToken
	for _, t := range f.file.Load().UpstreamTokens {
		tokens = append(tokens, web.UpstreamToken{Name: t.Name, Accounts: t.Accounts, Secret: func() serval.Secret {
			secret, err := readToken(t.SecretFile)
			if err != nil {
				f.config.Log.Error("an upstream token cannot be read", zap.String("name", t.Name), zap.Error(err))
			}
			return secret // empty lets nobody in
		}})
	}
	return tokens
}

// tokensRead says which upstream token cannot be read, so that it is known before
// its worker comes.
func (f *inForce) tokensRead() error {
	for _, t := range f.file.Load().UpstreamTokens {
		if _, err := readToken(t.SecretFile); err != nil {
			return fmt.Errorf("%s lets nobody in: %w", t.Name, err)
		}
	}
	return nil
}

// look reads the file and puts it into force where it is another, and right. A
// file that cannot be used is told once: in the log, in the audit log and by
// metric; the last good one stays in force.
func (f *inForce) look(ctx context.Context) {
	if f.config.FilePath == "" {
		return
	}
	text, err := readText(f.config.FilePath)
	now := digest(text)
	if err != nil {
		now = err.Error()
	}
	settled := now == f.seen
	f.seen = now
	if err == nil && now == f.file.Load().Digest {
		if f.faulty.Swap(nil) != nil {
			f.told = ""
			f.config.Log.Info("the configuration file is again the one in force", zap.String("file", f.config.FilePath))
			f.note(ctx, now, nil)
		}
		return
	}
	if !settled {
		return
	}
	if err != nil {
		f.refuse(ctx, now, []Fault{unreadable(err)})
		return
	}
	file, faults := ParseFile(text)
	if len(faults) == 0 && file.Team != f.file.Load().Team {
		faults = append(faults, Fault{Path: "$.team", Text: "the team cannot be changed while the bridge runs, and every External ID depends on it. Put it back."})
	}
	if len(faults) > 0 {
		f.refuse(ctx, now, faults)
		return
	}
	if err := f.config.declare(ctx, f.plane, file); err != nil {
		if r := older(err); r != nil {
			f.refuse(ctx, now, []Fault{{Path: "$.revision", Text: r.Reason}})
		} else if ctx.Err() == nil {
			f.config.Log.Error("a changed configuration file could not be put into force; trying again", zap.Error(err))
		}
		return
	}
	f.file.Store(&file)
	f.waits.Store(false)
	f.faulty.Store(nil)
	f.told = ""
	f.reloads.WithLabelValues("done").Inc()
	f.config.Log.Info("the configuration file was read again and is in force", zap.String("file", f.config.FilePath), zap.String("sha256", file.Digest),
		zap.Int("accounts", len(file.Accounts)), zap.Int("access_policies", len(file.Policies)))
	f.note(ctx, now, nil)
}

func (f *inForce) refuse(ctx context.Context, now string, faults []Fault) {
	texts := make([]string, len(faults))
	for i, fault := range faults {
		texts[i] = fault.String()
	}
	told := now + "\n" + strings.Join(texts, "\n")
	if told == f.told {
		return
	}
	f.told = told
	why := texts[0]
	if n := len(texts) - 1; n > 0 {
		why += fmt.Sprintf(" And %d more; serval-bridge config check prints them.", n)
	}
	f.faulty.Store(&why)
	f.reloads.WithLabelValues("failed").Inc()
	f.config.Log.Error("the configuration file cannot be used; the last good one stays in force",
		zap.String("file", f.config.FilePath), zap.Strings("faults", texts))
	f.note(ctx, now, texts)
}

func (f *inForce) note(ctx context.Context, now string, faults []string) {
	if err := f.plane.NoteReload(ctx, serval.System(), now, faults); err != nil && ctx.Err() == nil {
		f.config.Log.Error("a reload could not be recorded", zap.Error(err))
	}
}

// declare puts a file into force: accounts and access policies for all replicas,
// the rest for this one.
func (c *Config) declare(ctx context.Context, plane *control.Plane, file File) error {
	accounts := make([]serval.Account, len(file.Accounts))
	for i, a := range file.Accounts {
		if a.ExternalID == "" {
			a.ExternalID = serval.ExternalID(c.ExternalIDSecret, file.Team)
		}
		accounts[i] = a
	}
	if err := plane.Declare(ctx, serval.System(), file.Revision, accounts, file.Policies); err != nil {
		return err
	}
	return plane.Appoint(ctx, serval.System(), control.Appointed{Admins: file.Admins, Auditors: file.Auditors, Networks: file.Networks})
}

// older returns the refusal of a file that is older than the one in force; nil
// where err is another.
func older(err error) *serval.Refusal {
	if r, ok := errors.AsType[*serval.Refusal](err); ok && r.Detail["cause"] == control.OlderFile {
		return r
	}
	return nil
}
