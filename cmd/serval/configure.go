package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/catalogue"
	"github.com/serval-bridge/serval-bridge/internal/client"
	"github.com/serval-bridge/serval-bridge/internal/profile"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A configuration is what configure was asked for.
type configuration struct {
	region, template, file, eks string
	aliases                     []string
	request, remove, dry        bool
}

func (p *program) configureCommand() *cobra.Command {
	var o configuration
	c := p.command("configure [ROLE...]", "Write profiles into the AWS configuration", cobra.ArbitraryArgs, func(c *cobra.Command, args []string) error {
		return p.configure(c.Context(), o, args)
	})
	c.Long = `Without ROLE: a profile for every role you are eligible for, and for no other. With ROLE: profiles for these beside those that are
there. They stand in a block of serval's own, which is replaced; what you wrote yourself is never touched, and the file as it was is
kept beside it (config.before-serval).

A profile is called by its alias if it has one, or by the template: {account}, {account_id}, {role}, or {name}, which is account and
role without saying the account twice. Aliases, region and template are remembered, and a ROLE can be given by its alias.`
	f := c.Flags()
	f.StringVar(&o.region, "region", "", "region of the profiles")
	f.StringVar(&o.template, "template", "", "how profiles are called (default: {name})")
	f.StringArrayVar(&o.aliases, "alias", nil, "NAME=ROLE: what a role is called by you; NAME= forgets it; may be repeated")
	f.BoolVar(&o.request, "request", false, "let the profiles request access where its policy asks nobody")
	f.StringVar(&o.eks, "eks", "", "write a kubeconfig entry for this EKS cluster, which uses the profile of the one ROLE (needs the AWS CLI)")
	f.StringVar(&o.file, "file", "", "the AWS configuration file (default: AWS_CONFIG_FILE, or ~/.aws/config)")
	f.BoolVar(&o.remove, "remove", false, "take the profiles of these roles out, or without ROLE the whole block")
	f.BoolVar(&o.dry, "dry-run", false, "print the file as it would be, and write nothing")
	c.ValidArgsFunction = p.completeRole
	return c
}

func (p *program) configure(ctx context.Context, o configuration, args []string) error {
	if o.eks != "" && (len(args) != 1 || o.remove) {
		return misused("with --eks say the one role that the cluster is used with.")
	}
	path, err := p.awsConfig(o.file)
	if err != nil {
		return err
	}
	if o.remove {
		return p.unconfigure(ctx, o, path, args)
	}
	chosen, err := p.chosen(ctx, args)
	if err != nil {
		return err
	}
	if err := p.settle(ctx, o); err != nil {
		return err
	}
	process, err := p.process(o.request)
	if err != nil {
		return err
	}
	names, err := p.names(chosen)
	if err != nil {
		return err
	}
	var left []error
	written := 0
	changed, err := p.save(o, path, func(f *profile.File) error {
		if len(args) == 0 {
			f.Profiles = nil
		}
		for name, e := range names {
			arn, err := serval.ParseRoleARN(e.ARN)
			if err != nil {
				return err
			}
			// Many SDKs give the line to a shell.
			word := arn.Word()
			// A role has one profile of ours: what it was called before goes.
			for _, old := range slices.Clone(f.Profiles) {
				if strings.HasSuffix(old.Process, " "+word) {
					f.Drop(old.Name)
				}
			}
			err = f.Put(profile.Profile{Name: name, Process: process + word, Region: p.file.Region})
			if serval.IsRefusal(err, serval.Conflict) {
				left = append(left, err)
				continue
			}
			if err != nil {
				return err
			}
			written++
		}
		return nil
	})
	if err != nil || o.dry {
		return err
	}
	for _, err := range left {
		p.note("%s", err)
	}
	if err := p.configured(path, changed, written, names); err != nil || o.eks == "" {
		return err
	}
	return p.kubeconfig(ctx, o, slices.Collect(maps.Keys(names))[0])
}

// configured says what came of it.
func (p *program) configured(path string, changed bool, written int, names map[string]catalogue.Entry) error {
	if p.output == "json" {
		list := map[string]string{}
		for name, e := range names {
			list[name] = e.ARN
		}
		return p.json(struct {
			File     string            `json:"file"`
			Changed  bool              `json:"changed"`
			Profiles map[string]string `json:"profiles"`
		}{path, changed, list})
	}
	what := fmt.Sprintf("%d profiles are in %s", written, path)
	if !changed {
		what += ", as before"
	}
	if _, err := fmt.Fprintln(p.stdout, what+"."); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(names))[:min(1, len(names))] {
		arn, err := serval.ParseRoleARN(names[name].ARN)
		if err != nil {
			return err
		}
		fmt.Fprintf(p.stdout, "With access to its role (serval request %s --for 1h --reason \"…\"): aws sts get-caller-identity --profile %s\n", arn.Word(), name)
	}
	return nil
}

// awsConfig returns the AWS configuration file.
func (p *program) awsConfig(given string) (string, error) {
	if given == "" {
		given = p.getenv("AWS_CONFIG_FILE")
	}
	if given != "" {
		return given, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", misused("this machine says of no home folder (%s). Say where the AWS configuration is: --file", err)
	}
	return filepath.Join(home, ".aws", "config"), nil
}

