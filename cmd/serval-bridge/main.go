// Serval-bridge signs people in, holds the catalogue, requests, approvals and
// the audit log, and opens AWS sessions in people's own names.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage or settings; audit verify answers
// 3 where the chain does not hold.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/bridge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/settings"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/trace"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// The exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
	exitBroken = 3
)

// An exit is an error that has been told already, or has a code of its own.
type exit struct {
	code int
	err  error
}

// Error returns what went wrong.
func (e exit) Error() string { return e.err.Error() }

// run is the program, without the process around it. It returns the exit code.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "serval-bridge",
		Short:         "Sign people in, decide on requests, open AWS sessions",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.SetVersionTemplate("serval-bridge {{.Version}}\n")
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit{exitUsage, err} })
	root.AddCommand(serve(environ), migrate(environ), backup(environ), restored(environ), doctor(environ), audit(environ), configuration(environ), explain(),
		&cobra.Command{Use: "version", Short: "Say which build this is", Args: noArgs, RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "serval-bridge %s\n", version())
			return err
		}})

	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "serval-bridge:", err)
	if e, ok := errors.AsType[exit](err); ok {
		return e.code
	}
	if strings.HasPrefix(err.Error(), "unknown command") {
		return exitUsage
	}
	return exitFailed
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return exit{exitUsage, fmt.Errorf("%s takes no arguments", c.CommandPath())}
	}
	return nil
}

// stamped is the version that a release is built as; the linker sets it.
var stamped string

// version says which build this is.
func version() string { return settings.Version(stamped) }

// release is the version alone, for where there is room for no more.
func release() string { return strings.Fields(version())[0] }

// wrong returns all faults as one error.
func wrong(faults []string) error {
	return exit{exitUsage, fmt.Errorf("these settings are wrong:\n  %s", strings.Join(faults, "\n  "))}
}

func serve(environ []string) *cobra.Command {
	var c Config
	accept := false
	command := &cobra.Command{
		Use: "serve", Short: "Serve the pages and the API", Args: noArgs,
		Long: "Serve the pages and the API.\n\nEvery flag is also an environment variable, named in brackets. Secrets are no\nflags; any variable NAME can be given as NAME_FILE, a file that holds the value.",
	}
	settings.Flags(command.Flags(), &c)
	command.Flags().BoolVar(&accept, "accept-new-external-ids", false, "start although the External IDs have changed and no trust policy fits any more")
	command.RunE = func(command *cobra.Command, _ []string) error {
		config, level, faults := c.read(environ, command.Flags())
		if len(faults) > 0 {
			return wrong(faults)
		}
		atomic := zap.NewAtomicLevelAt(level)
		log, sink := bridge.NewLog(command.ErrOrStderr(), atomic)
		defer log.Sync() // it has said what it could
		config.Level, config.LogSink = &atomic, sink
		if trace.Wanted(func(name string) string { return lookup(environ, name) }) {
			tracer, err := trace.Start(command.Context(), release())
			if err != nil {
				return exit{exitUsage, err}
			}
			config.Trace = tracer
			defer func() {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				tracer.Stop(ctx) // what cannot be sent is dropped
			}()
		}
		config.Log, config.Version, config.AcceptNewExternalIDs = log, release(), accept
		if config.Workers != nil {
			log.Info("taking service-account tokens of the worker", zap.String("subject", config.Workers.Subject), zap.String("audience", audience))
		} else {
			log.Info("taking no service-account tokens: workers come by upstream token", zap.NamedError("why", c.outside))
		}
		if config.FilePath == "" {
			log.Warn("SERVAL_CONFIG is not set: there are no accounts, no access policies, and nobody is an admin")
		}
		return bridge.Run(command.Context(), config)
	}
	return command
}

// A Database is the settings of the commands that only need the database.
type Database struct {
	RootSecret  serval.Secret `env:"SERVAL_SECRET,required" usage:"root secret; after a comma an older one"`
	DatabaseURL serval.Secret `env:"SERVAL_DATABASE_URL" envDefault:"sqlite:///var/lib/serval/serval.db" usage:"sqlite:///path or postgres://..."`
}

