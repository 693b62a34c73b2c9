package shell

import (
	"os/exec"
	"testing"
)

// hostile holds what shells take for something else.
const hostile = "a'b\"c$HOME`id`\\ \u2019;&|\tx"

// What a shell reads is what was written.
func TestLines(t *testing.T) {
	for kind, run := range map[Kind][]string{Bash: {"bash", "-c"}, Fish: {"fish", "-c"}, PowerShell: {"pwsh", "-NoProfile", "-Command"}} {
		program, err := exec.LookPath(run[0])
		if err != nil {
			t.Logf("%s is not installed", run[0])
			continue
		}
		out, err := exec.Command(program, append(run[1:], Lines(kind, [][2]string{{"HOSTILE", hostile}})+`sh -c 'printf %s "$HOSTILE"'`)...).Output()
		if err != nil || string(out) != hostile {
			t.Errorf("%s reads %q, want %q (%v)", run[0], out, hostile, err)
		}
	}
	for kind, want := range map[Kind]string{
		Bash: `export A='x'\''y'` + "\n", Fish: `set -gx A 'x\'y'` + "\n", PowerShell: "$Env:A = 'x''y'\n",
	} {
		if got := Lines(kind, [][2]string{{"A", "x'y"}}); got != want {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
	}
	if got := Lines(PowerShell, [][2]string{{"A", "\u2019"}}); got != "$Env:A = '\u2019\u2019'\n" {
		t.Errorf("PowerShell takes a typographic quote for a quote: %q", got)
	}
	if got := Lines(Fish, [][2]string{{"A", `\`}}); got != `set -gx A '\\'`+"\n" {
		t.Errorf("fish takes a backslash for one: %q", got)
	}
}
