// Serval is the client on people's laptops: AWS roles for a short while, through
// the bridge.
//
//	serval login https://serval.example.com
//	serval configure
//	aws s3 ls --profile prod-readonly
//
// Exit codes: 0 done, 1 failed, 2 wrong use or settings, 3 a sign-in is needed, 4
// no access now, 5 the bridge was not reached, 6 AWS refused, 7 there is no such
// role or request (or several), 130 interrupted. Of exec and shell it is that of
// what they ran. See Config for the settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/client"
	"github.com/serval-bridge/serval-bridge/internal/keep"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/settings"
	"github.com/serval-bridge/serval-bridge/internal/wallet"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitLogin       = 3
	exitNoAccess    = 4
	exitUnreached   = 5
	exitAWS         = 6
	exitNotFound    = 7
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	p := &program{environ: os.Environ(), now: time.Now, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// run runs the program and returns its exit code.
func (p *program) run(ctx context.Context, args []string) int {
	defer p.close()
	var build bool
	root := &cobra.Command{
		Use:   "serval",
		Short: "AWS roles for a short while, approved, under your own name",
		Long: `Sign in once a day, ask for a role, use it: with every AWS tool, by a profile.

  serval login https://serval.example.com     once; afterwards: serval login
  serval request prod/prod-readonly --for 2h --reason "…" --wait
  serval configure                            a profile for every role
  aws s3 ls --profile prod-readonly

A ROLE is an ARN, account/role, an alias, a role's name where one account alone has it; on a terminal also a few letters of it.`,
		RunE: func(c *cobra.Command, args []string) error {
			if build {
				return p.versionCommand().RunE(c, args)
			}
			return c.Help()
		},
		SilenceErrors: true, SilenceUsage: true, DisableAutoGenTag: true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return p.prepare(c) },
	}
	root.Flags().BoolVar(&build, "version", false, "say which build this is") // cobra's own brings text/template, and a quarter of the program
	settings.Flags(root.PersistentFlags(), &Config{})
	root.PersistentFlags().StringVarP(&p.output, "output", "o", "table", "table or json")
	root.AddCommand(p.loginCommand(), p.logoutCommand(), p.whoamiCommand(),
		p.rolesCommand(), p.explainCommand(),
		p.requestCommand(), p.requestsCommand(), p.approvalsCommand(), p.approveCommand(), p.denyCommand(), p.extendCommand(), p.doneCommand(),
		p.credsCommand(), p.envCommand(), p.execCommand(), p.shellCommand(), p.consoleCommand(), p.serveCommand(),
		p.configureCommand(), p.doctorCommand(), p.manCommand(root), p.versionCommand())
	root.SetArgs(args)
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return p.code
	}
	if _, ours := errors.AsType[*failure](err); !ours {
		// What is left comes of reading the command line.
		fmt.Fprintf(p.stderr, "serval: %s\nSee serval --help.\n", err)
		return exitUsage
	}
	code := exitCode(ctx, err)
	if code != exitInterrupted {
		p.note("%s", err)
	}
	return code
}

// A program is what the commands share. It is given the whole environment, because
// a variable that is misspelled has no name to ask for.
type program struct {
	environ        []string
	now            func() time.Time
	stdin          io.Reader
	stdout, stderr io.Writer
	output         string // table or json
	code           int    // where a command ended without an error

	config   Config
	file     file
	keep     *keep.Keep     // nil where nothing can be kept
	unkept   error          // why
	bridge   *client.Client // nobody's
	terminal *terminal      // nil until somebody is asked
}

// A failure is an error of the work itself, and not of how it was asked for.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// A misuse is a failure for want of something that had to be said.
type misuse struct{ reason string }

func (m *misuse) Error() string { return m.reason }

func misused(format string, args ...any) error { return &misuse{fmt.Sprintf(format, args...)} }

// A needLogin says that somebody has to sign in first.
type needLogin struct{ reason string }

func (n *needLogin) Error() string { return n.reason }

// exitCode returns what the process ends with for err. It is the table of the
// manual.
func exitCode(ctx context.Context, err error) int {
	var (
		wrong     *misuse
		login     *needLogin
		noAccess  *wallet.NoAccess
		unreached *client.Failure
	)
	refused, _ := errors.AsType[*serval.Refusal](err)
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &wrong):
		return exitUsage
	case errors.As(err, &login), serval.IsRefusal(err, serval.Unauthenticated, serval.LoginRequired):
		return exitLogin
	case errors.As(err, &noAccess):
		return exitNoAccess
	case errors.As(err, &unreached):
		return exitUnreached
	case refused != nil && refused.Detail["code"] != "":
		return exitAWS
	case serval.IsRefusal(err, serval.NotFound):
		return exitNotFound
	case serval.IsRefusal(err, serval.Invalid):
		return exitUsage
	default:
		return exitFailed
	}
}

// command makes a command. What run returns is of the work.
func (p *program) command(use, short string, args cobra.PositionalArgs, run func(c *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, DisableFlagsInUseLine: true, RunE: func(c *cobra.Command, args []string) error {
		if err := run(c, args); err != nil {
			return &failure{err}
		}
		return nil
	}}
}

// note says something that is not what was asked for.
func (p *program) note(format string, args ...any) {
	fmt.Fprintln(p.stderr, "serval: "+passage(fmt.Sprintf(format, args...)))
}

// getenv returns a variable of the environment.
func (p *program) getenv(name string) (value string) {
	for _, text := range p.environ {
		if n, v, _ := strings.Cut(text, "="); n == name {
			value = v // the last one counts, as for exec
		}
	}
	return value
}

// close lets go of what commands opened.
func (p *program) close() {
	if p.bridge != nil {
		p.bridge.Close()
	}
	p.terminal.close()
}

func (p *program) versionCommand() *cobra.Command {
	return p.command("version", "Say which build this is", cobra.NoArgs, func(*cobra.Command, []string) error {
		_, err := fmt.Fprintf(p.stdout, "serval %s\n", version())
		return err
	})
}

// stamped is the version that a release is built as; the linker sets it.
var stamped string

// version says which build this is.
func version() string { return settings.Version(stamped) }
