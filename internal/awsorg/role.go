package awsorg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// longestPause is how long is waited at most for a role to be there.
const longestPause = 8 * time.Second

// policyName is the name of the one inline policy of a role that is made.
const policyName = "serval"

// An Order is one role to be made, for one run.
type Order struct {
	RunID string
	Role  serval.NewRole
	Trust string // its trust policy
}

// description ends in the run's id, by which a role is recognised that could not
// be tagged with it.
func (o Order) description() string {
	return strings.TrimSpace(o.Role.Description + " " + o.mark())
}

func (o Order) mark() string { return "(Serval run " + o.RunID + ")" }

// CreateRole is "Create AWS IAM Role": it makes the role under the workflow role,
// bounded and under /serval/, with its inline policy, tagged with serval and with
// the run. Where an earlier attempt of the same run has made it, that is found
// out by way of the ingestion role, which alone may look, and what is missing is
// done; a role of that name that is not this run's is left alone.
//
// What AWS refuses is in the result's Error and Findings. The error is that ctx
// ended.
func (c *Client) CreateRole(ctx context.Context, a serval.Account, o Order, workflow, ingestion Access) (serval.RunResult, error) {
	m := &making{Order: o, account: a, workflow: c.iam(a, workflow), ingestion: c.iam(a, ingestion)}
	if err := m.run(ctx); err != nil {
		if ctx.Err() != nil {
			return serval.RunResult{}, ctx.Err()
		}
		return serval.RunResult{Error: err.Error(), Findings: m.findings}, nil
	}
	return serval.RunResult{Role: &m.made, Findings: m.findings}, nil
}

func (c *Client) iam(a serval.Account, by Access) *iam.Client {
	return iam.New(iam.Options{
		Region: region(a.Partition), Credentials: by.Credentials, HTTPClient: by.HTTP, Retryer: retryer(),
		BaseEndpoint: endpoint(c.config.IAMEndpoint),
	})
}

// A making is one role on its way.
type making struct {
	Order
	account             serval.Account
	workflow, ingestion *iam.Client
	made                serval.CreatedRole
	findings            []serval.Finding
}

// run makes the role and then gives it its policy. A crash in between leaves a
// role without permissions, which the next attempt finds and completes.
func (m *making) run(ctx context.Context) error {
	role, err := m.create(ctx, true)
	code, message := said(err)
	if err != nil && isDenied(code) && strings.Contains(message, "iam:TagRole") {
		role, err = m.create(ctx, false)
		code, _ = said(err)
	}
	switch {
	case err == nil:
		m.made.Tagged = len(role.Tags) > 0
	case code == "EntityAlreadyExists" || code == "EntityAlreadyExistsException":
		if role, err = m.find(ctx); err != nil {
			return err
		}
		m.made.Found = true
	default:
		return m.refused("iam:CreateRole", err)
	}
	m.made.ARN, m.made.RoleID = deref(role.Arn), deref(role.RoleId)
	if want := m.Role.ARN(m.account.Partition, m.account.ID); m.made.ARN != want {
		return fmt.Errorf("AWS answered with the role %q, and not with %s. Look at the endpoint", serval.Cut(m.made.ARN, 200), want)
	}
	if err := m.permit(ctx); err != nil {
		return fmt.Errorf("the role %s is there, without its policy: %w", m.made.ARN, m.refused("iam:PutRolePolicy", err))
	}
	if !m.made.Tagged {
		return m.tag(ctx)
	}
	return nil
}

