package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// maxExplained bounds a file that is to be explained.
const maxExplained = 1 << 20

func explain() *cobra.Command {
	var policyFile, contextFile, output string
	command := &cobra.Command{
		Use: "trust --policy FILE --context FILE", Short: "Say whether a trust policy lets somebody assume its role, and what mends it", Args: noArgs,
		Long: "Say whether a trust policy lets somebody assume its role, and what mends it.\n\nIt needs no database, no AWS and no settings. The context is a JSON object of what\n" +
			"is known of the attempt: action, role_arn, issuer, audience, subject and so on, as\nPOST /api/v1/explain/trust takes it. What it does not say is unknown, null is absent\n" +
			"from the request. - reads from stdin.\n\nExit code 0 whatever the verdict; 2 where the policy or the context cannot be read.",
	}
	command.Flags().StringVar(&policyFile, "policy", "", "file with the trust policy")
	command.Flags().StringVar(&contextFile, "context", "", "file with the context")
	command.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	command.RunE = func(command *cobra.Command, _ []string) error {
		if policyFile == "" || contextFile == "" || policyFile == "-" && contextFile == "-" {
			return exit{exitUsage, errors.New("give --policy and --context; one of them may be - for stdin")}
		}
		if output != "text" && output != "json" {
			return exit{exitUsage, fmt.Errorf("--output: text or json, not %q", output)}
		}
		document, err := readExplained(command.InOrStdin(), policyFile)
		if err != nil {
			return exit{exitUsage, fmt.Errorf("--policy: %w", err)}
		}
		policy, err := trust.Parse(serval.Document(document))
		if err != nil {
			return exit{exitUsage, fmt.Errorf("%s: %w", policyFile, err)}
		}
		text, err := readExplained(command.InOrStdin(), contextFile)
		if err != nil {
			return exit{exitUsage, fmt.Errorf("--context: %w", err)}
		}
		attempt, err := trust.ParseContext(text)
		if err != nil {
			return exit{exitUsage, fmt.Errorf("%s: %w", contextFile, err)}
		}
		answer := explained{Verdict: policy.Judge(attempt), Findings: []trust.Finding{}}
		if ours, ok := attempt.Ours(); ok {
			answer.Findings = append(answer.Findings, policy.Findings(ours)...)
		}
		if output == "json" {
			e := json.NewEncoder(command.OutOrStdout())
			e.SetIndent("", "  ")
			e.SetEscapeHTML(false)
			return e.Encode(answer)
		}
		_, err = io.WriteString(command.OutOrStdout(), answer.text())
		return err
	}
	parent := &cobra.Command{Use: "explain", Short: "Explain what AWS would say"}
	parent.AddCommand(command)
	return parent
}

// explained is the answer, in the form of POST /api/v1/explain/trust.
type explained struct {
	trust.Verdict
	Findings []trust.Finding `json:"findings"`
}

// text is the answer for people.
func (e explained) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s.\n", e.Verdict.Verdict, strings.TrimSuffix(e.Reason, "."))
	if len(e.NotChecked) > 0 {
		fmt.Fprintf(&b, "Not checked: %s.\n", strings.Join(e.NotChecked, ", "))
	}
	if e.Mend != nil {
		fmt.Fprintf(&b, "\nWhat mends it, the whole policy:\n%s\n\nThe same as Terraform:\n%s\n", strings.TrimSpace(e.Mend.JSON), strings.TrimSpace(e.Mend.Terraform))
	}
	if l := e.Provider; l != nil && l.CLI != "" {
		fmt.Fprintf(&b, "\nWhat mends the account, for whoever owns it:\n%s\n\nThe same as Terraform:\n%s\n", l.CLI, l.Terraform)
	}
	for _, f := range e.Findings {
		fmt.Fprintf(&b, "\n%s (%s): %s\n  %s\n", f.Severity, f.ID, f.Sentence, f.Mend)
	}
	return b.String()
}

// readExplained reads a file, or stdin.
func readExplained(stdin io.Reader, path string) ([]byte, error) {
	from := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxExplained+1))
	if err == nil && len(text) > maxExplained {
		err = fmt.Errorf("%s has more than %d bytes", path, maxExplained)
	}
	return text, err
}
