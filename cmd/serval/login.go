package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/client"
	"github.com/serval-bridge/serval-bridge/internal/keep"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A signIn is what is kept of a sign-in.
type signIn struct {
	Token  string    `json:"token"`
	ID     string    `json:"id"`
	Email  string    `json:"email"`
	EndsAt time.Time `json:"ends_at"`
}

// Format writes [redacted] for every verb.
func (l signIn) Format(f fmt.State, _ rune) { io.WriteString(f, "[redacted]") }

// askAgain is for how long after a no nobody is asked: a tool calls many times.
const askAgain = 30 * time.Second

// How long somebody may take to sign in: when they asked to, and when a tool
// stumbled over it, which has deadlines of its own.
const (
	loginTime    = 10 * time.Minute
	stumbledTime = 2 * time.Minute
)

func loginName(origin string) keep.Name { return keep.Name{Of: "login " + origin} }

// failedName is what is kept of a sign-in that came to nothing.
func failedName(origin string) keep.Name { return keep.Name{Of: "login " + origin, Which: "failed"} }

// login returns the login that is kept, if there is one.
func (p *program) login(origin string) (signIn, bool, error) {
	var l signIn
	if p.keep == nil {
		return l, false, p.unkept
	}
	ok, err := p.keep.Read(loginName(origin), &l)
	return l, ok && l.Token != "", err
}

// A method is how somebody signs in.
type method struct {
	device    bool
	noBrowser bool
	port      int
}

func (p *program) loginCommand() *cobra.Command {
	var m method
	c := p.command("login [ADDRESS]", "Sign in through the browser, for eight hours", cobra.MaximumNArgs(1), func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			p.config.BridgeURL = args[0]
		}
		bridge, err := p.open()
		if err != nil {
			return err
		}
		if p.keep == nil {
			return p.unkept
		}
		ctx, cancel := context.WithTimeout(c.Context(), loginTime)
		defer cancel()
		old, had, err := p.login(bridge.Origin())
		if err != nil {
			p.note("%s", err)
		}
		token, err := p.arrive(ctx, bridge, m, p.stderr)
		if err != nil {
			return signInFailed(ctx, err)
		}
		if err := p.keepLogin(bridge, token); err != nil {
			return err
		}
		if had {
			p.endQuietly(c.Context(), bridge, old)
		}
		if len(args) == 1 && p.file.BridgeURL != bridge.Origin() {
			p.file.BridgeURL = bridge.Origin()
			if err := p.file.save(); err != nil {
				p.note("%s. Set SERVAL_BRIDGE_URL instead.", err)
			}
		}
		if p.output == "json" {
			return p.json(struct {
				Email  string    `json:"email"`
				EndsAt wire.Time `json:"ends_at"`
			}{token.Email, token.EndsAt})
		}
		_, err = fmt.Fprintf(p.stdout, "Signed in as %s until %s.\n", cell(token.Email), p.moment(token.EndsAt))
		return err
	})
	c.Long = `Opens the bridge's page in the browser, which asks whether to let this machine in, and waits until it has. The address of the
bridge is remembered. Where no browser opens the address is printed: over SSH forward the port (--port) from the machine with the
browser. --device is there only where the bridge allows it.`
	c.Flags().BoolVar(&m.device, "device", false, "sign in by a code that is typed in a browser elsewhere; only where the bridge allows it")
	c.Flags().BoolVar(&m.noBrowser, "no-browser", false, "print the address and open no browser")
	c.Flags().IntVar(&m.port, "port", 0, "port of 127.0.0.1 that the browser comes back to; 0 for any that is free")
	return c
}

