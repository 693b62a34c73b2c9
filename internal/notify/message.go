package notify

import (
	"path"
	"strconv"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Message is a notice in words: for a receiver to deliver as it can.
type Message struct {
	serval.Notice
	Title string // one line
	Lines []Line
	Link  string // to the page where more is to be seen, or done
	Do    string // what the link is for

	// Decide is there where whoever may can decide at once: the request waits for
	// that now.
	Decide *Question
}

// A Line is a fact with its name; without one it is a sentence.
type Line struct{ Name, Text string }

// A Question names what is asked to be decided.
type Question struct {
	RequestID string
	Round     int
}

// Text returns the message as plain text.
func (m Message) Text() string {
	var text strings.Builder
	for _, l := range m.Lines {
		if l.Name != "" {
			text.WriteString(l.Name + ": ")
		}
		text.WriteString(l.Text + "\n")
	}
	if m.Link != "" {
		text.WriteString("\n" + m.Do + ": " + m.Link + "\n")
	}
	return text.String()
}

// indented sets further lines of what somebody wrote in, so that none passes for a
// line of ours: another role, or another link. It is read only.
var indented = strings.NewReplacer("\r\n", "\n    ", "\n", "\n    ", "\r", "\n    ", "\v", "\n    ", "\f", "\n    ",
	"\u0085", "\n    ", "\u2028", "\n    ", "\u2029", "\n    ")

// verbs are what was done, by the kind of a notice, for a sentence such as "X's
// request for Y was approved". It is read only.
var verbs = map[serval.Action]string{
	serval.RequestApprove: "was approved", serval.RequestApproveStep: "was approved in a step, and waits for the next", serval.RequestDeny: "was denied",
	serval.RequestCancel: "was withdrawn", serval.RequestRevoke: "was revoked", serval.RequestDone: "was ended early",
	serval.RequestFail: "has failed", serval.RequestExpire: "has expired", serval.RequestShorten: "was shortened",
	serval.ExtensionApprove: "was extended", serval.ExtensionApproveStep: "has its extension approved in a step, and waits for the next",
	serval.ExtensionDeny: "was not extended",
}

// message puts a notice into words.
func (n *Notifier) message(c claimed) Message {
	m := Message{Notice: c.Notice, Do: "See it"}
	f := c.Facts
	if p := f[serval.FactPath]; strings.HasPrefix(p, "/") {
		m.Link = n.origin + p
	}
	who, role := f["email"], path.Base(f["role_arn"])
	extension := strings.HasPrefix(string(c.Kind), "extension.")
	line := func(name, text string) {
		if name != "" {
			text = indented.Replace(text)
		}
		if text != "" {
			m.Lines = append(m.Lines, Line{name, text})
		}
	}
	switch {
	case c.RequestID == "":
		m.Title = f[serval.FactTitle]
		if m.Title == "" {
			m.Title = string(c.Kind)
		}
		line("", f[serval.FactText])
		return m
	case c.Purpose == serval.ToDecide:
		m.Title, m.Do = who+" asks for "+role, "Decide"
		if extension {
			m.Title = who + " asks for more time with " + role
		}
		if c.request != nil && c.request.Asked() != nil && strconv.Itoa(c.request.Round()) == f["round"] {
			m.Decide = &Question{c.RequestID, c.request.Round()}
		} else if c.request != nil {
			line("", "By now this waits for nobody: the request is "+string(c.request.Status)+".")
			m.Do = "See it"
		}
	case f[serval.FactTitle] != "": // it tells of a request, and says what in words of its own
		m.Title = f[serval.FactTitle]
		line("", indented.Replace(f[serval.FactText]))
	case c.Purpose == serval.Ending:
		m.Title, m.Do = who+"'s access to "+role+" ends soon", "Extend it, or end it now"
		if c.request != nil {
			line("Ends at", c.request.EndsAt.UTC().Format("2006-01-02 15:04 UTC"))
		}
	case c.Purpose == serval.Alarm:
		m.Title = who + " broke the glass for " + role
		line("", "Nobody else approved it, and it works at once. Whoever would have decided can revoke it.")
		m.Do = "Look at it, or revoke it"
	default:
		verb := verbs[c.Kind]
		if verb == "" {
			verb = "has changed (" + string(c.Kind) + ")"
		}
		m.Title = who + "'s request for " + role + " " + verb
		if c.Purpose == serval.Handled {
			line("", "This waits for you no more.")
		}
	}
	line("Role", f["role_arn"])
	if c.Purpose == serval.ToDecide || c.Purpose == serval.Alarm {
		if n, err := strconv.Atoi(f["asked_minutes"]); err == nil {
			line("For", serval.Length(n))
		}
		line("Justification", f["asked_justification"])
		line("Ticket", f["ticket"])
		line("Not before", f["start_at"])
	}
	if by := f[serval.FactBy]; by != who && by != "system" {
		line("By", by)
	}
	line("Reason", f[serval.FactWhy])
	line("Policy", f["policy"])
	return m
}
