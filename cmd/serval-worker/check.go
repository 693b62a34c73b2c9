package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awsorg"
	"github.com/serval-bridge/serval-bridge/internal/connect"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
	"github.com/serval-bridge/serval-bridge/internal/workerd"
)

func (p *program) checkCommand() *cobra.Command {
	var flags accountFlags
	var output string
	var organization bool
	var people signIn
	c := &cobra.Command{
		Use: "check --account ID --role-arn ARN --external-id ID", Short: "Test the connection to one account", Args: cobra.NoArgs,
		Long: "Check assumes the account's ingestion role, lists one IAM role, tries each of the seven actions and whether the\n" +
			"role asks for its External ID, and says what came of it, why, and what mends it. It needs no upstream.\n\n" +
			"It exits with 0 where the check passes, 1 where it does not.",
	}
	flags.add(c)
	people.add(c)
	c.Flags().BoolVar(&organization, "organization", false, "list the accounts of the account's AWS organization instead")
	c.Flags().StringVarP(&output, "output", "o", "text", "json or text; table, as scan has it, is text")
	c.RunE = func(c *cobra.Command, _ []string) error {
		account, to, faults := flags.read(c, p.environ)
		if !slices.Contains([]string{"json", "text", "table"}, output) {
			faults = append(faults, "--output: json or text.")
		}
		faults = append(faults, people.faults()...)
		if len(faults) > 0 {
			p.refuse(faults)
			return nil
		}
		name, write := serval.CheckConnection, printCheck
		if organization {
			name = serval.CheckOrganization
		}
		if output == "json" {
			write = writeCheck
		}
		return p.check(c.Context(), name, account, to, people, write)
	}
	return c
}

// check runs a check and prints what came of it.
func (p *program) check(ctx context.Context, name serval.CheckName, a serval.Account, to reach, people signIn, write func(io.Writer, checked) error) error {
	reader, err := awsiam.New(ctx, to.aws)
	if err != nil {
		return &failure{err}
	}
	defer reader.Close()
	if to.explain {
		p.explain(ctx, reader, a)
	}
	organization, err := awsorg.New(to.organization)
	if err != nil {
		return &failure{err}
	}
	c, err := workerd.Performer{AWS: reader, Organization: organization}.Check(ctx, name, a)
	if err != nil {
		return &failure{errors.New("interrupted")}
	}
	if !c.Passed {
		p.code = exitFailed
	}
	out := shown(c, a)
	if people.isTold() && c.Passed {
		provider, err := reader.Provider(ctx, a, people.issuer)
		if err != nil {
			return &failure{err}
		}
		out.OIDCProvider, out.asked = &provider, people.asked(&provider, a.RoleARN)
	}
	if err := write(p.stdout, out); err != nil {
		return &failure{fmt.Errorf("printing the check: %w", err)}
	}
	return nil
}

// A checked is a check as check prints it.
type checked struct {
	wire.Check
	Accounts []serval.OrganizationAccount `json:"accounts"`
	// OIDCProvider is there where an issuer was told; asked says it in lines.
	OIDCProvider *serval.OIDCProvider `json:"oidc_provider,omitempty"`
	asked        []string
}

// shown joins what was found with what mends it.
func shown(c serval.Check, a serval.Account) checked {
	out := checked{
		Check: wire.Check{Name: c.Name, AccountID: c.AccountID, At: wire.Time{Time: c.At}, Passed: c.Passed, Text: c.Text,
			Identity: c.Identity, Findings: []wire.Finding{}},
		Accounts: append([]serval.OrganizationAccount{}, c.Accounts...),
	}
	for _, f := range c.Findings {
		one := wire.Finding{Causes: f.Causes, Text: f.Text, Target: f.Target, Actions: append([]string{}, f.Actions...), Code: f.Code, Mends: []wire.Paste{}}
		for _, m := range connect.Mends(f, a, c.TrustedAccount()) {
			one.Mends = append(one.Mends, wire.Paste(m))
		}
		out.Findings = append(out.Findings, one)
	}
	return out
}

func writeCheck(w io.Writer, c checked) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(c)
}

// printCheck prints the exact text first, and below it all else.
func printCheck(w io.Writer, c checked) error {
	var b strings.Builder
	fmt.Fprintln(&b, c.Text)
	for _, f := range c.Findings {
		fmt.Fprintf(&b, "\n%s\n", f.Text)
		for _, m := range f.Mends {
			fmt.Fprintf(&b, "\n%s:\n\n", m.Title)
			for line := range strings.Lines(m.Text) {
				if line != "\n" {
					b.WriteString("    ")
				}
				b.WriteString(line)
			}
		}
	}
	if len(c.asked) > 0 {
		fmt.Fprintf(&b, "\nIAM OIDC provider:\n  %s\n", strings.Join(c.asked, "\n  "))
	}
	if len(c.Accounts) > 0 {
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "\nACCOUNT\tNAME\tSTATUS")
		for _, a := range c.Accounts {
			fmt.Fprintf(t, "%s\t%s\t%s\n", a.ID, a.Name, a.Status)
		}
		t.Flush()
	}
	_, err := io.WriteString(w, strings.Map(printable, b.String()))
	return err
}
