package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/serval-bridge/serval-bridge/internal/bridge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// lastTime is how long the access lasts whose end the story waits for, and longer on a
// machine that is too busy to use it meanwhile.
const lastTime = 6 * time.Second

// A story is the whole of Serval's job, told over HTTP as browsers and AWS
// clients do it. Each step has its time; the first that does not hold ends it.
type story struct {
	demo *demo
	out  io.Writer

	requester, approver, admin *browser
	request                    wire.Request
	session                    wire.Credentials
	change                     change
}

// check tells the story.
func (d *demo) check(ctx context.Context, out io.Writer) error {
	s := &story{demo: d, out: out}
	for _, step := range []struct {
		text string
		do   func(context.Context) (string, error)
	}{
		{"sign in as the requester", s.signIn},
		{"see the tagged roles, and none but those", s.seeRoles},
		{"request prod-readonly for 30 minutes", s.ask},
		{"a stranger does not see the request, its requester cannot approve it", s.refusals},
		{"sign in as the approver, and approve", s.approve},
		{"start a session", s.open},
		{"sts:GetCallerIdentity names the person", s.identity},
		{"iam:ListRoles works", s.works},
		{"shorten the access to end in some seconds, start another session, and iam:ListRoles works until then", s.shorten},
		{"iam:ListRoles is refused after the end", s.ends},
		{"no further session is opened", s.over},
		{"an admin tests the connection of the account", s.testConnection},
		{"the audit log tells it all", s.audit},
		{"change three roles in AWS, and tell nobody", s.changeRoles},
		{"the one that was tagged is in the catalogue", s.tagged},
		{"the one that was untagged is not, and opens no session", s.untagged},
		{"the one that was deleted is not, and its request has failed", s.deleted},
		{"created again it is another role, and the request stays failed", s.recreated},
		{"the audit log tells of each change", s.deltas},
		{"the OIDC provider of an account was looked at where that is allowed", s.providers},
		{"without it the account's roles say that AWS refuses, and what mends it", s.unprovided},
		{"the audit chain holds", s.verify},
	} {
		start := time.Now()
		seen, err := step.do(ctx)
		took := time.Since(start).Seconds()
		if err != nil {
			fmt.Fprintf(out, "FAIL %7.3fs  %s: %s\n", took, step.text, err)
			return fmt.Errorf("%s: %w", step.text, err)
		}
		fmt.Fprintf(out, "ok   %7.3fs  %s\n", took, step.text)
		for line := range strings.Lines(seen) {
			fmt.Fprintf(out, "               %s\n", strings.TrimRight(line, "\n"))
		}
	}
	return nil
}

// enter returns the browser of a person who has signed in.
func (s *story) enter(ctx context.Context, email string) (*browser, error) {
	b, err := newBrowser(s.demo.url)
	if err != nil {
		return nil, err
	}
	if err := b.signIn(ctx, email); err != nil {
		return nil, err
	}
	var me wire.Me
	if err := b.call(ctx, "GET", "/me", nil, &me); err != nil {
		return nil, err
	}
	if me.Email != email {
		return nil, fmt.Errorf("signed in as %q, want %q", me.Email, email)
	}
	return b, nil
}

func (s *story) signIn(ctx context.Context) (seen string, err error) {
	s.requester, err = s.enter(ctx, requester)
	return requester, err
}

func (s *story) seeRoles(ctx context.Context) (string, error) {
	var got wire.Roles
	if err := s.requester.call(ctx, "GET", "/roles?page_size=1000", nil, &got); err != nil {
		return "", err
	}
	var names, tagged []string
	for _, r := range got.Roles {
		names = append(names, r.Name)
	}
	var others []string
	for _, a := range estate() {
		for _, r := range a.roles {
			if r.tag == serval.TagKey {
				tagged = append(tagged, r.name)
			} else {
				others = append(others, r.name)
			}
		}
	}
	slices.Sort(names)
	slices.Sort(tagged)
	if !slices.Equal(names, tagged) {
		return "", fmt.Errorf("the catalogue has %v, want %v", names, tagged)
	}
	page, err := s.requester.page(ctx, "/roles")
	if err != nil {
		return "", err
	}
	for _, name := range tagged {
		if !strings.Contains(page, name) {
			return "", fmt.Errorf("the page of roles does not show %s", name)
		}
	}
	for _, name := range others {
		if strings.Contains(page, name) {
			return "", fmt.Errorf("the page of roles shows %s, which is not tagged", name)
		}
	}
	return fmt.Sprintf("%d roles; not %s", len(names), strings.Join(others, ", ")), nil
}

