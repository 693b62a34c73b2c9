package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/catalogue"
	"github.com/serval-bridge/serval-bridge/internal/client"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wallet"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// state says where a request stands.
func (p *program) state(r wire.Request) string {
	switch {
	case r.Status == string(serval.StatusPending):
		return "waits for " + wallet.Approvers(r)
	case r.Status == string(serval.StatusApproved) && r.Suspended != "":
		return "suspended"
	case r.Status == string(serval.StatusApproved) && !r.EndsAt.IsZero():
		return "until " + p.moment(r.EndsAt)
	case r.Status == string(serval.StatusApproved) && r.StartAt.After(p.now()):
		return "from " + p.moment(r.StartAt)
	case r.Status == string(serval.StatusApproved):
		return "approved, " + serval.Length(r.Minutes)
	case r.EndedBy != nil:
		return r.Status + " (" + *r.EndedBy + ")" // time, unused or done
	default:
		return r.Status
	}
}

// label names a request's role as it can be typed.
func label(r wire.Request) string {
	return catalogue.Entry{AccountID: r.AccountID, AccountName: r.AccountName, Name: r.RoleName}.Label()
}

// showRequests prints requests.
func (p *program) showRequests(list []wire.Request, whose bool) error {
	if p.output == "json" {
		return p.json(append([]wire.Request{}, list...))
	}
	headings := []string{"REQUEST", "ROLE", "FOR", "STATE", "REASON"}
	if whose {
		headings = append([]string{"PERSON"}, headings...)
	}
	rows := make([][]string, len(list))
	for i, r := range list {
		rows[i] = []string{r.ID, label(r), serval.Length(r.Minutes), p.state(r), r.Justification}
		if whose {
			rows[i] = append([]string{r.Person.Email}, rows[i]...)
		}
	}
	return p.table(headings, rows)
}

// spanned is what span reads; letters may have spaces between.
var spanned = regexp.MustCompile(`^(?:(\d{1,3})d)?(?:(\d{1,4})h)?(?:(\d{1,6})m(?:in)?)?$`)

// maxSpan is the longest span, in minutes.
const maxSpan = 366 * 1440

// span is a stretch of time as people say it, and as it is said to them: 2h, 90m,
// 1h30m, 1d, 2 h 30 min.
func span(text string) (minutes int, err error) {
	if parts := spanned.FindStringSubmatch(strings.ReplaceAll(text, " ", "")); parts != nil {
		for i, unit := range []int{1440, 60, 1} {
			n, _ := strconv.Atoi("0" + parts[i+1]) // a few digits, or none
			minutes += n * unit
		}
	}
	if minutes < 1 || minutes > maxSpan {
		return 0, misused("%q is not a length of time, such as 90m, 2h, 1h30m or 1d.", serval.Clip(text, 40))
	}
	return minutes, nil
}

// fitting adds to a refusal of a span, or for want of a reason, and to no other, how
// one is said here.
func fitting(err error, howLong string) error {
	refused, ok := errors.AsType[*serval.Refusal](err)
	switch {
	case ok && refused.Detail["cause"] == "justification":
		return serval.Refuse(refused.Kind, `%s Say why: --reason "…".`, err)
	case howLong == "" || !ok || refused.Detail["max_minutes"] == "":
		return err
	}
	return serval.Refuse(refused.Kind, "%s You said --for %s; it takes 90m, 2h, 1h30m or 1d.", err, serval.Clip(howLong, 40))
}