func migrate(environ []string) *cobra.Command {
	var c Database
	command := &cobra.Command{Use: "migrate", Short: "Bring the database to this version's schema", Args: noArgs}
	settings.Flags(command.Flags(), &c)
	command.RunE = func(command *cobra.Command, _ []string) (err error) {
		if faults := settings.Read(&c, environ, command.Flags()); len(faults) > 0 {
			return wrong(faults)
		}
		root, older := bridge.SplitSecret(c.RootSecret)
		s, err := store.Open(command.Context(), store.Config{URL: c.DatabaseURL, Chain: serval.NewChain(root, older...)})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		return s.Migrate(command.Context())
	}
	return command
}

func backup(environ []string) *cobra.Command {
	var c Database
	command := &cobra.Command{
		Use: "backup FILE", Short: "Write the SQLite database to a new file, while it is being served", Args: cobra.ExactArgs(1),
		Long: "Write the SQLite database to a new file, while it is being served, or\nto stdout where FILE is -, from a pod without a shell.\n\nThe file holds what the database holds; SERVAL_SECRET is not in it, and without it\nnothing that is sealed opens. PostgreSQL has its own tools. See docs/backup.md.",
	}
	settings.Flags(command.Flags(), &c)
	command.RunE = func(command *cobra.Command, args []string) error {
		if faults := settings.Read(&c, environ, command.Flags()); len(faults) > 0 {
			return wrong(faults)
		}
		return bridge.Backup(command.Context(), c.DatabaseURL, args[0], command.OutOrStdout())
	}
	return command
}

func restored(environ []string) *cobra.Command {
	var c Database
	var audit string
	var revoke bool
	command := &cobra.Command{
		Use: "restored", Short: "Make a database that was restored from a backup safe to serve", Args: noArgs,
		Long: "Make a database that was restored from a backup safe to serve, before any bridge\ndoes: logins end, every account is read in full, what workers had opened is nobody's.\n\nWith --audit and an export of the audit log from after the backup, each access that\nwas ended since and is open again is listed, and ended with --revoke. See docs/backup.md.",
	}
	settings.Flags(command.Flags(), &c)
	command.Flags().StringVar(&audit, "audit", "", "an export of the audit log (JSON lines) from after the backup")
	command.Flags().BoolVar(&revoke, "revoke", false, "end once more what was ended after the backup")
	command.RunE = func(command *cobra.Command, _ []string) error {
		if faults := settings.Read(&c, environ, command.Flags()); len(faults) > 0 {
			return wrong(faults)
		}
		root, older := bridge.SplitSecret(c.RootSecret)
		r := bridge.Restore{DatabaseURL: c.DatabaseURL, Secret: root, Older: older, Revoke: revoke, Log: zap.NewNop()}
		if audit != "" {
			f, err := os.Open(audit)
			if err != nil {
				return exit{exitUsage, fmt.Errorf("--audit: %w", err)}
			}
			defer f.Close() // read only
			r.Audit = f
		} else if revoke {
			return exit{exitUsage, errors.New("--revoke needs --audit: what was ended after the backup only a later log knows")}
		}
		done, err := r.Run(command.Context())
		if err != nil {
			return err
		}
		fmt.Fprint(command.OutOrStdout(), done)
		return nil
	}
	return command
}