const wanted = "arn:aws:iam::" + prodAccount + ":role/prod-readonly"

func (s *story) ask(ctx context.Context) (string, error) {
	err := s.requester.call(ctx, "POST", "/requests", wire.NewRequest{
		RoleARN: wanted, Minutes: 30, Justification: "Look into the slow checkout",
	}, &s.request)
	if err == nil && s.request.Status != string(serval.StatusPending) {
		err = fmt.Errorf("the request is %s, want pending", s.request.Status)
	}
	return "status " + s.request.Status + ", policy " + s.request.Policy, err
}

func (s *story) refusals(ctx context.Context) (string, error) {
	decision := wire.Decision{Outcome: "approve"}
	own := s.requester.call(ctx, "POST", "/requests/"+s.request.ID+"/decisions", decision, nil)
	if err := refused(own, 403); err != nil {
		return "", err
	}
	nobody, err := newBrowser(s.demo.url)
	if err != nil {
		return "", err
	}
	if err := refused(nobody.call(ctx, "GET", "/requests/"+s.request.ID, nil, nil), 401); err != nil {
		return "", err
	}
	return own.Error(), nil
}

// refused returns an error unless err is the API's refusal with the status.
func refused(err error, status int) error {
	if e, ok := errors.AsType[*apiError](err); ok && e.status == status {
		return nil
	}
	return fmt.Errorf("want a refusal with status %d, got: %v", status, err)
}

func (s *story) approve(ctx context.Context) (string, error) {
	var err error
	if s.approver, err = s.enter(ctx, approver); err != nil {
		return "", err
	}
	var waiting wire.Requests
	if err := s.approver.call(ctx, "GET", "/approvals", nil, &waiting); err != nil {
		return "", err
	}
	if !slices.ContainsFunc(waiting.Requests, func(r wire.Request) bool { return r.ID == s.request.ID }) {
		return "", errors.New("the request does not wait for the approver")
	}
	err = s.approver.call(ctx, "POST", "/requests/"+s.request.ID+"/decisions",
		wire.Decision{Outcome: "approve", Reason: "Go ahead"}, &s.request)
	if err == nil && s.request.Status != string(serval.StatusApproved) {
		err = fmt.Errorf("the request is %s, want approved", s.request.Status)
	}
	return "status " + s.request.Status + "; the clock has not started", err
}

func (s *story) open(ctx context.Context) (string, error) {
	s.session = wire.Credentials{}
	if err := s.requester.call(ctx, "POST", "/sessions", wire.NewSession{RequestID: s.request.ID}, &s.session); err != nil {
		return "", err
	}
	if s.session.AccessKeyID == "" || s.session.SecretAccessKey == "" || s.session.SessionToken == "" {
		return "", errors.New("the credentials are not whole")
	}
	return fmt.Sprintf("session %s, ends at %s", s.session.SessionName, s.session.EndsAt.Format(time.RFC3339)), nil
}

// aws returns the settings of AWS clients that use the session.
func (s *story) aws() aws.Config {
	return aws.Config{
		Region: "us-west-1", BaseEndpoint: &s.demo.aws,
		Credentials: credentials.NewStaticCredentialsProvider(s.session.AccessKeyID, s.session.SecretAccessKey, s.session.SessionToken),
	}
}

func (s *story) identity(ctx context.Context) (string, error) {
	out, err := sts.NewFromConfig(s.aws()).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", err
	}
	want := "arn:aws:sts::" + prodAccount + ":assumed-role/prod-readonly/" + serval.SessionName(requester)
	if *out.Arn != want {
		return "", fmt.Errorf("got %s, want %s", *out.Arn, want)
	}
	return *out.Arn, nil
}

func (s *story) list(ctx context.Context) (int, error) {
	out, err := iam.NewFromConfig(s.aws()).ListRoles(ctx, &iam.ListRolesInput{})
	if err != nil {
		return 0, err
	}
	return len(out.Roles), nil
}

func (s *story) works(ctx context.Context) (string, error) {
	n, err := s.list(ctx)
	return fmt.Sprintf("%d roles listed", n), err
}

