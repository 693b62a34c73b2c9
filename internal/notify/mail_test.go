package notify

import (
	"bufio"
	"fmt"
	"mime"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A post office takes mail without TLS, and answers RCPT as it is told to.
type postOffice struct {
	t        *testing.T
	listener net.Listener

	mu      sync.Mutex
	refuse  string // answer to RCPT; empty takes it
	silent  bool   // says nothing at all
	letters []string
}

func newPostOffice(t *testing.T) *postOffice {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &postOffice{t: t, listener: l}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return p
}

func (p *postOffice) url() string { return "smtp://" + p.listener.Addr().String() }

func (p *postOffice) set(refuse string, silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse, p.silent = refuse, silent
}

func (p *postOffice) taken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.letters...)
}

func (p *postOffice) serve(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	p.mu.Lock()
	refuse, silent := p.refuse, p.silent
	p.mu.Unlock()
	lines := bufio.NewReader(conn)
	if silent {
		lines.ReadString('\n')
		return
	}
	say := func(text string) { fmt.Fprintf(conn, "%s\r\n", text) }
	say("220 post office")
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(strings.TrimSpace(line)); {
		case strings.HasPrefix(verb, "EHLO"), strings.HasPrefix(verb, "HELO"):
			say("250 post office")
		case strings.HasPrefix(verb, "RCPT") && refuse != "":
			say(refuse)
		case verb == "DATA":
			say("354 go on")
			var letter strings.Builder
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				letter.WriteString(line)
			}
			p.mu.Lock()
			p.letters = append(p.letters, letter.String())
			p.mu.Unlock()
			say("250 taken")
		case verb == "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

// subject returns a letter's.
func subject(letter string) string {
	for line := range strings.Lines(letter) {
		if text, is := strings.CutPrefix(line, "Subject: "); is {
			return strings.TrimSpace(text)
		}
	}
	return ""
}

// A letter goes to one person, says what the notice says, has the same id in each
// attempt, and no header of somebody else's making.
func TestMail(t *testing.T) {
	office := newPostOffice(t)
	c, err := NewMail(MailConfig{URL: office.url(), From: "serval@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, c)
	w.tell(serval.People{Emails: []string{"ann@example.com"}}, "hé\r\nBcc: eve@example.com")
	office.set("450 later", false)
	w.turn()
	if n := w.notices(serval.NoticePending); len(n) != 1 || n[0].Attempts != 1 || !strings.Contains(n[0].Error, "450") {
		t.Fatalf("refused for now, there is %+v", n)
	}
	office.set("", false)
	w.move(time.Minute)
	w.turn()
	letters := office.taken()
	if len(letters) != 1 || len(w.notices(serval.NoticeSent)) != 1 {
		t.Fatalf("taken: %d letters, want 1", len(letters))
	}
	letter, err := mail.ReadMessage(strings.NewReader(letters[0]))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(letter.Header.Get("Subject"))
	if err != nil || subject != "hé  Bcc: eve@example.com" {
		t.Errorf("the subject is %q, %v", subject, err)
	}
	id := w.notices(serval.NoticeSent)[0].ID
	for name, want := range map[string]string{"To": "<ann@example.com>", "Bcc": "", "Message-Id": "<" + id + "@example.com>", "Auto-Submitted": "auto-generated"} {
		if got := letter.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !strings.Contains(letters[0], origin+"/roles") {
		t.Errorf("the letter has no link:\n%s", letters[0])
	}
}

// What is no server of ours gets no password: off loopback STARTTLS is required.
func TestMailNeedsTLS(t *testing.T) {
	office := newPostOffice(t)
	c, err := NewMail(MailConfig{URL: strings.Replace(office.url(), "smtp:", "smtps:", 1), From: "serval@example.com", Username: "u", Password: serval.NewSecret("CANARY")})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, c)
	w.tell(serval.People{Emails: []string{"ann@example.com"}}, "x")
	w.turn()
	if n := w.notices(serval.NoticePending); len(n) != 1 || n[0].Error == "" || strings.Contains(n[0].Error, "CANARY") {
		t.Errorf("a server without TLS: %+v", n)
	}
	if letters := office.taken(); len(letters) != 0 {
		t.Errorf("it took %q", letters)
	}
}
