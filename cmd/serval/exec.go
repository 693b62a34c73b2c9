package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/wallet"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// The exit codes of a program that did not come to run, as shells have them.
const (
	exitNotExecutable = 126
	exitNoProgram     = 127
)

// rivals are the variables by which AWS's tools would find other credentials
// than ours.
var rivals = []string{
	"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
	"AWS_CREDENTIAL_EXPIRATION", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE",
	"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
	"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
}

func (p *program) execCommand() *cobra.Command {
	var ask wallet.Ask
	var region string
	var serve bool
	c := p.command("exec ROLE -- COMMAND [ARGUMENT...]", "Run a command with credentials of a role", cobra.MinimumNArgs(1), func(c *cobra.Command, args []string) error {
		n := c.ArgsLenAtDash()
		if n != 1 || len(args) < 2 {
			return misused("write it so: serval exec ROLE -- COMMAND")
		}
		return p.runAs(c.Context(), args[0], &ask, region, serve, args[1:])
	})
	c.Long = `The command finds the credentials in its environment; other credentials that are there are taken out of it. With --serve, and
always where sessions are leases, it fetches them from serval instead, as often as it needs: see serval serve.

The exit code is the command's; 127 where there is no such command, 126 where it cannot be run.`
	execFlags(c, &ask, &region, &serve)
	c.ValidArgsFunction = p.completeRole
	return c
}

func execFlags(c *cobra.Command, ask *wallet.Ask, region *string, serve *bool) {
	sessionFlags(c, ask)
	c.Flags().StringVar(region, "region", "", "region for the command (default: as it is)")
	c.Flags().BoolVar(serve, "serve", false, "let the command fetch credentials as often as it needs")
}

func (p *program) shellCommand() *cobra.Command {
	var ask wallet.Ask
	var region string
	var serve bool
	c := p.command("shell ROLE", "Start a shell with credentials of a role", cobra.MaximumNArgs(1), func(c *cobra.Command, args []string) error {
		name := p.getenv("SHELL")
		if name == "" && runtime.GOOS == "windows" {
			name = "powershell.exe"
		} else if name == "" {
			name = "/bin/sh"
		}
		return p.runAs(c.Context(), roleArg(args), &ask, region, serve, []string{name})
	})
	c.Long = "As serval exec, with your shell ($SHELL) for the command."
	execFlags(c, &ask, &region, &serve)
	c.ValidArgsFunction = p.completeRole
	return c
}

// runAs runs a command with credentials of the role that text means, and ends as
// it does.
func (p *program) runAs(ctx context.Context, text string, ask *wallet.Ask, region string, serve bool, command []string) error {
	held, err := p.credentials(ctx, text, ask)
	if err != nil {
		return err
	}
	environ := slices.DeleteFunc(slices.Clone(p.environ), func(text string) bool {
		name, _, _ := strings.Cut(text, "=")
		return slices.Contains(rivals, name) || region != "" && (name == "AWS_REGION" || name == "AWS_DEFAULT_REGION")
	})
	if region != "" {
		environ = append(environ, "AWS_REGION="+region, "AWS_DEFAULT_REGION="+region) // the one is of SDKs, the other of the older AWS CLI
	}
	variables := held.Variables()
	if serve || !held.RenewAt.IsZero() {
		s, err := p.newServer(*ask, 0)
		if err != nil {
			return err
		}
		defer s.Close()
		// A default profile would come before what is served.
		variables = append(s.variables(), [2]string{"AWS_CONFIG_FILE", os.DevNull}, [2]string{"AWS_SHARED_CREDENTIALS_FILE", os.DevNull})
	}
	for _, v := range variables {
		environ = append(environ, v[0]+"="+v[1])
	}
	if isTerminal(p.stderr) {
		p.note("%s until %s.", ask.Role, p.moment(wire.Time{Time: held.EndsAt.Time}))
	}
	p.code, err = child(command, environ, p)
	return err
}

// child runs a command to its end and returns its exit code. Signals of the
// terminal reach it by themselves, SIGTERM is passed on; this process outlives
// both.
func child(command, environ []string, p *program) (code int, err error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	c := exec.Command(command[0], command[1:]...)
	c.Env, c.Stdin, c.Stdout, c.Stderr = environ, p.stdin, p.stdout, p.stderr
	if err := c.Start(); err != nil {
		p.note("%s: %s", command[0], reason(err))
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return exitNoProgram, nil
		}
		return exitNotExecutable, nil
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for {
		select {
		case s := <-signals:
			if s != os.Interrupt {
				_ = c.Process.Signal(s) // it may have ended
			}
		case err := <-ended:
			exited, ok := errors.AsType[*exec.ExitError](err)
			if err != nil && !ok {
				return 0, fmt.Errorf("running %s: %w", command[0], err)
			}
			if ok && exited.ExitCode() < 0 {
				if s, ok := exited.Sys().(interface{ Signal() syscall.Signal }); ok {
					return 128 + int(s.Signal()), nil // as shells say it
				}
				return exitFailed, nil
			}
			return c.ProcessState.ExitCode(), nil
		}
	}
}

// reason returns why a program did not start.
func reason(err error) string {
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "there is no such command"
	case errors.Is(err, fs.ErrPermission):
		return "it may not be run"
	default:
		return err.Error()
	}
}
