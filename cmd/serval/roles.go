package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/catalogue"
	"github.com/serval-bridge/serval-bridge/internal/client"
	"github.com/serval-bridge/serval-bridge/internal/keep"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// catalogueLife is for how long what roles are called is kept: for completion, and
// so that account/role takes no call.
const catalogueLife = 24 * time.Hour

func catalogueName(origin string) keep.Name { return keep.Name{Of: "catalogue " + origin} }

func (p *program) rolesCommand() *cobra.Command {
	var f client.RoleFilter
	c := p.command("roles [TEXT]", "List the roles you are eligible for", cobra.MaximumNArgs(1), func(c *cobra.Command, args []string) error {
		f.Text = strings.Join(args, " ")
		roles, err := p.roles(c.Context(), f)
		if err != nil {
			return err
		}
		if p.output == "json" {
			return p.json(append([]wire.Role{}, roles...))
		}
		if len(roles) == 0 {
			p.note("no role that you are eligible for is there.")
			return nil
		}
		rows := make([][]string, len(roles))
		for i, e := range catalogue.Entries(roles) {
			rows[i] = []string{e.Label(), p.access(roles[i]), approval(roles[i]), trustWord(roles[i]), e.Description}
		}
		return p.table([]string{"ROLE", "ACCESS", "APPROVAL", "WORKS", "DESCRIPTION"}, rows)
	})
	c.Flags().StringVar(&f.AccountID, "account", "", "only those of the account with this id")
	c.Flags().StringVar(&f.Tag, "tag", "", "only those with this tag: KEY or KEY=VALUE")
	return c
}

// roles asks the bridge for roles, and keeps what they are called where it was
// all of them.
func (p *program) roles(ctx context.Context, f client.RoleFilter) (roles []wire.Role, err error) {
	err = p.with(ctx, func(b *client.Client) (err error) {
		roles, err = b.Roles(ctx, f)
		return err
	})
	if err == nil && f == (client.RoleFilter{}) && p.keep != nil {
		if err := p.keep.Write(catalogueName(p.bridge.Origin()), catalogue.Entries(roles), p.now().Add(catalogueLife)); err != nil {
			p.note("%s", err)
		}
	}
	return roles, err
}

// kept returns the roles that are kept, by what they are called.
func (p *program) kept() (entries []catalogue.Entry) {
	origin, err := p.origin()
	if err != nil || p.keep == nil {
		return nil
	}
	if ok, err := p.keep.Read(catalogueName(origin), &entries); err != nil || !ok {
		return nil
	}
	return entries
}

// access says in a word what the person has of a role.
func (p *program) access(r wire.Role) string {
	switch {
	case r.MyRequest != nil:
		return p.state(*r.MyRequest)
	case r.Held, r.Blocked != "":
		return "not now"
	default:
		return "-"
	}
}

func approval(r wire.Role) string {
	if r.Approval.Automatic {
		return "automatic"
	}
	var steps []string
	for _, s := range r.Approval.Steps {
		steps = append(steps, strings.Join(append(s.Groups, s.Emails...), "|"))
	}
	return strings.Join(steps, ", then ")
}

// trustWord says in a word whether a role's trust policy accepts the person.
func trustWord(r wire.Role) string {
	switch r.Trust.Verdict {
	case "works":
		return "yes"
	case "fails":
		return "no"
	default:
		return "?"
	}
}