// shorten has the access end soon, and a session be used before. Where that time was
// over before it could be, everything is asked for again, and ends later.
func (s *story) shorten(ctx context.Context) (string, error) {
	for last := lastTime; ; last *= 2 {
		end := time.Now().Add(last).Truncate(time.Second)
		seen, err := s.usedUntil(ctx, end)
		if err == nil || time.Until(end) > time.Second || last > time.Minute {
			return seen, err
		}
		// What is left of it ends, unless it has.
		if err := s.requester.call(ctx, "POST", "/requests/"+s.request.ID+"/done", nil, nil); err != nil && refused(err, 409) != nil {
			return "", err
		}
		for _, again := range []func(context.Context) (string, error){s.ask, s.refusals, s.approve, s.open} {
			if _, err := again(ctx); err != nil {
				return "", err
			}
		}
	}
}

func (s *story) usedUntil(ctx context.Context, end time.Time) (string, error) {
	err := s.requester.call(ctx, "POST", "/requests/"+s.request.ID+"/shorten", wire.Shortening{EndsAt: wire.Time{Time: end}}, &s.request)
	if err != nil {
		return "", err
	}
	opened, err := s.open(ctx)
	if err != nil {
		return "", err
	}
	listed, err := s.works(ctx)
	return opened + "\n" + listed, err
}

func (s *story) ends(ctx context.Context) (string, error) {
	if wait := time.Until(s.session.EndsAt.Time); wait > 0 {
		time.Sleep(wait)
	}
	_, err := s.list(ctx)
	if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		return "", fmt.Errorf("want AccessDenied, got: %v", err)
	}
	if _, err := s.identity(ctx); err != nil {
		return "", fmt.Errorf("sts:GetCallerIdentity, which no policy can refuse: %w", err)
	}
	return "AccessDenied " + time.Since(s.session.EndsAt.Time).Round(time.Millisecond).String() + " after the end, although STS's own minimum is 15 minutes", nil
}

func (s *story) over(ctx context.Context) (string, error) {
	err := s.requester.call(ctx, "POST", "/sessions", wire.NewSession{RequestID: s.request.ID}, nil)
	if refusal := refused(err, 409); refusal != nil {
		return "", refusal
	}
	return err.Error(), nil
}

// testConnection has the worker check the account by which all this went.
func (s *story) testConnection(ctx context.Context) (string, error) {
	var err error
	if s.admin, err = s.enter(ctx, admin); err != nil {
		return "", err
	}
	var run wire.Run
	if err := s.admin.call(ctx, "POST", "/accounts/"+prodAccount+"/checks", nil, &run); err != nil {
		return "", err
	}
	for run.Status == serval.RunRunning {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return "", ctx.Err()
		}
		if err := s.admin.call(ctx, "GET", "/runs/"+run.ID, nil, &run); err != nil {
			return "", err
		}
	}
	if run.Check == nil || run.Check.Text != serval.TextConnected {
		return "", fmt.Errorf("the check is %s: %s %+v", run.Status, run.Error, run.Check)
	}
	return run.Check.Text, nil
}

func (s *story) audit(ctx context.Context) (string, error) {
	var log wire.Events
	if err := s.admin.call(ctx, "GET", "/audit?page_size=100&target="+s.request.ID, nil, &log); err != nil {
		return "", err
	}
	slices.Reverse(log.Events)
	var lines strings.Builder
	var told []string
	for _, e := range log.Events {
		told = append(told, e.Action+" "+e.Outcome)
		fmt.Fprintf(&lines, "%4d  %-22s %-8s %s\n", e.Seq, e.Action, e.Outcome, e.Actor)
	}
	for _, want := range []string{
		"request.create done", "request.decide refused", "request.approve done", "session.open started", "session.issue done",
		"request.shorten done", "session.open refused",
	} {
		if !slices.Contains(told, want) {
			return "", fmt.Errorf("the log does not tell of %q: %q", want, told)
		}
	}
	return lines.String(), nil
}

func (s *story) verify(ctx context.Context) (seen string, err error) {
	archive, err := bridge.OpenArchive(ctx, s.demo.database, s.demo.secret)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	head, err := archive.Verify(ctx, store.Head{})
	return fmt.Sprintf("%d rows, head %s…", head.Seq, head.Hash[:min(16, len(head.Hash))]), err
}
