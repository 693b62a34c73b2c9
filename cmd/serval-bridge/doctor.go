package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/bridge"
	"github.com/serval-bridge/serval-bridge/internal/checkup"
	"github.com/serval-bridge/serval-bridge/internal/settings"
)

func doctor(environ []string) *cobra.Command {
	var c Config
	var e bridge.Examination
	format := "table"
	command := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong with the settings and with what they lead to, and what mends it", Args: noArgs,
		Long: "Say what is wrong with the settings and with what they lead to, and what mends it.\n\n" +
			"Run it where serve runs, with the same settings: in its pod, for example. It looks\nat the settings, the identity provider, AWS, the database and the cluster, and\n" +
			"changes nothing. The provider's log has a sign-in that fails. Exit code 1 where\nsomething fails; a warning is none.",
		RunE: func(command *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return exit{exitUsage, fmt.Errorf("-o: %q is neither table nor json", format)}
			}
			if err := e.Check(); err != nil {
				return exit{exitUsage, err}
			}
			var config bridge.Config
			config, _, e.Faults = c.read(environ, command.Flags())
			findings := bridge.Examine(command.Context(), config, e)
			print := checkup.WriteTable
			if format == "json" {
				print = checkup.WriteJSON
			}
			if err := print(command.OutOrStdout(), findings); err != nil {
				return err
			}
			if !checkup.Healthy(findings) {
				return exit{exitFailed, errors.New("something does not work")}
			}
			return nil
		},
	}
	settings.Flags(command.Flags(), &c)
	command.Flags().StringSliceVar(&e.Skip, "skip", nil, "ids of checks to leave out, with commas between")
	command.Flags().StringVar(&e.Serving, "serving", "", "origin at which a bridge with these settings serves, to ask it too")
	command.Flags().StringVarP(&format, "output", "o", format, "table or json")
	return command
}
