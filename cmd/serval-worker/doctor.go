package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/checkup"
	"github.com/serval-bridge/serval-bridge/internal/settings"
	"github.com/serval-bridge/serval-bridge/internal/workerd"
)

func (p *program) doctorCommand() *cobra.Command {
	var e workerd.Examination
	format := "table"
	c := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong with the settings and with what they lead to, and what mends it", Args: cobra.NoArgs,
		Long: "Doctor runs where run runs, with the same settings: in its pod, for example. It looks at the settings, names,\n" +
			"AWS and the worker's credentials there, the upstream, the Lease and a few accounts, and changes nothing.\n\n" +
			"It exits with 1 where something fails; a warning is no failure.",
	}
	settings.Flags(c.Flags(), new(Config))
	c.Flags().StringSliceVar(&e.Skip, "skip", nil, "ids of checks to leave out, with commas between")
	c.Flags().StringVar(&e.Account, "account", "", "id of the account to check, in place of the first few that the upstream gives")
	c.Flags().StringVarP(&format, "output", "o", format, "table or json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		print := checkup.WriteTable
		switch format {
		case "table":
		case "json":
			print = checkup.WriteJSON
		default:
			return fmt.Errorf("-o: %q is neither table nor json", format)
		}
		if err := e.Check(); err != nil {
			return err
		}
		var config Config
		config, e.Faults = readConfig(p.environ, c.Flags())
		findings := workerd.Examine(c.Context(), config.daemon(), e)
		if err := print(p.stdout, findings); err != nil {
			return &failure{fmt.Errorf("printing the findings: %w", err)}
		}
		if !checkup.Healthy(findings) {
			p.code = exitFailed
		}
		return nil
	}
	return c
}
