package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Click is a decision that somebody made in Slack.
type Click struct {
	User    string // Slack's id for them
	Email   string // that Slack has verified
	Request string
	Round   int
	Approve bool
}

// A Socket takes decisions from Slack by Socket Mode: it dials out, and Slack
// sends each click down one of the connections of all replicas. Make it with
// NewSocket, and Run it.
type Socket struct {
	config SlackConfig
	origin string
	log    *zap.Logger
	client *http.Client
	// decide does what was clicked, and returns the sentence that everybody sees.
	decide func(context.Context, Click) (string, error)
}

// NewSocket returns a socket. Decide's refusals are told whoever clicked; of its
// faults they hear that there was one.
func NewSocket(c SlackConfig, origin string, log *zap.Logger, decide func(context.Context, Click) (string, error)) *Socket {
	c.APIURL = strings.TrimSuffix(cmp.Or(c.APIURL, "https://slack.com/api"), "/")
	return &Socket{c, strings.TrimSuffix(origin, "/"), log, newClient(), decide}
}

// The bounds of a connection.
const (
	maxEnvelope  = 256 << 10
	maxUnderWay  = 8
	dialPatience = 15 * time.Second
	pingEvery    = 30 * time.Second
	clickTime    = 30 * time.Second
	lastRedial   = 2 * time.Minute
)

// Run keeps a connection until ctx ends, and waits for the decisions under way.
// While Slack is away it dials again with growing pauses.
func (s *Socket) Run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		began := time.Now()
		err := guarded(func() error { return s.connect(ctx) })
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastRedial {
			failures = 0
		}
		pause := min(time.Second<<min(failures, 10), lastRedial)
		if failures++; err != nil {
			s.log.Warn("the connection to Slack was lost", zap.Error(err), zap.Duration("again_in", pause))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// connect asks Slack where to dial, and takes what comes until the connection
// ends.
func (s *Socket) connect(ctx context.Context) error {
	dialing, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	var open struct {
		URL string `json:"url"`
	}
	if err := call(dialing, s.client, s.config.APIURL, "apps.connections.open", s.config.AppToken, "", &open); err != nil {
		return err
	}
	if err := checkSocket(open.URL); err != nil {
		return err
	}
	own, err := s.own(dialing)
	if err != nil {
		return err
	}
	dialer := &http.Client{Transport: s.client.Transport, CheckRedirect: s.client.CheckRedirect} // a timeout would end the connection
	conn, answer, err := websocket.Dial(dialing, open.URL, &websocket.DialOptions{HTTPClient: dialer})
	if err != nil {
		if answer != nil {
			return fmt.Errorf("dialing Slack: it answered %d", answer.StatusCode)
		}
		return errors.New("dialing Slack: the connection failed") // the address is a ticket
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxEnvelope)

	ctx, stop := context.WithCancel(ctx)
	var under sync.WaitGroup
	defer under.Wait()
	defer stop()
	under.Go(func() { // a connection that died silently is found by its pings
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pingEvery):
			}
			ping, cancel := context.WithTimeout(ctx, dialPatience)
			err := conn.Ping(ping)
			cancel()
			if err != nil {
				conn.CloseNow()
				return
			}
		}
	})
	turn := make(chan struct{}, maxUnderWay)
	for {
		_, text, err := conn.Read(ctx)
		if err != nil {
			return errors.New("reading from Slack: the connection ended")
		}
		var e envelope
		if err := json.Unmarshal(text, &e); err != nil {
			continue // what cannot be read is not acknowledged, and so not lost
		}
		if e.Type == "disconnect" {
			return nil // Slack moves its connections now and then, and says so before
		}
		if e.ID == "" {
			continue
		}
		select {
		case turn <- struct{}{}:
		default:
			continue // Slack brings it again, here or elsewhere
		}
		ack, err := encode(map[string]string{"envelope_id": e.ID})
		if err == nil {
			err = conn.Write(ctx, websocket.MessageText, ack)
		}
		if err != nil {
			return errors.New("answering Slack: the connection ended")
		}
		under.Go(func() {
			defer func() { <-turn }()
			// What was acknowledged is done, also when this process is told to stop.
			acting, cancel := context.WithTimeout(context.WithoutCancel(ctx), clickTime)
			defer cancel()
			if err := guarded(func() error { return s.click(acting, e, own) }); err != nil {
				s.log.Error("a click in Slack came to nothing", zap.Error(err))
			}
		})
	}
}

// checkSocket refuses an address that is not of the encrypted web: wss, or ws on
// loopback.
func checkSocket(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "wss" && !(u.Scheme == "ws" && serval.IsLoopback(u.Hostname())) {
		return errors.New("an address that Slack names is no wss://")
	}
	return nil
}