// permit gives the role its policy. IAM is consistent in the end only: a role that
// was made a moment ago may not be there yet.
func (m *making) permit(ctx context.Context) error {
	for pause := time.Second; ; pause *= 2 {
		_, err := call(ctx, func(ctx context.Context) (*iam.PutRolePolicyOutput, error) {
			return m.workflow.PutRolePolicy(ctx, &iam.PutRolePolicyInput{
				RoleName: &m.Role.Name, PolicyName: aws.String(policyName), PolicyDocument: &m.Role.Policy})
		})
		if code, _ := said(err); err == nil || code != "NoSuchEntity" || pause > longestPause {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *making) tags() []types.Tag {
	return []types.Tag{
		{Key: aws.String(serval.TagKey), Value: aws.String("")},
		{Key: aws.String(serval.RunTag), Value: aws.String(m.RunID)},
	}
}

// create makes the role, with its tags where that may be allowed: AWS makes none
// at all where they are not.
func (m *making) create(ctx context.Context, tagged bool) (*types.Role, error) {
	in := &iam.CreateRoleInput{
		RoleName: &m.Role.Name, Path: aws.String(serval.WorkflowPath), Description: aws.String(m.description()),
		AssumeRolePolicyDocument: &m.Trust, PermissionsBoundary: &m.Role.PermissionsBoundary,
		MaxSessionDuration: aws.Int32(int32(m.Role.MaxSessionSeconds)),
	}
	if tagged {
		in.Tags = m.tags()
	}
	out, err := call(ctx, func(ctx context.Context) (*iam.CreateRoleOutput, error) { return m.workflow.CreateRole(ctx, in) })
	if err != nil {
		return nil, err
	}
	if out.Role == nil {
		return nil, errors.New("AWS answered without the role")
	}
	if tagged && len(out.Role.Tags) == 0 {
		out.Role.Tags = m.tags() // AWS says so by not refusing
	}
	return out.Role, nil
}

// find returns the role of that name if this run has made it: it says so, and is
// what was ordered.
func (m *making) find(ctx context.Context) (*types.Role, error) {
	out, err := call(ctx, func(ctx context.Context) (*iam.GetRoleOutput, error) {
		return m.ingestion.GetRole(ctx, &iam.GetRoleInput{RoleName: &m.Role.Name})
	})
	if err != nil {
		code, message := said(err)
		return nil, fmt.Errorf("a role named %s exists, and whether this run made it could not be found out: iam:GetRole answered %s: %s", m.Role.Name, code, message)
	}
	role := out.Role
	if role == nil {
		return nil, fmt.Errorf("a role named %s exists, and AWS does not show it", m.Role.Name)
	}
	var run string
	for _, t := range role.Tags {
		switch deref(t.Key) {
		case serval.RunTag:
			run = deref(t.Value)
		case serval.TagKey:
			m.made.Tagged = true
		}
	}
	boundary := ""
	if role.PermissionsBoundary != nil {
		boundary = deref(role.PermissionsBoundary.PermissionsBoundaryArn)
	}
	switch {
	case run != m.RunID && !strings.HasSuffix(deref(role.Description), m.mark()):
		return nil, fmt.Errorf("a role named %s exists already, and this run has not made it. Choose another name", m.Role.Name)
	case deref(role.Path) != serval.WorkflowPath || boundary != m.Role.PermissionsBoundary || !m.trusts(deref(role.AssumeRolePolicyDocument)):
		return nil, fmt.Errorf("the role %s that this run made was changed since. It is left as it is", m.Role.Name)
	}
	return role, nil
}

// trusts reports whether a trust policy, as AWS shows it, is the one ordered.
func (m *making) trusts(shown string) bool {
	text, err := url.PathUnescape(shown)
	if err != nil {
		return false
	}
	var is, want any
	return json.Unmarshal([]byte(text), &is) == nil && json.Unmarshal([]byte(m.Trust), &want) == nil && reflect.DeepEqual(is, want)
}

// tag tags a role that was made without. That it may not is said, and no failure.
func (m *making) tag(ctx context.Context) error {
	_, err := call(ctx, func(ctx context.Context) (*iam.TagRoleOutput, error) {
		return m.workflow.TagRole(ctx, &iam.TagRoleInput{RoleName: &m.Role.Name, Tags: m.tags()})
	})
	code, _ := said(err)
	switch {
	case err == nil:
		m.made.Tagged = true
	case isDenied(code):
		m.note("iam:TagRole", err)
	default:
		return fmt.Errorf("the role %s is there, without its tags: %w", m.made.ARN, m.refused("iam:TagRole", err))
	}
	return nil
}

// note adds a finding of what AWS did not let the workflow role do.
func (m *making) note(action string, err error) (sentence string) {
	code, message := said(err)
	sentence = fmt.Sprintf("%s answered %s: %s", action, code, strings.TrimSuffix(message, "."))
	f := serval.Finding{Target: m.account.WorkflowRoleARN, Code: code, Text: sentence + ".", Causes: []serval.Cause{serval.CauseOther}}
	switch {
	case isDenied(code):
		f.Causes, f.Actions = []serval.Cause{serval.CauseActionsDenied}, []string{action}
	case code == "NoConnection" || code == "Timeout":
		f.Causes = []serval.Cause{serval.CauseEgress}
	}
	m.findings = append(m.findings, f)
	return sentence
}

// refused is the error of what AWS refused.
func (m *making) refused(action string, err error) error { return errors.New(m.note(action, err)) }
