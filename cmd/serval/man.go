package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (p *program) manCommand(root *cobra.Command) *cobra.Command {
	return p.command("man FOLDER", "Write the manual pages into a folder", cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return fmt.Errorf("writing the manual pages: %w", err)
		}
		root.InitDefaultCompletionCmd()
		return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "Serval", Manual: "Serval"}, args[0])
	})
}
