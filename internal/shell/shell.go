// Package shell writes variables as lines for a shell. It is pure.
package shell

import (
	"fmt"
	"strings"
)

// A Kind is a shell, by how it quotes.
type Kind string

// The shells there are.
const (
	Bash       Kind = "bash" // and zsh, and whatever else is like sh
	Fish       Kind = "fish"
	PowerShell Kind = "powershell"
)

// doubled doubles what PowerShell takes for a single quote.
var doubled = strings.NewReplacer(`'`, `''`, "\u2018", "\u2018\u2018", "\u2019", "\u2019\u2019", "\u201a", "\u201a\u201a", "\u201b", "\u201b\u201b")

// Lines returns a line for each variable, a name and a value, that sets it for
// what the shell starts from then on.
func Lines(kind Kind, variables [][2]string) string {
	var b strings.Builder
	for _, v := range variables {
		switch kind {
		case Fish:
			fmt.Fprintf(&b, "set -gx %s '%s'\n", v[0], strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v[1]))
		case PowerShell:
			fmt.Fprintf(&b, "$Env:%s = '%s'\n", v[0], doubled.Replace(v[1]))
		default:
			fmt.Fprintf(&b, "export %s='%s'\n", v[0], strings.ReplaceAll(v[1], `'`, `'\''`))
		}
	}
	return b.String()
}
