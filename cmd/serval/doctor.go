package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/client"
	"github.com/serval-bridge/serval-bridge/internal/profile"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// An examination is what doctor says of one thing.
type examination struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"` // ok, warn or fail
	Text    string `json:"text"`
}

func (p *program) doctorCommand() *cobra.Command {
	return p.command("doctor", "Say what works here and what does not, and change nothing", cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		list := p.examine(c.Context())
		failed := slices.ContainsFunc(list, func(e examination) bool { return e.Outcome == "fail" })
		if failed {
			p.code = exitFailed
		}
		if p.output == "json" {
			return p.json(list)
		}
		rows := make([][]string, len(list))
		for i, e := range list {
			rows[i] = []string{e.Outcome, e.ID, e.Text}
		}
		return p.table([]string{"", "CHECK", "RESULT"}, rows)
	})
}

// examine looks at everything that has to work here, in the order in which one
// needs the other.
func (p *program) examine(ctx context.Context) (list []examination) {
	say := func(outcome, id, format string, args ...any) {
		list = append(list, examination{id, outcome, fmt.Sprintf(format, args...)})
	}
	say("ok", "program", "serval %s on %s/%s", version(), runtime.GOOS, runtime.GOARCH)
	if p.keep == nil {
		say("fail", "kept", "%s", p.unkept)
	} else if info, err := os.Stat(p.keep.Dir()); err != nil || runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		say("warn", "kept", "%s is open to others on this machine", p.keep.Dir())
	} else {
		say("ok", "kept", "%s; its key is in %s", p.keep.Dir(), p.keep.KeyPlace())
	}
	bridge, err := p.open()
	if err != nil {
		say("fail", "bridge", "%s", err)
		return list
	}
	l, ok, err := p.login(bridge.Origin())
	asked, mine := p.now(), bridge.As(serval.NewSecret(l.Token))
	me, reached := mine.Me(ctx)
	_, away := errors.AsType[*client.Failure](reached)
	switch {
	case away:
		say("fail", "bridge", "%s", reached)
	default:
		say("ok", "bridge", "%s answered in %s", bridge.Origin(), p.now().Sub(asked).Round(time.Millisecond))
	}
	if skew := mine.Skew(); !away && skew.Abs() > time.Minute {
		say("fail", "clock", "this machine's clock is %s off the bridge's; AWS refuses what is signed minutes off", skew.Abs().Round(time.Second))
	} else if !away {
		say("ok", "clock", "within %s of the bridge's", max(2*time.Second, skew.Abs()).Round(time.Second))
	}
	switch {
	case err != nil:
		say("fail", "login", "%s", err)
	case away:
	case !ok || serval.IsRefusal(reached, serval.Unauthenticated):
		say("warn", "login", "nobody is signed in; serval login")
	case reached != nil:
		say("fail", "login", "%s", reached)
	case me.Suspended != "":
		say("fail", "login", "%s: %s", me.Email, me.Suspended)
	default:
		say("ok", "login", "%s until %s", me.Email, p.moment(me.LoginEndsAt))
	}
	p.examineAWS(say)
	return list
}

// examineAWS looks at what AWS's tools will find.
func (p *program) examineAWS(say func(outcome, id, format string, args ...any)) {
	path, err := p.awsConfig("")
	if err != nil {
		say("fail", "profiles", "%s", err)
		return
	}
	text, err := os.ReadFile(path)
	f, parsing := profile.Parse(string(text))
	switch {
	case err != nil && !os.IsNotExist(err):
		say("fail", "profiles", "%s", err)
	case parsing != nil:
		say("fail", "profiles", "%s", parsing)
	case len(f.Profiles) == 0:
		say("warn", "profiles", "%s has none of serval's; serval configure", path)
	default:
		say("ok", "profiles", "%d in %s", len(f.Profiles), path)
	}
	for _, one := range f.Profiles {
		program := strings.Trim(strings.SplitN(one.Process, " creds ", 2)[0], `"`)
		if _, err := exec.LookPath(program); err != nil {
			say("fail", "profiles", "profile %s runs %s, which is not there; run serval configure again", one.Name, program)
			break
		}
	}
	if aws, err := exec.LookPath("aws"); err == nil {
		say("ok", "aws", "%s", aws)
	} else {
		say("warn", "aws", "the AWS CLI is not on the PATH; SDKs do not need it")
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		if p.getenv(name) != "" {
			say("warn", "environment", "%s is set: tools may take it before a profile", name)
		}
	}
}