// chosen returns the roles that the arguments mean; all, without any.
func (p *program) chosen(ctx context.Context, args []string) ([]catalogue.Entry, error) {
	roles, err := p.roles(ctx, client.RoleFilter{})
	if err != nil {
		return nil, err
	}
	all := catalogue.Entries(roles)
	if len(args) == 0 {
		return all, nil
	}
	var chosen []catalogue.Entry
	for _, text := range args {
		arn, err := p.role(ctx, text)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(all, func(e catalogue.Entry) bool { return e.ARN == arn.String() })
		if i < 0 {
			return nil, serval.Refuse(serval.NotFound, "There is no role %s that you are eligible for.", arn)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// settle takes over what is remembered, and writes it down.
func (p *program) settle(ctx context.Context, o configuration) error {
	before, err := p.file.text()
	if err != nil {
		return err
	}
	if o.region != "" {
		if err := profile.CheckRegion(o.region); err != nil {
			return err
		}
		p.file.Region = o.region
	}
	if o.template != "" {
		p.file.Template = o.template
	}
	for _, alias := range o.aliases {
		name, text, ok := strings.Cut(alias, "=")
		if !ok || profile.CheckName(name) != nil || strings.HasPrefix(name, "arn:") {
			return misused("--alias is NAME=ROLE, where NAME has letters, digits and ._@+- : %q.", serval.Clip(alias, 100))
		}
		if p.file.Aliases == nil {
			p.file.Aliases = map[string]string{}
		}
		if text == "" {
			delete(p.file.Aliases, name)
			continue
		}
		arn, err := p.role(ctx, text)
		if err != nil {
			return err
		}
		p.file.Aliases[name] = arn.String()
	}
	after, err := p.file.text()
	if err != nil || string(after) == string(before) || o.dry {
		return err
	}
	return p.file.save()
}

// names returns what the profile of each role is called. Two of one name are
// refused.
func (p *program) names(chosen []catalogue.Entry) (map[string]catalogue.Entry, error) {
	aliases := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(p.file.Aliases)) {
		aliases[p.file.Aliases[name]] = name
	}
	template := p.file.Template
	if template == "" {
		template = profile.DefaultTemplate
	}
	names := map[string]catalogue.Entry{}
	for _, e := range chosen {
		name := aliases[e.ARN]
		if name == "" {
			name = profile.Name(template, e.AccountName, e.AccountID, e.Name)
		}
		if other, taken := names[name]; taken && other.ARN != e.ARN {
			return nil, misused("by the template %s both %s and %s are called %s. Use {account} or {account_id} in it, or an alias.", template, other.ARN, e.ARN, name)
		}
		names[name] = e
	}
	return names, nil
}

// process returns the beginning of the command that profiles run: this program,
// where it is installed, and not where a link to it leads.
func (p *program) process(request bool) (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding serval's own program: %w", err)
	}
	if found, err := exec.LookPath("serval"); err == nil && filepath.IsAbs(found) && same(found, own) {
		own = found
	}
	if strings.ContainsAny(own, "\"'`$\r\n%") {
		return "", misused("serval lies in %q: tools that run it would read that path as something else. Move it.", own)
	}
	words := []string{`"` + own + `"`, "creds"}
	if !strings.ContainsAny(own, " \\()&;") {
		words[0] = own
	}
	origin, err := p.origin()
	if err != nil {
		return "", err
	}
	if p.config.ClientDir != "" && !strings.ContainsAny(p.config.ClientDir, " \"'`$\\%") {
		words = append(words, "--client-dir", p.config.ClientDir)
	}
	if remembered, err := client.Origin(p.file.BridgeURL); err != nil || remembered != origin {
		words = append(words, "--bridge-url", origin)
	}
	if request {
		words = append(words, "--request")
	}
	return strings.Join(words, " ") + " ", nil
}

// same reports whether both are one file.
func same(one, other string) bool {
	a, err := os.Stat(one)
	if err != nil {
		return false
	}
	b, err := os.Stat(other)
	return err == nil && os.SameFile(a, b)
}

// save changes the AWS configuration; with --dry-run it prints it instead.
func (p *program) save(o configuration, path string, change func(*profile.File) error) (bool, error) {
	edit := func(text string) (string, error) {
		f, err := profile.Parse(text)
		if err == nil {
			err = change(&f)
		}
		return f.Text(), err
	}
	if !o.dry {
		return profile.Save(path, edit)
	}
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return false, fmt.Errorf("reading the AWS configuration: %w", err)
	}
	text, err := edit(string(old))
	if err == nil {
		_, err = fmt.Fprint(p.stdout, text)
	}
	return false, err
}

// unconfigure takes profiles out.
func (p *program) unconfigure(ctx context.Context, o configuration, path string, args []string) error {
	var words []string
	for _, text := range args {
		arn, err := p.role(ctx, text)
		if err != nil {
			return err
		}
		words = append(words, arn.Word())
	}
	gone := 0
	_, err := p.save(o, path, func(f *profile.File) error {
		for _, old := range slices.Clone(f.Profiles) {
			if len(args) == 0 || slices.ContainsFunc(words, func(word string) bool { return strings.HasSuffix(old.Process, " "+word) }) {
				f.Drop(old.Name)
				gone++
			}
		}
		return nil
	})
	if err != nil || o.dry {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%d profiles were taken out of %s.\n", gone, path)
	return err
}

// kubeconfig has the AWS CLI write the entry, because the entry runs the AWS CLI:
// what it writes is what it reads.
func (p *program) kubeconfig(ctx context.Context, o configuration, name string) error {
	args := []string{"eks", "update-kubeconfig", "--name", o.eks, "--profile", name}
	if p.file.Region != "" {
		args = append(args, "--region", p.file.Region)
	}
	c := exec.CommandContext(ctx, "aws", args...)
	c.Env = append(slices.Clone(p.environ), "AWS_CONFIG_FILE="+o.file)
	if o.file == "" {
		c.Env = p.environ
	}
	c.Stdin, c.Stdout, c.Stderr = p.stdin, p.stderr, p.stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("the profile %s is written, but aws %s did not work: %s", name, strings.Join(args, " "), reason(err))
	}
	return nil
}
