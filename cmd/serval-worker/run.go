package main

import (
	"io"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/serval-bridge/serval-bridge/internal/probe"
	"github.com/serval-bridge/serval-bridge/internal/settings"
	"github.com/serval-bridge/serval-bridge/internal/workerd"
)

func (p *program) runCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "run", Short: "Keep the upstream's memory of all accounts true", Args: cobra.NoArgs,
		Long: "Run is the daemon: it asks the upstream for the accounts, reads each of them every few hours or when\n" +
			"somebody asks, and pushes what it read. It keeps nothing on disk.",
	}
	settings.Flags(c.Flags(), new(Config))
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, faults := readConfig(p.environ, c.Flags())
		if faults != nil {
			p.refuse(faults)
			return nil
		}
		level := zap.NewAtomicLevel()
		if err := level.UnmarshalText([]byte(config.LogLevel)); err != nil {
			return &failure{err}
		}
		log := newLog(p.stderr, level)
		defer func() { _ = log.Sync() }() // a pipe cannot be synced
		daemon := config.daemon()
		daemon.Log, daemon.Level = log, &level
		if err := workerd.Run(c.Context(), daemon); err != nil {
			return &failure{err}
		}
		return nil
	}
	return c
}

// newLog returns a log of JSON lines.
func newLog(w io.Writer, level zap.AtomicLevel) *zap.Logger {
	e := zap.NewProductionEncoderConfig()
	e.TimeKey, e.EncodeTime = "time", zapcore.RFC3339NanoTimeEncoder
	e.EncodeDuration = zapcore.SecondsDurationEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(e), zapcore.Lock(zapcore.AddSync(w)), probe.Errors(level)))
}