func audit(environ []string) *cobra.Command {
	var c Database
	open := func(command *cobra.Command) (*bridge.Archive, error) {
		if faults := settings.Read(&c, environ, command.Flags()); len(faults) > 0 {
			return nil, wrong(faults)
		}
		root, older := bridge.SplitSecret(c.RootSecret)
		return bridge.OpenArchive(command.Context(), c.DatabaseURL, root, older...)
	}

	var published string
	verify := &cobra.Command{
		Use: "verify", Short: "Check the chain of the audit log and name the first row that does not hold", Args: noArgs,
		Long: "Check the chain of the audit log and name the first row that does not hold.\n\nThe database's owner could cut the newest rows off unseen. Give the last head that\nwas logged or exported with --head, and that is found too. May run beside a serving\nbridge. Exit code 3 where the chain does not hold.",
		RunE: func(command *cobra.Command, _ []string) error {
			var head store.Head
			if published != "" {
				var err error
				if head, err = bridge.ParseHead(published); err != nil {
					return exit{exitUsage, fmt.Errorf("--head: %w", err)}
				}
			}
			archive, err := open(command)
			if err != nil {
				return err
			}
			defer archive.Close() // opened to read only
			last, err := archive.Verify(command.Context(), head)
			if broken, ok := errors.AsType[*store.BrokenChain](err); ok {
				return exit{exitBroken, fmt.Errorf("the audit chain does not hold: %w", broken)}
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(command.OutOrStdout(), "%d rows, the chain holds. Head %d:%s\n", last.Seq, last.Seq, last.Hash)
			return nil
		},
	}
	verify.Flags().StringVar(&published, "head", "", "the head that was published, NUMBER:HASH")

	export := &cobra.Command{
		Use: "export", Short: "Write the audit log as JSON lines, and the chain's head to stderr", Args: noArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			archive, err := open(command)
			if err != nil {
				return err
			}
			defer archive.Close()
			head, err := archive.Export(command.Context(), command.OutOrStdout())
			if err != nil {
				return err
			}
			fmt.Fprintf(command.ErrOrStderr(), "Head %d:%s\n", head.Seq, head.Hash)
			return nil
		},
	}

	command := &cobra.Command{Use: "audit", Short: "Look at the audit log"}
	for _, sub := range []*cobra.Command{verify, export} {
		settings.Flags(sub.Flags(), &c)
		command.AddCommand(sub)
	}
	return command
}

func configuration(environ []string) *cobra.Command {
	asJSON := false
	check := &cobra.Command{
		Use: "check [FILE]", Short: "Read the configuration file and print every fault with its line",
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			path := lookup(environ, "SERVAL_CONFIG")
			if len(args) == 1 {
				path = args[0]
			}
			if path == "" {
				return exit{exitUsage, errors.New("name the file, or set SERVAL_CONFIG")}
			}
			file, faults := bridge.ReadFile(path)
			// A file is checked before it is put where the secrets are.
			for _, f := range faults {
				if f.Elsewhere {
					fmt.Fprintf(command.ErrOrStderr(), "serval-bridge: not looked at here: %s\n", f)
				}
			}
			faults = slices.DeleteFunc(faults, func(f bridge.Fault) bool { return f.Elsewhere })
			if asJSON {
				list := make([]map[string]any, len(faults))
				for i, f := range faults {
					list[i] = map[string]any{"line": f.Line, "path": f.Path, "text": f.Text}
				}
				if err := json.NewEncoder(command.OutOrStdout()).Encode(map[string]any{"faults": list}); err != nil {
					return err
				}
			} else {
				for _, f := range faults {
					fmt.Fprintln(command.OutOrStdout(), f)
				}
			}
			if len(faults) > 0 {
				return exit{exitUsage, fmt.Errorf("%s cannot be used: faults: %d", path, len(faults))}
			}
			if !asJSON {
				fmt.Fprintf(command.OutOrStdout(), "%s is right: %d accounts, %d access policies.\n", path, len(file.Accounts), len(file.Policies))
			}
			return nil
		},
	}
	check.Flags().BoolVar(&asJSON, "json", false, "print the faults as JSON")
	command := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	command.AddCommand(check)
	return command
}

// lookup returns the variable name of environ.
func lookup(environ []string, name string) string {
	for _, text := range environ {
		if value, ok := strings.CutPrefix(text, name+"="); ok {
			return value
		}
	}
	return ""
}