// arrive has somebody sign in, and tells w what they have to do.
func (p *program) arrive(ctx context.Context, bridge *client.Client, m method, w io.Writer) (wire.ClientToken, error) {
	machine, err := os.Hostname()
	if err != nil {
		machine = "unnamed"
	}
	if m.device {
		d, err := bridge.StartDevice(ctx, machine)
		if err != nil {
			return wire.ClientToken{}, err
		}
		fmt.Fprintf(w, "Open %s in a browser, on this network, and type\n\n    %s\n\nNobody else may ask you to type a code: it would let them in as you. Waiting ...\n", d.VerificationURI, d.UserCode)
		return d.Wait(ctx)
	}
	if _, err := bridge.Me(ctx); err != nil && !serval.IsRefusal(err) {
		return wire.ClientToken{}, err // nobody waits for a page that does not come
	}
	a, err := bridge.Begin(ctx, m.port, machine)
	if err != nil {
		return wire.ClientToken{}, err
	}
	defer a.Close()
	if !m.noBrowser && p.browse(a.Address(), "") {
		fmt.Fprintf(w, "Your browser asks whether to let this machine in. If it does not open:\n\n    %s\n\nWaiting ...\n", a.Address())
	} else {
		fmt.Fprintf(w, "Open this in your browser:\n\n    %s\n\nIt comes back to port %d of this machine. Where the browser is on another one, forward the port first, there:\n\n    ssh -L %d:127.0.0.1:%d %s\n\nWaiting ...\n",
			a.Address(), a.Port(), a.Port(), a.Port(), client.Label(machine))
	}
	return a.Wait(ctx)
}

// signInFailed says what to do about a sign-in that came to nothing.
func signInFailed(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &needLogin{"nobody signed in in time. Begin again: serval login"}
	case serval.IsRefusal(err, serval.Denied):
		return &needLogin{err.Error()}
	default:
		return err
	}
}

// personName is whose what is kept of a bridge is.
func personName(origin string) keep.Name { return keep.Name{Of: "person " + origin} }

// maxSession is the longest that AWS lets a session last.
const maxSession = 12 * time.Hour

// keepLogin keeps a login. What is kept of somebody else's goes first: their
// credentials would work on, and say that it was them.
func (p *program) keepLogin(bridge *client.Client, t wire.ClientToken) error {
	var before string
	if ok, err := p.keep.Read(personName(bridge.Origin()), &before); err != nil || ok && before != t.Email {
		if err := p.keep.Forget(); err != nil {
			return err
		}
	}
	if err := p.keep.Write(personName(bridge.Origin()), t.Email, t.EndsAt.Add(maxSession+time.Hour)); err != nil {
		return err
	}
	ends := t.EndsAt.Add(-max(0, bridge.Skew()))
	return p.keep.Write(loginName(bridge.Origin()), signIn{t.AccessToken, t.LoginID, t.Email, t.EndsAt.Time}, ends)
}

// endQuietly ends a login that another one has taken the place of. If it cannot,
// the login ends by itself.
func (p *program) endQuietly(ctx context.Context, bridge *client.Client, l signIn) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_ = bridge.As(serval.NewSecret(l.Token)).EndLogin(ctx, l.ID)
}

// with calls f with the bridge as whoever is signed in. Where nobody is, and
// where the login turns out to have ended, somebody at the terminal is asked to
// sign in; where there is none it fails at once.
func (p *program) with(ctx context.Context, f func(*client.Client) error) error {
	bridge, err := p.open()
	if err != nil {
		return err
	}
	began := p.now()
	l, ok, err := p.login(bridge.Origin())
	if err != nil && p.tty() == nil {
		return &needLogin{err.Error()}
	}
	if !ok {
		l, err = p.stumble(ctx, bridge, began, signIn{}, "You are not signed in to "+bridge.Origin()+".")
		if err != nil {
			return err
		}
	}
	err = f(bridge.As(serval.NewSecret(l.Token)))
	if !serval.IsRefusal(err, serval.Unauthenticated, serval.LoginRequired) {
		return err
	}
	if l, err = p.stumble(ctx, bridge, began, l, err.Error()); err != nil {
		return err
	}
	return f(bridge.As(serval.NewSecret(l.Token)))
}

