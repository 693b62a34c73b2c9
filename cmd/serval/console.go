package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/client"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wallet"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

func (p *program) consoleCommand() *cobra.Command {
	var ask wallet.Ask
	var service, region, with string
	var show bool
	c := p.command("console ROLE", "Open the AWS console as a role", cobra.MaximumNArgs(1), func(c *cobra.Command, args []string) (err error) {
		ctx := c.Context()
		if ask.Role, err = p.role(ctx, roleArg(args)); err != nil {
			return err
		}
		r, err := p.wallet().Access(ctx, ask)
		if err != nil {
			return err
		}
		link := wire.NewConsoleLink{RequestID: r.ID, Service: service, Region: region}
		if ask.Narrow != (wire.Narrow{}) {
			link.Narrow = &ask.Narrow
		}
		var address serval.Secret
		err = p.with(ctx, func(b *client.Client) (err error) {
			address, err = b.ConsoleLink(ctx, link)
			return err
		})
		if err != nil {
			return err
		}
		mayOpen := !show && (with != "" || !p.config.NoInput)
		if mayOpen && p.browse(address.Reveal(), with) {
			p.note("%s opens in your browser.", ask.Role)
			return nil
		}
		if !show {
			p.note("no browser opens here. Within a minute, open this in one in which you are signed in:")
		}
		_, err = fmt.Fprintln(p.stdout, address.Reveal())
		return err
	})
	c.Long = `The way to the console is good once, within a minute, in a browser in which you are signed in to the bridge: whoever else sees
the address can do nothing with it.

Several side by side: switch on "multi-session support" in the AWS console, then each opens in a tab of its own. Or give each its
browser profile: --browser "firefox -P prod".`
	sessionFlags(c, &ask)
	c.Flags().StringVar(&service, "service", "", "service to open, such as s3 or cloudwatch")
	c.Flags().StringVar(&region, "region", "", "region to open")
	c.Flags().StringVar(&with, "browser", "", "command that opens the address (default: $BROWSER, or that of the system)")
	c.Flags().BoolVar(&show, "print", false, "print the address and open nothing")
	c.ValidArgsFunction = p.completeRole
	return c
}
