package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awsorg"
	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/settings"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// accountFlags are the flags of scan and check.
type accountFlags struct {
	account     string
	roleARN     string
	via         []string
	sessionName string
	explain     bool
}

func (a *accountFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&a.account, "account", "", "id of the account, twelve digits (required)")
	f.StringVar(&a.roleARN, "role-arn", "", "ARN of the account's ingestion role (required)")
	f.StringArrayVar(&a.via, "via", nil, "ARN of a role to assume before it; may be repeated, in order")
	f.StringVar(&a.sessionName, "session-name", awsiam.SessionName, "session name of the roles that are assumed")
	f.BoolVar(&a.explain, "explain-auth", false, "say on standard error where the AWS credentials come from and why, and how the account is reached")
	settings.Flags(f, new(AccountConfig))
}

// A reach is how AWS is reached.
type reach struct {
	aws          awsiam.Config
	organization awsorg.Config
	explain      bool // to be said
}

// read returns the account that the flags name and how AWS is reached, or all
// that is wrong with them.
func (a *accountFlags) read(c *cobra.Command, environ []string) (serval.Account, reach, []string) {
	config, f := readAccountConfig(environ, c.Flags())
	account := serval.Account{
		ID: a.account, Name: a.account, RoleARN: a.roleARN, ExternalID: config.ExternalID,
	}
	for _, arn := range a.via {
		account.Via = append(account.Via, serval.Hop{RoleARN: arn})
	}
	if !serval.IsSessionName(a.sessionName) {
		f.add("--session-name", "2 to 64 characters of A-Z a-z 0-9 _ + = , . @ -.")
	}
	required := map[string]string{"id": a.account, "role_arn": a.roleARN, "external_id": config.ExternalID}
	names := map[string]string{"id": "--account", "role_arn": "--role-arn", "external_id": "--external-id", "name": "--account"}
	for _, fault := range account.Faults() {
		field, reason, _ := strings.Cut(fault, ": ")
		name, known := names[field]
		switch value, is := required[field]; {
		case strings.HasPrefix(field, "via["):
			name = "--" + strings.TrimSuffix(field, ".role_arn")
		case !known:
			name = field
		case is && value == "":
			reason = "required."
		}
		f.add(name, "%s", reason)
	}
	account.Name = ""
	if arn, err := serval.ParseRoleARN(a.roleARN); err == nil {
		account.Partition = arn.Partition
	}
	to := reach{aws: config.aws(), organization: config.organization(), explain: a.explain}
	to.aws.SessionName = a.sessionName
	return account, to, f.all()
}

func (p *program) scanCommand() *cobra.Command {
	var flags accountFlags
	var output string
	var people signIn
	c := &cobra.Command{
		Use: "scan --account ID --role-arn ARN --external-id ID", Short: "Read one account and print its inventory", Args: cobra.NoArgs,
		Long: "Scan reads the tagged roles of one account, as run does, and prints them; it needs no upstream.\n\n" +
			"It exits with 0 where the inventory is complete, 3 where it is not, 1 where nothing could be read.",
	}
	flags.add(c)
	people.add(c)
	c.Flags().StringVarP(&output, "output", "o", "table", "json (one inventory, as it would be pushed) or table")
	c.RunE = func(c *cobra.Command, _ []string) error {
		account, to, faults := flags.read(c, p.environ)
		if !slices.Contains([]string{"json", "table"}, output) {
			faults = append(faults, "--output: json or table.")
		}
		faults = append(faults, people.faults()...)
		if len(faults) > 0 {
			p.refuse(faults)
			return nil
		}
		return p.scan(c.Context(), account, to, output, people)
	}
	return c
}

// scan reads the account and prints what it read.
func (p *program) scan(ctx context.Context, a serval.Account, to reach, output string, people signIn) error {
	m := newMeter(p.stderr)
	to.aws.Observe = m.called
	reader, err := awsiam.New(ctx, to.aws)
	if err != nil {
		return &failure{err}
	}
	defer reader.Close()
	if to.explain {
		p.explain(ctx, reader, a)
	}
	var inv serval.Inventory
	if err = reader.Guard(ctx, a); err == nil {
		inv, err = reader.Inventory(ctx, a, nil, people.issuer, m.advanced)
	}
	m.done()
	if err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		return &failure{err}
	}
	write := func(w io.Writer, inv serval.Inventory) error { return printTable(w, inv, a, people) }
	if output == "json" {
		write = wire.WriteInventory
	}
	if err := write(p.stdout, inv); err != nil {
		return &failure{fmt.Errorf("printing the inventory: %w", err)}
	}
	if !inv.Complete {
		p.code = exitIncomplete
	}
	return nil
}