// An envelope is what Slack sends, as far as we read it.
type envelope struct {
	ID      string `json:"envelope_id"`
	Type    string `json:"type"`
	Payload struct {
		Type string `json:"type"`
		User struct {
			ID     string `json:"id"`
			TeamID string `json:"team_id"`
		} `json:"user"`
		Team struct {
			ID string `json:"id"`
		} `json:"team"`
		ResponseURL string `json:"response_url"`
		Actions     []struct {
			ID    string `json:"action_id"`
			Value string `json:"value"`
		} `json:"actions"`
	} `json:"payload"`
}

// click does what somebody clicked, and says in Slack what came of it: to all in
// the message's place where it was done, and to them alone where it was not.
func (s *Socket) click(ctx context.Context, e envelope, own string) error {
	p := e.Payload
	if e.Type != "interactive" || p.Type != "block_actions" || len(p.Actions) != 1 || p.Actions[0].ID != actionApprove && p.Actions[0].ID != actionDeny {
		return nil
	}
	id, round, found := strings.Cut(p.Actions[0].Value, " ")
	c := Click{User: p.User.ID, Request: id, Approve: p.Actions[0].ID == actionApprove}
	var err error
	if c.Round, err = strconv.Atoi(round); err != nil || !found {
		return nil // none of our buttons
	}
	if c.Email, err = s.email(ctx, p.User.ID, cmp.Or(p.User.TeamID, p.Team.ID), own); err != nil {
		s.log.Warn("who clicked in Slack is not known", zap.String("user", serval.Clip(p.User.ID, 40)), zap.Error(err))
		// Whoever decides refuses nobody's click, and records that.
		c.Email = ""
		if _, err := s.decide(ctx, c); err != nil && !serval.IsRefusal(err) {
			return err
		}
		return s.say(ctx, p.ResponseURL, "Nothing was decided: your email address at Slack is not one that Serval can rely on. Decide at "+s.origin+"/requests/"+c.Request, false)
	}
	sentence, err := s.decide(ctx, c)
	switch {
	case err == nil:
		return s.say(ctx, p.ResponseURL, sentence, true)
	case serval.IsRefusal(err):
		return s.say(ctx, p.ResponseURL, "Nothing was decided. "+err.Error()+" "+s.origin+"/requests/"+c.Request, false)
	default:
		return errors.Join(err, s.say(ctx, p.ResponseURL, "Something went wrong on our side. Look at "+s.origin+"/requests/"+c.Request, false))
	}
}

// own returns the workspace that the app is in, by its own token: in a channel that
// is shared with other companies a click may name theirs.
func (s *Socket) own(ctx context.Context) (string, error) {
	var answer struct {
		TeamID string `json:"team_id"`
	}
	if err := call(ctx, s.client, s.config.APIURL, "auth.test", s.config.BotToken, "", &answer); err != nil {
		return "", err
	}
	if answer.TeamID == "" {
		return "", errors.New("the answer of Slack's auth.test names no workspace")
	}
	return answer.TeamID, nil
}

// email returns the address of a Slack user that Slack itself has verified:
// somebody of the workspace that the app is in, and no guest, bot or former member.
func (s *Socket) email(ctx context.Context, user, team, own string) (string, error) {
	if user == "" || team == "" || team != own {
		return "", errors.New("they are of another workspace")
	}
	var answer struct {
		User struct {
			ID              string `json:"id"`
			TeamID          string `json:"team_id"`
			Deleted         bool   `json:"deleted"`
			IsBot           bool   `json:"is_bot"`
			IsRestricted    bool   `json:"is_restricted"`
			IsUltraRestrict bool   `json:"is_ultra_restricted"`
			IsStranger      bool   `json:"is_stranger"`
			EmailConfirmed  bool   `json:"is_email_confirmed"`
			Profile         struct {
				Email string `json:"email"`
			} `json:"profile"`
		} `json:"user"`
	}
	if err := call(ctx, s.client, s.config.APIURL, "users.info", s.config.BotToken, "?user="+url.QueryEscape(user), &answer); err != nil {
		return "", err
	}
	u := answer.User
	switch {
	case u.ID != user || u.TeamID != own:
		return "", errors.New("the answer of Slack is about somebody else")
	case u.Deleted || u.IsBot || u.IsRestricted || u.IsUltraRestrict || u.IsStranger:
		return "", errors.New("they are no full member of the workspace")
	case !u.EmailConfirmed:
		return "", errors.New("their email address is not verified at Slack")
	}
	return serval.ParseEmail(u.Profile.Email)
}

// say answers a click at the address that came with it.
func (s *Socket) say(ctx context.Context, to, text string, everybody bool) error {
	if err := serval.CheckEndpoint(to); err != nil {
		return fmt.Errorf("an address for answers that Slack names cannot be used: %w", err)
	}
	answer := map[string]any{"text": slackText(text), "replace_original": everybody}
	if !everybody {
		answer["response_type"] = "ephemeral"
	}
	body, err := encode(answer)
	if err != nil {
		return err
	}
	if _, err := post(ctx, s.client, serval.NewSecret(to), body, nil); err != nil {
		return fmt.Errorf("answering in Slack: %s", why(err))
	}
	return nil
}
