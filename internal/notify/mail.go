package notify

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/wneessen/go-mail"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A MailConfig says by which server mail goes out.
type MailConfig struct {
	// URL is smtp://host:587, where STARTTLS is required (off loopback), or
	// smtps://host:465.
	URL      string
	From     string
	Username string // with Password, or neither
	Password serval.Secret
}

// Faults returns all that is wrong with the settings, by their variables.
func (c MailConfig) Faults() []string {
	if c == (MailConfig{}) {
		return nil
	}
	var faults []string
	if _, err := c.server(); err != nil {
		faults = append(faults, "SERVAL_SMTP_URL: "+err.Error()+".")
	}
	if _, err := serval.ParseEmail(c.From); err != nil {
		faults = append(faults, "SERVAL_SMTP_FROM: an email address is required, such as serval@example.com.")
	}
	if (c.Username == "") != c.Password.Empty() {
		faults = append(faults, "SERVAL_SMTP_USERNAME: give SERVAL_SMTP_PASSWORD too, or neither.")
	}
	return faults
}

// A server is where mail goes out.
type server struct {
	host     string
	port     int
	implicit bool // TLS from the first byte on
	bare     bool // no TLS: on loopback only
}

func (c MailConfig) server() (server, error) {
	bad := errors.New("smtp://host:587 or smtps://host:465")
	u, err := url.Parse(c.URL)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return server{}, bad
	}
	s := server{host: u.Hostname(), port: 587, bare: u.Scheme == "smtp" && serval.IsLoopback(u.Hostname())}
	switch u.Scheme {
	case "smtp":
	case "smtps":
		s.port, s.implicit = 465, true
	default:
		return server{}, bad
	}
	if text := u.Port(); text != "" {
		if s.port, err = strconv.Atoi(text); err != nil || s.port < 1 || s.port > 65535 {
			return server{}, bad
		}
	}
	return s, nil
}

// mailer is the channel of mail, one message for each person.
type mailer struct {
	client *mail.Client
	from   string
	domain string
}

// NewMail returns the channel of mail.
func NewMail(c MailConfig) (Channel, error) {
	s, err := c.server()
	if err != nil {
		return nil, err
	}
	options := []mail.Option{mail.WithPort(s.port), mail.WithTimeout(patience)}
	switch {
	case s.implicit:
		options = append(options, mail.WithSSL())
	case s.bare:
		options = append(options, mail.WithTLSPolicy(mail.TLSOpportunistic))
	default:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if c.Username != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(c.Username), mail.WithPassword(c.Password.Reveal()))
	}
	client, err := mail.NewClient(s.host, options...)
	if err != nil {
		return nil, fmt.Errorf("preparing mail: %w", err)
	}
	_, domain, _ := strings.Cut(c.From, "@")
	return &mailer{client, c.From, domain}, nil
}

// Name returns the channel's name.
func (m *mailer) Name() string { return Mail }

// Send mails the message to the one person whom it is for. Its Message-ID is made
// of the notice's, the same in every attempt.
func (m *mailer) Send(ctx context.Context, message Message) error {
	letter := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := letter.FromFormat("Serval", m.from); err != nil {
		return fmt.Errorf("the sender's address: %w", err)
	}
	if err := letter.To(message.To.Emails...); err != nil {
		return fmt.Errorf("the recipient's address: %w", err)
	}
	letter.Subject(oneLine(message.Title))
	letter.SetMessageIDWithValue(message.ID + "@" + m.domain)
	letter.SetDateWithValue(message.CreatedAt)
	letter.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody's holiday answers it
	letter.SetBodyString(mail.TypeTextPlain, message.Text())
	return m.client.DialAndSendWithContext(ctx, letter)
}

// oneLine returns text without what would end a header.
func oneLine(text string) string {
	return serval.Clip(strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, text), 200)
}