// role returns the role that text means. On a terminal somebody chooses where it
// could be several, or where nothing was said.
func (p *program) role(ctx context.Context, text string) (serval.RoleARN, error) {
	if arn, ok := catalogue.Direct(text, p.file.Aliases); ok {
		return arn, nil
	}
	if strings.HasPrefix(text, "arn:") {
		return serval.RoleARN{}, misused("%q is not the ARN of a role, such as arn:aws:iam::111122223333:role/name.", serval.Clip(text, 200))
	}
	if text != "" {
		if found := catalogue.Exact(text, p.kept()); len(found) == 1 {
			return serval.ParseRoleARN(found[0].ARN)
		}
	}
	tty := p.tty()
	if text == "" && tty == nil {
		return serval.RoleARN{}, misused("say which role: an ARN, account/role or an alias (serval roles lists them).")
	}
	roles, err := p.roles(ctx, client.RoleFilter{})
	if err != nil {
		return serval.RoleARN{}, err
	}
	entries := catalogue.Entries(roles)
	found := catalogue.Exact(text, entries)
	if len(found) == 1 {
		return serval.ParseRoleARN(found[0].ARN)
	}
	near := found
	if len(found) == 0 {
		near = catalogue.Near(text, entries)
	}
	if tty != nil && len(near) > 0 {
		e, err := tty.pick(ctx, "Which role?", near)
		if err != nil {
			return serval.RoleARN{}, err
		}
		return serval.ParseRoleARN(e.ARN)
	}
	what := fmt.Sprintf("There is no role %q that you are eligible for.", serval.Clip(text, 200))
	if len(found) > 1 {
		what = fmt.Sprintf("There are %d roles called %s.", len(found), serval.Clip(text, 200))
	}
	if len(near) > 0 {
		var labels []string
		for _, e := range near[:min(5, len(near))] {
			labels = append(labels, e.Label())
		}
		what += " Did you mean " + strings.Join(labels, ", ") + "?"
	}
	return serval.RoleARN{}, serval.Refuse(serval.NotFound, "%s", what)
}

// completeRole completes a ROLE from what is kept, without a call.
func (p *program) completeRole(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	if p.prepare(c) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var words []string
	for name := range p.file.Aliases {
		words = append(words, name)
	}
	for _, e := range p.kept() {
		words = append(words, e.Label()+"\t"+cell(e.Description))
	}
	slices.Sort(words)
	return words, cobra.ShellCompDirectiveNoFileComp
}

// roleArg takes one ROLE, or none on a terminal.
func roleArg(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func (p *program) explainCommand() *cobra.Command {
	c := p.command("explain ROLE", "Say whether a role would work for you, and if not why and what mends it", cobra.MaximumNArgs(1), func(c *cobra.Command, args []string) error {
		arn, err := p.role(c.Context(), roleArg(args))
		if err != nil {
			return err
		}
		var r wire.Role
		err = p.with(c.Context(), func(b *client.Client) (err error) {
			r, err = b.Role(c.Context(), arn.AccountID, arn.Name)
			return err
		})
		if err != nil {
			return err
		}
		if p.output == "json" {
			return p.json(r)
		}
		words := map[string]string{"works": "the trust policy accepts you", "fails": "the trust policy refuses you"}
		verdict := words[r.Trust.Verdict]
		if r.Trust.Provider != nil {
			verdict = "AWS refuses you"
		}
		if verdict == "" {
			verdict = "cannot tell"
		}
		lines := [][2]string{
			{"role", r.ARN}, {"account", strings.TrimSpace(r.AccountName + " " + r.AccountID)}, {"description", r.Description},
			{"policy", r.Policy}, {"approval", approval(r)},
			{"longest", serval.Length(r.MaxMinutes) + " of access, " + serval.Length(r.MaxSessionSeconds/60) + " in one session"},
			{"access", p.access(r)}, {"trust", verdict},
		}
		for _, more := range [][2]string{
			{"because", r.Trust.Reason}, {"statement", r.Trust.Statement}, {"condition", r.Trust.Condition},
			{"not checked", strings.Join(r.Trust.NotChecked, "; ")}, {"blocked", r.Blocked}, {"stale", r.StaleReason},
		} {
			if more[1] != "" {
				lines = append(lines, more)
			}
		}
		if err := p.facts(lines); err != nil {
			return err
		}
		if l := r.Trust.Provider; l != nil && l.CLI != "" {
			if _, err := fmt.Fprintf(p.stdout, "\nThis mends the account; it is for whoever owns it:\n\n%s\n", l.CLI); err != nil {
				return err
			}
		}
		if r.Trust.Mend == nil {
			return nil
		}
		_, err = fmt.Fprintf(p.stdout, "\nThis trust policy would accept you; it is for whoever owns the role:\n\n%s\n", document(r.Trust.Mend.JSON))
		return err
	})
	c.ValidArgsFunction = p.completeRole
	return c
}