// instant is a time as people say it: RFC 3339, a date and a time here, a time of
// the next 24 hours, or +2h.
func instant(text string, at time.Time) (time.Time, error) {
	if after, ok := strings.CutPrefix(text, "+"); ok {
		m, err := span(after)
		return at.Add(time.Duration(m) * time.Minute), err
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, form := range []string{"2006-01-02 15:04", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(form, text, at.Location()); err == nil {
			return t, nil
		}
	}
	t, err := time.ParseInLocation("15:04", text, at.Location())
	if err != nil {
		return time.Time{}, misused("%q is not a time, such as 14:30, 2026-01-31 14:30 or +2h.", serval.Clip(text, 40))
	}
	t = time.Date(at.Year(), at.Month(), at.Day(), t.Hour(), t.Minute(), 0, 0, at.Location())
	if !t.After(at) {
		t = t.AddDate(0, 0, 1)
	}
	return t, nil
}

func (p *program) requestCommand() *cobra.Command {
	var howLong, start string
	var ask wire.NewRequest
	var wait bool
	c := p.command("request ROLE...", "Ask for a role, or for several", cobra.ArbitraryArgs, func(c *cobra.Command, args []string) (err error) {
		ctx := c.Context()
		if howLong != "" {
			if ask.Minutes, err = span(howLong); err != nil {
				return err
			}
		}
		if start != "" {
			at, err := instant(start, p.now())
			if err != nil {
				return err
			}
			ask.StartAt = wire.Time{Time: at}
		}
		if len(args) == 0 {
			args = []string{""}
		}
		for _, text := range args {
			arn, err := p.role(ctx, text)
			if err != nil {
				return err
			}
			ask.RoleARNs = append(ask.RoleARNs, arn.String())
		}
		var made []wire.Request
		err = p.with(ctx, func(b *client.Client) error {
			ask := ask
			if ask.Minutes == 0 {
				if ask.Minutes, err = recommended(ctx, b, ask.RoleARNs); err != nil {
					return err
				}
			}
			if len(ask.RoleARNs) == 1 {
				ask.RoleARN, ask.RoleARNs = ask.RoleARNs[0], nil
			}
			made, err = b.Ask(ctx, ask)
			return fitting(err, howLong)
		})
		if err != nil {
			return err
		}
		if wait {
			return p.wait(ctx, made)
		}
		return p.showRequests(made, false)
	})
	c.Flags().StringVar(&howLong, "for", "", "for how long: 90m, 2h, 1h30m (default: what the access policy recommends)")
	c.Flags().StringVar(&ask.Justification, "reason", "", "why, for those who approve and for the audit log")
	c.Flags().StringVar(&ask.Ticket, "ticket", "", "ticket that it belongs to")
	c.Flags().StringVar(&start, "start", "", "from when on: 14:30, 2026-01-31 14:30, +2h (default: from the first use)")
	c.Flags().BoolVar(&wait, "wait", false, "wait until it is decided; Ctrl-C leaves the request as it is")
	c.Flags().BoolVar(&ask.BreakGlass, "break-glass", false, "approve it yourself where the policy allows that; everybody concerned is told")
	c.ValidArgsFunction = p.completeRole
	return c
}

// recommended returns for how long to ask where nobody has said: the least that
// is recommended for any of the roles.
func recommended(ctx context.Context, b *client.Client, arns []string) (least int, err error) {
	for _, text := range arns {
		arn, err := serval.ParseRoleARN(text)
		if err != nil {
			return 0, err
		}
		r, err := b.Role(ctx, arn.AccountID, arn.Name)
		if err != nil {
			return 0, err
		}
		if n := wallet.Minutes(r); least == 0 || n < least {
			least = n
		}
	}
	return least, nil
}

// How often a request that waits is looked at: often at first.
const (
	firstLook = time.Second
	lastLook  = 10 * time.Second
)

// wait waits until the requests are decided, and says so.
func (p *program) wait(ctx context.Context, made []wire.Request) error {
	began, every := p.now(), firstLook
	live := isTerminal(p.stderr)
	for {
		var open []wire.Request
		for _, r := range made {
			if r.Status == string(serval.StatusPending) {
				open = append(open, r)
			}
		}
		if len(open) == 0 {
			break
		}
		if live {
			fmt.Fprintf(p.stderr, "\r\x1b[KWaiting for %s, %s so far (Ctrl-C leaves the request) ", cell(serval.Clip(wallet.Approvers(open[0]), 40)), p.now().Sub(began).Round(time.Second))
		} else if every == firstLook {
			p.note("waiting for %s.", wallet.Approvers(open[0]))
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			if live {
				fmt.Fprintln(p.stderr)
			}
			p.note("the request stays (serval requests); withdraw it with: serval done %s", open[0].ID)
			return context.Canceled
		}
		every = min(lastLook, every*5/4)
		for i := range made {
			if err := p.look(ctx, &made[i]); err != nil {
				return err
			}
		}
	}
	if live && p.now().Sub(began) > firstLook {
		fmt.Fprint(p.stderr, "\r\x1b[K")
	}
	if err := p.showRequests(made, false); err != nil {
		return err
	}
	for _, r := range made {
		if r.Status != string(serval.StatusApproved) {
			return &wallet.NoAccess{Reason: fmt.Sprintf("The request for %s is %s%s.", label(r), r.Status, because(r))}
		}
	}
	return nil
}

// look looks at a request again. A bridge that is away for a moment is asked
// again with the next look.
func (p *program) look(ctx context.Context, r *wire.Request) error {
	return p.with(ctx, func(b *client.Client) error {
		again, err := b.Request(ctx, r.ID)
		if _, away := errors.AsType[*client.Failure](err); away || serval.IsRefusal(err, serval.Exhausted) {
			return nil
		}
		if err == nil {
			*r = again
		}
		if ctx.Err() != nil {
			return nil // it is said above
		}
		return err
	})
}

// because returns what was said with the last decision.
func because(r wire.Request) string {
	if n := len(r.Allocations); n > 0 && r.Allocations[n-1].Reason != "" {
		return ": " + serval.Clip(cell(r.Allocations[n-1].Reason), 300)
	}
	return ""
}

func (p *program) requestsCommand() *cobra.Command {
	var all bool
	var status string
	c := p.command("requests", "List your requests", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		var list []wire.Request
		err := p.with(c.Context(), func(b *client.Client) error {
			list = nil
			statuses := []string{string(serval.StatusPending), string(serval.StatusApproved)}
			if all || status != "" {
				statuses = []string{status}
			}
			for _, s := range statuses {
				some, err := b.Requests(c.Context(), s)
				if err != nil {
					return err
				}
				list = append(list, some...)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return p.showRequests(list, false)
	})
	c.Flags().BoolVar(&all, "all", false, "also those that are over")
	c.Flags().StringVar(&status, "status", "", "only those that are pending, approved, denied, expired, revoked, canceled or failed")
	return c
}

func (p *program) approvalsCommand() *cobra.Command {
	return p.command("approvals", "List what waits for your decision", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		list, err := p.approvals(c.Context())
		if err != nil {
			return err
		}
		if len(list) == 0 && p.output != "json" {
			p.note("nothing waits for your decision.")
			return nil
		}
		if p.output == "json" {
			return p.json(append([]wire.Request{}, list...))
		}
		for i, r := range list {
			if i > 0 {
				fmt.Fprintln(p.stdout)
			}
			if err := p.showWaiting(r); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *program) approvals(ctx context.Context) (list []wire.Request, err error) {
	err = p.with(ctx, func(b *client.Client) (err error) {
		list, err = b.Approvals(ctx)
		return err
	})
	return list, err
}

// asked returns for how long a request waits to be approved, and why returns what
// was said why; of one that waits for nothing it is what is in force.
func asked(r wire.Request) int {
	if n := len(r.Allocations); n > 0 {
		return r.Allocations[n-1].Minutes
	}
	return r.Minutes
}

func why(r wire.Request) string {
	if r.Round() > 0 {
		return r.Allocations[r.Round()].Justification
	}
	return r.Justification
}

// showWaiting prints what there is to know for whoever decides a request.
func (p *program) showWaiting(r wire.Request) error {
	what := "asks for"
	if r.Round() > 0 {
		what = "asks for more time with"
	}
	if _, err := fmt.Fprintf(p.stdout, "%s  %s\n", cell(r.ID), cell(fmt.Sprintf("%s %s %s, %s", r.Person.Email, what, label(r), serval.Length(asked(r))))); err != nil {
		return err
	}
	reason := cmp.Or(why(r), "nothing was said")
	if r.Ticket != "" {
		reason += " (" + r.Ticket + ")"
	}
	lines := [][2]string{{"  why", reason}}
	if r.StartAt.After(p.now()) {
		lines = append(lines, [2]string{"  start", "not before " + p.moment(r.StartAt)})
	}
	if d := r.ToDecide; d != nil {
		can := d.Summary
		if len(d.Marks) > 0 {
			can += " [" + strings.ReplaceAll(strings.Join(d.Marks, ", "), "_", " ") + "]"
		}
		if d.AtLeast {
			can += " Not everything could be looked at."
		}
		before := "never"
		if d.Earlier.Times > 0 {
			before = fmt.Sprintf("%d times, %d of them approved; last %s", d.Earlier.Times, d.Earlier.Approved, p.moment(d.Earlier.LastAt))
			if d.Earlier.More {
				before = "more than " + before
			}
		}
		if r.Trust != nil && r.Trust.Verdict == "fails" {
			lines = append(lines, [2]string{"  aws", "refuses them: as the role and its account are now it opens no session"})
		}
		lines = append(lines, [2]string{"  can", can}, [2]string{"  changed", p.since(d.Since)}, [2]string{"  before", before})
	}
	return p.facts(append(lines, [2]string{"  asked", p.moment(r.CreatedAt)}))
}

// since says what changed of a role since it was last approved.
func (p *program) since(s *wire.Since) string {
	if s == nil {
		return "it was never approved before: nothing to compare it with"
	}
	when := "since it was last approved, " + p.moment(s.ApprovedAt)
	if !s.Own {
		when = "since it was last approved for somebody else, " + p.moment(s.ApprovedAt)
	}
	switch {
	case s.Escalated:
		when = "MAKES AN ADMINISTRATOR now, and did not before; " + when
	case len(s.Sentences) == 0:
		return "nothing " + when
	}
	text := when + ": " + strings.Join(s.Sentences, " ")
	if s.More > 0 {
		text += fmt.Sprintf(" And %d more.", s.More)
	}
	return text
}

// maxInbox is how many requests are listed beside an error.
const maxInbox = 10

// inbox says what waits for somebody's decision.
func inbox(list []wire.Request) string {
	if len(list) == 0 {
		return "Nothing waits for your decision."
	}
	text := "For your decision there waits"
	for _, r := range list[:min(len(list), maxInbox)] {
		text += fmt.Sprintf("\n  %s  %s, %s, for %s", r.ID, r.Person.Email, label(r), serval.Length(asked(r)))
	}
	if more := len(list) - maxInbox; more > 0 {
		text += fmt.Sprintf("\n  and %d more (serval approvals)", more)
	}
	return text
}

// waiting returns the ids that were given; on a terminal, without any, somebody
// chooses one of those that wait for them, which is returned as it was seen.
func (p *program) waiting(ctx context.Context, args []string) (ids []string, seen *wire.Request, err error) {
	wrong := slices.IndexFunc(args, func(text string) bool { return !strings.HasPrefix(text, "req_") })
	if len(args) > 0 && wrong < 0 {
		return args, nil, nil
	}
	tty := p.tty()
	if len(args) == 0 && tty == nil {
		return nil, nil, misused("say which request (serval approvals lists them).")
	}
	list, err := p.approvals(ctx)
	if err != nil {
		return nil, nil, err
	}
	if wrong >= 0 {
		return nil, nil, misused("%q is not a request: its id begins with req_. %s", serval.Clip(args[wrong], 100), inbox(list))
	}
	if len(list) == 0 {
		return nil, nil, serval.Refuse(serval.NotFound, "Nothing waits for your decision.")
	}
	entries := make([]catalogue.Entry, len(list))
	for i, r := range list {
		entries[i] = catalogue.Entry{ARN: r.ID, AccountName: r.AccountName, AccountID: r.AccountID, Name: r.RoleName,
			Description: r.Person.Email + ", " + serval.Length(asked(r)) + ": " + why(r)}
	}
	e, err := tty.pick(ctx, "Which request?", entries)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(list, func(r wire.Request) bool { return r.ID == e.ARN })
	return []string{e.ARN}, &list[i], nil
}

func (p *program) approveCommand() *cobra.Command {
	var howLong, reason string
	c := p.command("approve REQUEST...", "Approve what waits for you", cobra.ArbitraryArgs, func(c *cobra.Command, args []string) (err error) {
		d := wire.Decision{Outcome: "approve", Reason: reason}
		if howLong != "" {
			if d.Minutes, err = span(howLong); err != nil {
				return err
			}
		}
		return fitting(p.decide(c.Context(), args, d), howLong)
	})
	c.Flags().StringVar(&howLong, "for", "", "for how long, if not as asked: 90m, 2h")
	c.Flags().StringVar(&reason, "reason", "", "why, for whoever asked and for the audit log")
	return c
}

func (p *program) denyCommand() *cobra.Command {
	var reason string
	c := p.command("deny REQUEST...", "Deny what waits for you", cobra.ArbitraryArgs, func(c *cobra.Command, args []string) error {
		return p.decide(c.Context(), args, wire.Decision{Outcome: "deny", Reason: reason})
	})
	c.Flags().StringVar(&reason, "reason", "", "why, for whoever asked and for the audit log")
	return c
}

// decide decides what waits now, or was chosen from: not what is asked for while
// somebody signs in for it, or thinks.
func (p *program) decide(ctx context.Context, args []string, d wire.Decision) error {
	ids, seen, err := p.waiting(ctx, args)
	if err != nil {
		return err
	}
	return p.each(ids, func(id string) (r wire.Request, err error) {
		if seen == nil {
			err = p.with(ctx, func(b *client.Client) (err error) {
				r, err = b.Request(ctx, id)
				return err
			})
			if err != nil {
				return r, err
			}
			seen = &r
		}
		round := seen.Round()
		d.Round, seen = &round, nil
		err = p.with(ctx, func(b *client.Client) (err error) {
			r, err = b.Decide(ctx, id, d)
			return err
		})
		return r, err
	}, true)
}

// each does something to each request, shows what became of those that it was
// done to, and returns what refused the first of the others.
func (p *program) each(ids []string, do func(id string) (wire.Request, error), whose bool) error {
	var done []wire.Request
	var first error
	for _, id := range ids {
		r, err := do(id)
		if err != nil {
			if first = err; len(ids) > 1 {
				first = fmt.Errorf("%s: %w", serval.Clip(id, 100), err)
			}
			break
		}
		done = append(done, r)
	}
	if len(done) > 0 || first == nil {
		if err := p.showRequests(done, whose); err != nil {
			return err
		}
	}
	return first
}

// own returns the person's open request that text means: its id, or its role.
func (p *program) own(ctx context.Context, text string) (r wire.Request, err error) {
	if strings.HasPrefix(text, "req_") {
		err = p.with(ctx, func(b *client.Client) (err error) {
			r, err = b.Request(ctx, text)
			return err
		})
		return r, err
	}
	arn, err := p.role(ctx, text)
	if err != nil {
		return r, err
	}
	err = p.with(ctx, func(b *client.Client) error {
		role, err := b.Role(ctx, arn.AccountID, arn.Name)
		if err == nil && role.MyRequest == nil {
			err = &wallet.NoAccess{Reason: fmt.Sprintf("You have no request for %s that is open.", arn)}
		}
		if err == nil {
			r = *role.MyRequest
		}
		return err
	})
	return r, err
}

func (p *program) extendCommand() *cobra.Command {
	var howLong string
	var e wire.Extension
	c := p.command("extend ROLE|REQUEST", "Ask for more time", cobra.MaximumNArgs(1), func(c *cobra.Command, args []string) (err error) {
		if e.Minutes, err = span(howLong); err != nil {
			return err
		}
		text := roleArg(args)
		if text == "" {
			if text, err = p.onlyAccess(c.Context(), "name the one that is to last longer"); err != nil {
				return err
			}
		}
		r, err := p.own(c.Context(), text)
		if err != nil {
			return err
		}
		err = p.with(c.Context(), func(b *client.Client) (err error) {
			r, err = b.Extend(c.Context(), r.ID, e)
			return fitting(err, howLong)
		})
		if err != nil {
			return err
		}
		return p.showRequests([]wire.Request{r}, false)
	})
	c.Flags().StringVar(&howLong, "for", "1h", "how long from now on: 90m, 2h")
	c.Flags().StringVar(&e.Justification, "reason", "", "why, for those who approve and for the audit log")
	c.ValidArgsFunction = p.completeRole
	return c
}

// onlyAccess returns the request of the access that the person has. Of several they choose
// on a terminal; elsewhere they are told what to do.
func (p *program) onlyAccess(ctx context.Context, what string) (id string, err error) {
	var list []wire.Request
	err = p.with(ctx, func(b *client.Client) (err error) {
		list, err = b.Requests(ctx, string(serval.StatusApproved))
		return err
	})
	switch {
	case err != nil:
		return "", err
	case len(list) == 0:
		return "", &wallet.NoAccess{Reason: "You have no access now."}
	case len(list) == 1:
		return list[0].ID, nil
	}
	entries := make([]catalogue.Entry, len(list))
	var roles []string
	for i, r := range list {
		entries[i] = catalogue.Entry{ARN: r.ID, AccountName: r.AccountName, AccountID: r.AccountID, Name: r.RoleName, Description: p.state(r)}
		roles = append(roles, entries[i].Label())
	}
	if tty := p.tty(); tty != nil {
		chosen, err := tty.pick(ctx, "Which access?", entries)
		return chosen.ARN, err
	}
	return "", misused("you have access to several roles: %s: %s.", what, strings.Join(roles, ", "))
}

func (p *program) doneCommand() *cobra.Command {
	var all bool
	c := p.command("done [ROLE|REQUEST...]", "End your access early, or withdraw a request", cobra.ArbitraryArgs, func(c *cobra.Command, args []string) error {
		ctx := c.Context()
		if all {
			if len(args) > 0 {
				return misused("either --all, or which ones.")
			}
			err := p.with(ctx, func(b *client.Client) error {
				args = nil
				for _, s := range []serval.Status{serval.StatusApproved, serval.StatusPending} {
					list, err := b.Requests(ctx, string(s))
					if err != nil {
						return err
					}
					for _, r := range list {
						args = append(args, r.ID)
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		} else if len(args) == 0 {
			only, err := p.onlyAccess(ctx, "name those that you are done with, or say --all")
			if err != nil {
				return err
			}
			args = []string{only}
		}
		return p.each(args, func(text string) (wire.Request, error) {
			r, err := p.own(ctx, text)
			if err != nil {
				return r, err
			}
			err = p.with(ctx, func(b *client.Client) (err error) {
				if r.ClockStartedAt.IsZero() {
					r, err = b.Cancel(ctx, r.ID)
				} else {
					r, err = b.Done(ctx, r.ID)
				}
				return err
			})
			if err != nil {
				return r, err
			}
			arn, err := serval.ParseRoleARN(r.RoleARN)
			if err != nil {
				return r, err
			}
			return r, p.wallet().Drop(arn)
		}, false)
	})
	c.Flags().BoolVar(&all, "all", false, "all of them")
	c.ValidArgsFunction = p.completeRole
	return c
}
