package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/client"
	"github.com/serval-bridge/serval-bridge/internal/shell"
	"github.com/serval-bridge/serval-bridge/internal/wallet"
)

// wallet returns the wallet of whoever is signed in.
func (p *program) wallet() *wallet.Wallet {
	origin, err := p.origin()
	if err != nil {
		origin = "" // nothing is kept of no bridge, and With says what is missing
	}
	return &wallet.Wallet{Origin: origin, Keep: p.keep, Now: p.now, With: func(ctx context.Context, f func(wallet.Bridge) error) error {
		return p.with(ctx, func(b *client.Client) error { return f(b) })
	}}
}

// sessionFlags adds the flags that say what credentials are wanted for.
func sessionFlags(c *cobra.Command, ask *wallet.Ask) {
	f := c.Flags()
	f.BoolVar(&ask.Narrow.ReadOnly, "read-only", false, "a session that may only read")
	f.BoolVar(&ask.Narrow.NoChaining, "no-chaining", false, "a session that may assume no other role")
	f.StringVar(&ask.Narrow.Network, "network", "", "a session that works from this network only, by the name that the bridge has for it")
	f.BoolVar(&ask.Request, "request", false, "where there is no access and its policy asks nobody, request it")
	f.StringVar(&ask.Reason, "reason", "", "the reason that --request gives")
}

// credentials returns credentials of the role that text means, and tells what the
// person should know.
func (p *program) credentials(ctx context.Context, text string, ask *wallet.Ask) (held wallet.Held, err error) {
	if ask.Role, err = p.role(ctx, text); err != nil {
		return held, err
	}
	if held, err = p.wallet().Credentials(ctx, *ask); err != nil {
		return held, err
	}
	for _, note := range held.Notes {
		p.note("%s", cell(note))
	}
	return held, nil
}

func (p *program) credsCommand() *cobra.Command {
	var ask wallet.Ask
	c := p.command("creds ROLE", "Print credentials for credential_process", cobra.MaximumNArgs(1), func(c *cobra.Command, args []string) error {
		held, err := p.credentials(c.Context(), roleArg(args), &ask)
		if err != nil {
			return err
		}
		text, err := json.Marshal(held.Process())
		if err != nil {
			return fmt.Errorf("encoding credentials: %w", err)
		}
		_, err = p.stdout.Write(append(text, '\n'))
		return err
	})
	c.Long = `Prints exactly one JSON object, the form that credential_process of the AWS configuration reads (serval configure writes that).
All else goes to stderr. Credentials are kept until three minutes before their end, and many calls at once open one session.

Exit codes: 0 printed, 2 wrong use, 3 nobody is signed in, 4 no access now, 5 the bridge was not reached, 6 AWS refused,
7 no such role, 1 anything else.`
	sessionFlags(c, &ask)
	c.ValidArgsFunction = p.completeRole
	return c
}

func (p *program) envCommand() *cobra.Command {
	var ask wallet.Ask
	var kind, region string
	c := p.command("env ROLE", "Print credentials as lines for a shell", cobra.MaximumNArgs(1), func(c *cobra.Command, args []string) error {
		k, err := p.shellKind(kind)
		if err != nil {
			return err
		}
		held, err := p.credentials(c.Context(), roleArg(args), &ask)
		if err != nil {
			return err
		}
		variables := held.Variables()
		if region != "" {
			variables = append(variables, [2]string{"AWS_REGION", region}, [2]string{"AWS_DEFAULT_REGION", region})
		}
		_, err = fmt.Fprint(p.stdout, shell.Lines(k, variables))
		return err
	})
	c.Long = `  eval "$(serval env ROLE)"                       bash, zsh
  serval env ROLE | source                        fish
  serval env ROLE | Out-String | Invoke-Expression   PowerShell

The variables are not renewed; serval exec, serval shell and profiles are safer.`
	sessionFlags(c, &ask)
	shellFlag(c, &kind)
	c.Flags().StringVar(&region, "region", "", "the region as well")
	c.ValidArgsFunction = p.completeRole
	return c
}

func shellFlag(c *cobra.Command, kind *string) {
	c.Flags().StringVar(kind, "shell", "", "bash, zsh, fish or powershell (default: yours)")
}

// shellKind returns the shell that was named, or the person's own.
func (p *program) shellKind(name string) (shell.Kind, error) {
	own := name == ""
	if own {
		name = strings.TrimSuffix(filepath.Base(p.getenv("SHELL")), ".exe")
		if name == "." && runtime.GOOS == "windows" {
			name = "powershell"
		}
	}
	switch name {
	case "fish":
		return shell.Fish, nil
	case "powershell", "pwsh":
		return shell.PowerShell, nil
	case "bash", "zsh", "sh":
		return shell.Bash, nil
	}
	if own {
		return shell.Bash, nil
	}
	return "", misused("%q is not a shell that serval writes for: bash, zsh, fish or powershell.", name)
}
