// Serval-worker reads the IAM roles of connected AWS accounts and pushes them
// upstream.
//
//	serval-worker run      the daemon
//	serval-worker scan     read one account and print its inventory
//	serval-worker check    test the connection to one account
//	serval-worker doctor   say what keeps the daemon from working, and what mends it
//	serval-worker version  say which build this is
//
// Exit codes: 0 done, 1 failed, 2 wrong use or wrong settings, and of scan 3
// where the inventory is incomplete. See Config for the settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/settings"
)

// The exit codes.
const (
	exitDone       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitIncomplete = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run runs the program and returns its exit code. It takes the whole
// environment, because a variable that is misspelled has no name to ask for.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{environ: environ, stdout: stdout, stderr: stderr}
	var build bool
	root := &cobra.Command{
		Use:   "serval-worker",
		Short: "Read the IAM roles of connected AWS accounts and push them upstream",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if build {
				return p.versionCommand().RunE(c, args)
			}
			return errors.New("say what to do: run, scan, check, doctor or version")
		},
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.Flags().BoolVar(&build, "version", false, "say which build this is") // cobra's own brings text/template, and a third of the program
	root.AddCommand(p.runCommand(), p.scanCommand(), p.checkCommand(), p.doctorCommand(), p.versionCommand())
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return p.code
	}
	if f, ok := errors.AsType[*failure](err); ok {
		fmt.Fprintf(stderr, "serval-worker: %s\n", f.err)
		return exitFailed
	}
	// What is left comes of reading the command line.
	fmt.Fprintf(stderr, "serval-worker: %s\nSee serval-worker --help.\n", err)
	return exitUsage
}

// A program is what the commands share.
type program struct {
	environ        []string
	stdout, stderr io.Writer
	code           int // where a command ended without an error
}

// A failure is an error of the work itself, and not of how it was asked for.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// refuse reports all that is wrong with the settings.
func (p *program) refuse(faults []string) {
	fmt.Fprintln(p.stderr, "serval-worker: these settings are wrong:")
	for _, f := range faults {
		fmt.Fprintln(p.stderr, "  "+f)
	}
	p.code = exitUsage
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which build this is", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := fmt.Fprintf(p.stdout, "serval-worker %s\n", version()); err != nil {
				return &failure{err}
			}
			return nil
		},
	}
}

// stamped is the version that a release is built as; the linker sets it.
var stamped string

// version says which build this is.
func version() string { return settings.Version(stamped) }
