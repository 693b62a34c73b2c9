package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func (p *program) checkCommand() *cobra.Command {
	var flags accountFlags
	c := &cobra.Command{
		Use: "check --account ID --role-arn ARN --external-id ID", Short: "Test the connection to one account", Args: cobra.NoArgs,
		Long: "Check assumes the account's ingestion role and lists one IAM role, and says what came of it and why.",
	}
	flags.add(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		account, config, faults := flags.read(c, p.environ)
		if len(faults) > 0 {
			p.refuse(faults)
			return nil
		}
		return p.check(c.Context(), account, config)
	}
	return c
}

// check tests the connection and prints the text of the outcome, and below it
// the cause.
func (p *program) check(ctx context.Context, a serval.Account, config awsiam.Config) error {
	reader, err := awsiam.New(ctx, config)
	if err != nil {
		return &failure{err}
	}
	defer reader.Close()
	text, cause := awsiam.TextConnected, ""
	if err := reader.Check(ctx, a); err != nil {
		p.code = exitFailed
		f, failed := errors.AsType[*awsiam.Failure](err)
		switch {
		case ctx.Err() != nil:
			return &failure{errors.New("interrupted")}
		case failed:
			text, cause = f.Text, f.Cause
		default:
			text, cause = awsiam.TextNotAssumed, err.Error()
		}
	}
	if cause != "" {
		text += "\n\n" + cause
	}
	if _, err := fmt.Fprintln(p.stdout, text); err != nil {
		return &failure{err}
	}
	return nil
}