// explain says on standard error where the base credentials come from and how the
// account is reached. What is wrong there shows again in what follows.
func (p *program) explain(ctx context.Context, reader *awsiam.Reader, a serval.Account) {
	x, err := reader.Explain(ctx, a)
	text := x.String()
	if err != nil {
		text += err.Error() + "\n"
	}
	fmt.Fprint(p.stderr, strings.Map(printable, text))
}

// printTable prints an inventory for people.
func printTable(w io.Writer, inv serval.Inventory, a serval.Account, people signIn) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if len(inv.Roles) > 0 {
		fmt.Fprint(t, "ROLE\tROLE ID\tLONGEST SESSION\tINLINE\tMANAGED")
		if people.isTold() {
			fmt.Fprint(t, "\tTRUST")
		}
		fmt.Fprintln(t)
	}
	var trusts []string
	for _, r := range inv.Roles {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s", r.ARN, r.RoleID, session(r.MaxSessionSeconds),
			count(len(r.InlinePolicies.Policies), r.InlinePolicies.Status, r.InlinePolicies.Action),
			count(len(r.ManagedPolicies.Policies), r.ManagedPolicies.Status, r.ManagedPolicies.Action))
		if people.isTold() {
			verdict, lines := people.judge(r, inv.OIDCProvider)
			trusts = append(trusts, lines...)
			fmt.Fprintf(t, "\t%s", verdict)
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:\n", title)
		for _, l := range lines {
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	var unreadable, near, problems []string
	for _, u := range inv.Unreadable {
		unreadable = append(unreadable, fmt.Sprintf("%s: %s answered %s", u.ARN, u.Action, u.Code))
	}
	for _, n := range inv.NearMisses {
		near = append(near, fmt.Sprintf("%s: has the tag %q; %q is the tag that counts", n.ARN, n.TagKey, serval.TagKey))
	}
	for _, p := range inv.Problems {
		problems = append(problems, fmt.Sprintf("%s on %s answered %s: %s", p.Action, p.Target, p.Code, p.Message))
	}
	section("What the roles can do", abilities(inv.Roles))
	section("IAM OIDC provider", people.asked(inv.OIDCProvider, a.RoleARN))
	section("Trust policies (for whoever signs in at the issuer)", trusts)
	section("Unreadable (it is not known whether these are tagged)", unreadable)
	section("Near misses (not taken over)", near)
	section("Problems", problems)

	state := "The inventory is complete."
	partly := 0
	for _, r := range inv.Roles {
		if !r.PoliciesComplete() {
			partly++
		}
	}
	switch {
	case !inv.Complete:
		state = "The inventory is INCOMPLETE: there may be more roles than these."
	case partly > 0:
		state = fmt.Sprintf("These are all; not every policy of %s could be read.", plural(partly, "role"))
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s tagged in account %s. %s\n", plural(len(inv.Roles), "role"), inv.AccountID, state)
	_, err := io.WriteString(w, strings.Map(printable, b.String()))
	return err
}

// factsTold is how many facts are told of each role.
const factsTold = 3

// abilities says of each role what it can do, and the gravest of that.
func abilities(roles []serval.Role) (lines []string) {
	for _, r := range roles {
		card := insight.AWS().Look(r).Card()
		lines = append(lines, r.ARN+": "+card.Summary)
		for _, why := range card.AtLeast {
			lines = append(lines, "  at least, since: "+why)
		}
		for _, fact := range card.Facts[:min(len(card.Facts), factsTold)] {
			lines = append(lines, "  "+fact)
		}
	}
	return lines
}

// printable keeps what others have written from commanding the terminal.
func printable(r rune) rune {
	if r != '\n' && !strconv.IsPrint(r) {
		return '�'
	}
	return r
}

func session(seconds int) string {
	if seconds == 0 {
		return "unknown"
	}
	text := serval.Length(seconds / 60)
	if rest := seconds % 60; rest > 0 {
		text += " " + strconv.Itoa(rest) + " s"
	}
	return text
}

// count says how many there are, or that it is not known.
func count(n int, status serval.ListStatus, action string) string {
	if status == serval.ListRead {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d known, %s %s", n, action, status)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