// stumble signs somebody in who came without a login, or with one that is good
// no more. Of many processes that do at once one asks, and all take its answer,
// also if that is no; serval login asks all the same.
func (p *program) stumble(ctx context.Context, bridge *client.Client, began time.Time, old signIn, reason string) (signIn, error) {
	reason = strings.TrimSuffix(reason, ".")
	command := "serval login"
	if remembered, err := client.Origin(p.file.BridgeURL); err != nil || remembered != bridge.Origin() {
		command += " " + bridge.Origin()
	}
	refused := &needLogin{reason + ". Sign in, and try again: " + command}
	if p.keep == nil {
		return signIn{}, errors.Join(refused, p.unkept)
	}
	tty := p.tty()
	if tty == nil {
		return signIn{}, refused
	}
	origin := bridge.Origin()
	unlock, err := p.keep.Lock(ctx, loginName(origin))
	if err != nil {
		return signIn{}, err
	}
	defer unlock()
	if l, ok, err := p.login(origin); err == nil && ok && l.Token != old.Token {
		return l, nil
	}
	var failed time.Time
	if ok, err := p.keep.Read(failedName(origin), &failed); err == nil && ok && failed.After(began.Add(-askAgain)) {
		return signIn{}, refused
	}
	tty.say("serval: %s.\n", cell(reason))
	waiting, cancel := context.WithTimeout(ctx, stumbledTime)
	defer cancel()
	token, err := p.arrive(waiting, bridge, method{}, tty.out)
	if err != nil {
		_ = p.keep.Write(failedName(origin), p.now(), p.now().Add(askAgain+stumbledTime)) // or the next one asks again
		return signIn{}, signInFailed(waiting, err)
	}
	if err := p.keepLogin(bridge, token); err != nil {
		return signIn{}, err
	}
	if old.Token != "" {
		p.endQuietly(ctx, bridge, old)
	}
	tty.say("serval: signed in as %s until %s.\n", cell(token.Email), p.moment(token.EndsAt))
	return signIn{token.AccessToken, token.LoginID, token.Email, token.EndsAt.Time}, nil
}

func (p *program) logoutCommand() *cobra.Command {
	return p.command("logout", "End the login, and forget all that is kept", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		if p.keep == nil {
			return p.unkept
		}
		bridge, err := p.open()
		if err != nil {
			return errors.Join(err, p.keep.Forget())
		}
		l, ok, _ := p.login(bridge.Origin()) // what cannot be read is forgotten too
		if err := p.keep.Forget(); err != nil {
			return err
		}
		if !ok {
			p.note("nobody was signed in. What was kept is gone.")
			return nil
		}
		err = bridge.As(serval.NewSecret(l.Token)).EndLogin(c.Context(), l.ID)
		if err != nil && !serval.IsRefusal(err, serval.Unauthenticated, serval.NotFound) {
			return fmt.Errorf("what was kept is gone from this machine, but the login goes on until %s unless you end it on the page Logins: %w", p.moment(wire.Time{Time: l.EndsAt}), err)
		}
		_, err = fmt.Fprintf(p.stdout, "Signed out. Sessions that are open go on until they end; end the access itself with: serval done\n")
		return err
	})
}

func (p *program) whoamiCommand() *cobra.Command {
	return p.command("whoami", "Say who is signed in, and until when", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		var me wire.Me
		err := p.with(c.Context(), func(b *client.Client) (err error) {
			me, err = b.Me(c.Context())
			return err
		})
		if err != nil {
			return err
		}
		if p.output == "json" {
			return p.json(me)
		}
		lines := [][2]string{{"email", me.Email}, {"bridge", p.bridge.Origin()}, {"login until", p.moment(me.LoginEndsAt)}}
		if until := me.IDTokenEndsAt; !until.IsZero() {
			lines = append(lines, [2]string{"sessions until", p.moment(until) + " (then the browser is asked once more)"})
		}
		lines = append(lines, [2]string{"groups", strings.Join(me.Groups, ", ")})
		for _, note := range []string{me.GroupsNote, me.Suspended} {
			if note != "" {
				lines = append(lines, [2]string{"note", note})
			}
		}
		return p.facts(lines)
	})
}
