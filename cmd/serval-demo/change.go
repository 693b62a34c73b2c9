package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// deltaInterval is how far apart the demo's deltas are: a change in AWS is seen
// while one looks on.
const deltaInterval = 5 * time.Second

// syncInterval is how far apart the demo's full syncs are.
const syncInterval = 4 * time.Hour

// syncOffset is when after midnight UTC a full sync is due: half an interval from now
// and not within a story, whose changes are to be seen by deltas at any time of day.
func syncOffset() time.Duration {
	now := time.Now()
	return now.Sub(now.Truncate(24*time.Hour)) + syncInterval/2
}

// The roles of the sandbox that the story changes in AWS, without a word to
// Serval.
const (
	toTag    = "sandbox-training"
	toUntag  = "sandbox-networking"
	toDelete = "sandbox-machine-learning"
)

// A change is what the story has before it changes roles in AWS.
type change struct {
	at       time.Time
	deleted  wire.Role
	requests map[string]wire.Request // by the role's name
}

// catalogue returns the requester's roles by name.
func (s *story) catalogue(ctx context.Context) (map[string]wire.Role, error) {
	var got wire.Roles
	if err := s.requester.call(ctx, "GET", "/roles?page_size=1000", nil, &got); err != nil {
		return nil, err
	}
	roles := make(map[string]wire.Role)
	for _, r := range got.Roles {
		roles[r.Name] = r
	}
	return roles, nil
}

// until waits for the catalogue to be so, with patience, and says how long that was
// after the change.
func (s *story) until(ctx context.Context, so func(map[string]wire.Role) bool) (string, error) {
	for {
		roles, err := s.catalogue(ctx)
		if err != nil {
			return "", err
		}
		took := time.Since(s.change.at)
		if so(roles) {
			return fmt.Sprintf("seen %.1f s after the change; a delta every %s", took.Seconds(), deltaInterval), nil
		}
		if took > patience {
			return "", fmt.Errorf("not seen within %.0f s", took.Seconds())
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case err := <-s.demo.failed:
			return "", err
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

func (s *story) changeRoles(ctx context.Context) (string, error) {
	roles, err := s.catalogue(ctx)
	if err != nil {
		return "", err
	}
	if _, ok := roles[toTag]; ok {
		return "", fmt.Errorf("%s is in the catalogue before it is tagged", toTag)
	}
	s.change.requests = make(map[string]wire.Request)
	for _, name := range []string{toUntag, toDelete} {
		var r wire.Request
		err := s.requester.call(ctx, "POST", "/requests", wire.NewRequest{RoleARN: roles[name].ARN, Minutes: 30, Justification: "Before it changes"}, &r)
		if err == nil && r.Status != string(serval.StatusApproved) {
			err = fmt.Errorf("the request is %s, want approved", r.Status)
		}
		if err != nil {
			return "", fmt.Errorf("requesting %s: %w", name, err)
		}
		s.change.requests[name] = r
	}
	s.change.deleted = roles[toDelete]
	sandbox := s.demo.cloud.Account(sandboxAccount)
	sandbox.TagRole(toTag, serval.TagKey, "")
	sandbox.UntagRole(toUntag, serval.TagKey)
	sandbox.DeleteRole(toDelete)
	s.change.at = time.Now()
	return fmt.Sprintf("%s tagged, %s untagged, %s deleted", toTag, toUntag, toDelete), nil
}

func (s *story) tagged(ctx context.Context) (string, error) {
	return s.until(ctx, func(roles map[string]wire.Role) bool { _, ok := roles[toTag]; return ok })
}

func (s *story) untagged(ctx context.Context) (string, error) {
	seen, err := s.until(ctx, func(roles map[string]wire.Role) bool { _, ok := roles[toUntag]; return !ok })
	if err != nil {
		return "", err
	}
	refusal, err := s.opensNot(ctx, toUntag)
	return seen + "\n" + refusal, err
}

// opensNot returns the refusal of a session under the request that was made
// before the role changed.
func (s *story) opensNot(ctx context.Context, name string) (string, error) {
	err := s.requester.call(ctx, "POST", "/sessions", wire.NewSession{RequestID: s.change.requests[name].ID}, nil)
	if e, ok := errors.AsType[*apiError](err); ok && e.status < http.StatusInternalServerError {
		return err.Error(), nil
	}
	return "", fmt.Errorf("a session of %s under the request from before: want it refused, got: %v", name, err)
}

func (s *story) deleted(ctx context.Context) (string, error) {
	seen, err := s.until(ctx, func(roles map[string]wire.Role) bool { _, ok := roles[toDelete]; return !ok })
	if err != nil {
		return "", err
	}
	refusal, err := s.failed(ctx)
	return seen + "\n" + refusal, err
}

// failed returns how the deleted role's request has ended.
func (s *story) failed(ctx context.Context) (string, error) {
	var r wire.Request
	if err := s.requester.call(ctx, "GET", "/requests/"+s.change.requests[toDelete].ID, nil, &r); err != nil {
		return "", err
	}
	if r.Status != string(serval.StatusFailed) {
		return "", fmt.Errorf("the request for the deleted role is %s, want failed", r.Status)
	}
	refusal, err := s.opensNot(ctx, toDelete)
	return "its request is " + r.Status + "; " + refusal, err
}

func (s *story) recreated(ctx context.Context) (string, error) {
	var made role
	for _, a := range estate() {
		if i := slices.IndexFunc(a.roles, func(r role) bool { return r.name == toDelete }); i >= 0 {
			made = a.roles[i]
		}
	}
	s.demo.cloud.Account(sandboxAccount).PutRole(awstest.Role{
		Name: made.name, Path: made.path, Description: made.description, MaxSessionDuration: made.hours * 3600, Tags: made.allTags(),
		Trust: made.trust(sandboxAccount, s.demo.issuer), Inline: made.inline,
	})
	s.change.at = time.Now()
	var now wire.Role
	seen, err := s.until(ctx, func(roles map[string]wire.Role) (ok bool) { now, ok = roles[toDelete]; return ok })
	if err != nil {
		return "", err
	}
	if now.ARN != s.change.deleted.ARN || now.RoleID == s.change.deleted.RoleID || now.MyRequest != nil {
		return "", fmt.Errorf("it is %s %s with the request %v, want the ARN of before, another id and no request", now.ARN, now.RoleID, now.MyRequest)
	}
	refusal, err := s.failed(ctx)
	return seen + "\n" + refusal, err
}

// deltas tells which rows of the audit log the changes have left.
func (s *story) deltas(ctx context.Context) (string, error) {
	var log wire.Events
	if err := s.admin.call(ctx, "GET", "/audit?page_size=100&target="+sandboxAccount, nil, &log); err != nil {
		return "", err
	}
	var lines []string
	told := map[string]string{}
	for _, e := range log.Events {
		if e.Action != string(serval.DeltaAccept) {
			continue
		}
		for _, what := range []string{"added", "untagged", "missing"} {
			if arn := e.Detail[what+"_01"]; arn != "" {
				told[what] += arn
				lines = append(lines, fmt.Sprintf("%4d  %-22s %-8s %s %s", e.Seq, e.Action, e.Outcome, what, arn))
			}
		}
	}
	for what, name := range map[string]string{"added": toTag, "untagged": toUntag, "missing": toDelete} {
		if !strings.Contains(told[what], "/"+name) {
			return "", fmt.Errorf("the log does not tell that %s was %s: %v", name, what, told)
		}
	}
	slices.Reverse(lines)
	return strings.Join(lines, "\n"), nil
}
