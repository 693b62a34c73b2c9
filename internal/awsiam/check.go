package awsiam

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The bounds of a check.
const (
	checkDeadline = 2 * time.Minute
	// mostExamined is how many inline policies of the ingestion role are read for
	// retired actions, and how many managed ones.
	mostExamined = 10
	// guardedFor is how long it is remembered that a role asks for its External ID.
	guardedFor = 24 * time.Hour
)

// probeRole is AssumeRole as it must fail: apart from those that should not, for
// the pace and for whoever counts refusals.
const probeRole = "sts:AssumeRole (probe)"

// Check is "Test AWS Connection": it assumes the account's ingestion role anew,
// lists one role, tries to assume the ingestion role without its External ID and
// with a wrong one, and does with the ingestion role itself what a sync does with
// every tagged role, so that each of the seven actions is tried and its own
// permissions are seen. It returns an error only where ctx ended.
func (r *Reader) Check(ctx context.Context, a serval.Account) (serval.Check, error) {
	bounded, cancel := context.WithTimeout(ctx, checkDeadline)
	defer cancel()
	c := serval.Check{Name: serval.CheckConnection, AccountID: a.ID, At: r.config.Now(), Passed: true, Text: serval.TextConnected}
	s, err := r.connect(bounded, a)
	if err != nil {
		r.Blame(bounded, &c, err)
	}
	if s != nil {
		if err := r.ajar(bounded, s); err != nil {
			r.Blame(bounded, &c, err)
		}
		c.Findings = append(c.Findings, s.examine(bounded)...)
	}
	return c, ctx.Err()
}

// connect assumes the account's ingestion role anew and asks for one role. With
// an error of the listing comes the session.
func (r *Reader) connect(ctx context.Context, a serval.Account) (*session, error) {
	s, err := r.open(ctx, a)
	if err != nil {
		return nil, err
	}
	if _, err := s.listRoles(ctx, "", 1); err != nil {
		return s, r.failure(StageList, a, err)
	}
	return s, nil
}

// Blame says in c why it does not pass: err is one of Inventory's.
func (r *Reader) Blame(ctx context.Context, c *serval.Check, err error) {
	c.Passed = false
	finding := serval.Finding{Text: err.Error(), Causes: []serval.Cause{serval.CauseOther}}
	c.Text = serval.TextNotAssumed
	f, failed := errors.AsType[*Failure](err)
	switch {
	case failed:
		c.Text = f.Text
		finding = serval.Finding{Causes: f.Causes, Text: f.Cause, Target: f.Target, Code: f.Code}
		if slices.Contains(f.Causes, serval.CauseActionsDenied) {
			return // it is among those that examine finds
		}
		if (f.Code == "AccessDenied" || f.Code == codeExternalIDOpen) && ctx.Err() == nil {
			// For the texts that mend it. That there is none is no matter.
			_, _, c.Identity, _ = r.Identity(ctx)
		}
	case serval.IsRefusal(err):
		finding.Causes = []serval.Cause{serval.CauseSettings}
	case errors.Is(err, context.DeadlineExceeded):
		finding.Text = fmt.Sprintf("AWS did not answer within %s.", checkDeadline)
		finding.Causes = []serval.Cause{serval.CauseEgress}
	}
	c.Findings = append(c.Findings, finding)
}

// Guard refuses an account whose ingestion role can be assumed without the
// External ID, or with a wrong one: whoever else the trusted account serves
// could have it assumed (the confused deputy). What was found good is
// remembered for a day and until the account is declared otherwise; what could
// not be found out is not held against anybody. The error is one of Inventory's,
// which is not worth trying after it.
func (r *Reader) Guard(ctx context.Context, a serval.Account) error {
	bounded, cancel := context.WithTimeout(ctx, checkDeadline)
	defer cancel()
	settings, err := json.Marshal([]any{a.RoleARN, a.ExternalID, a.Via, a.STS})
	if err != nil {
		return fmt.Errorf("remembering account %s: %w", a.ID, err)
	}
	r.mu.Lock()
	known := r.guarded[a.ID]
	r.mu.Unlock()
	if known.settings == string(settings) && r.config.Now().Before(known.until) {
		return nil
	}
	s, err := r.open(bounded, a)
	if err != nil {
		return err
	}
	if err := r.ajar(bounded, s); err != nil {
		if _, failed := errors.AsType[*Failure](err); failed {
			return err
		}
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guarded[a.ID] = guarded{settings: string(settings), until: r.config.Now().Add(guardedFor)}
	return nil
}

// A guarded account asks for its External ID.
type guarded struct {
	settings string // the account's, when it was tried
	until    time.Time
}

// ajar tries to assume the session's role without the External ID, and with
// another. It returns a *Failure where that works, an error where AWS does not
// say, and nil where both are refused.
func (r *Reader) ajar(ctx context.Context, s *session) error {
	arn := s.account.RoleARN
	l := &line{reader: r, gate: s.gate, creds: s.by}
	client := r.stsClient(s.account, s.by)
	seconds := int32(sessionSeconds)
	wrong := "serval-probe-" + rand.Text()
	var open []string
	for _, try := range []struct {
		how string
		id  *string
	}{{"without any External ID", nil}, {"with a wrong External ID", &wrong}} {
		// The session that must not be there is dropped.
		_, err := ask(ctx, l, probeRole, arn, func(ctx context.Context) (*sts.AssumeRoleOutput, error) {
			return client.AssumeRole(ctx, &sts.AssumeRoleInput{
				RoleArn: &arn, RoleSessionName: &r.config.SessionName, DurationSeconds: &seconds, ExternalId: try.id})
		})
		switch e, _ := errors.AsType[*callError](err); {
		case err == nil:
			open = append(open, try.how)
		case open != nil && (e == nil || e.kind != denied):
			// It is open, whatever the second try would have said.
		case e == nil || e.kind != denied:
			return fmt.Errorf("trying to assume %s %s: %w", arn, try.how, err)
		}
	}
	if open == nil {
		return nil
	}
	return r.failure(StageAssume, s.account, &callError{
		action: assumeRole, target: arn, kind: failed, code: codeExternalIDOpen,
		message: fmt.Sprintf("%s can be assumed %s. So it can be reached by whoever gets the trusted account to assume a role for them, "+
			"and the account is not read. Ask for the External ID in every statement of its trust policy that allows sts:AssumeRole.", arn, strings.Join(open, " and ")),
	})
}

// examine does with the ingestion role what a sync does with a tagged one, and
// returns which of the seven actions are denied, what could not be tried, and
// which actions its permissions have that nobody needs.
func (s *session) examine(ctx context.Context) (found []serval.Finding) {
	x := &examination{session: s, name: path.Base(s.account.RoleARN)}
	if _, err := s.listRoles(ctx, "", 1); err != nil {
		x.note(listRoles, err)
	}
	x.read(ctx)
	if x.denied != nil {
		found = append(found, serval.Finding{
			Causes: []serval.Cause{serval.CauseActionsDenied}, Target: s.account.RoleARN, Actions: x.denied, Code: "AccessDenied",
			Text: fmt.Sprintf("Denied of the seven actions that a sync needs: %s. What they would show is missing, and said to be.", strings.Join(x.denied, ", ")),
		})
	}
	if x.untried != nil {
		found = append(found, serval.Finding{
			Causes: []serval.Cause{serval.CauseOther}, Target: s.account.RoleARN,
			Text: "Whether these are allowed could not be found out: " + strings.Join(x.untried, ", ") + ".",
		})
	}
	if retired := x.retired(); retired != nil {
		found = append(found, serval.Finding{
			Causes: []serval.Cause{serval.CauseRetiredActions}, Target: s.account.RoleARN, Actions: retired,
			Text: fmt.Sprintf("Granted, and needed by nobody: %s. Older setup guides asked for them; take them away.", strings.Join(retired, ", ")),
		})
	}
	return found
}

// An examination of an ingestion role, by means of the seven actions.
type examination struct {
	*session
	name      string // of the role
	denied    []string
	untried   []string
	documents []serval.Document
}

// note takes down what came of an action. That something is not there was said
// only to one who may ask.
func (x *examination) note(action string, err error) {
	e := asCallError(err, action, x.account.RoleARN)
	switch {
	case err == nil || e.kind == gone:
	case e.action == action && e.kind == denied:
		if !slices.Contains(x.denied, action) {
			x.denied = append(x.denied, action)
		}
	default:
		x.untried = append(x.untried, fmt.Sprintf("%s (%s)", action, e.code))
	}
}

// read tries the six actions beside iam:ListRoles. Where there is nothing to
// read it asks for what is not there, or for a policy that is everywhere.
func (x *examination) read(ctx context.Context) {
	try := func(action string, call func(context.Context) error) {
		_, err := ask(ctx, &x.line, action, x.name, func(ctx context.Context) (struct{}, error) { return struct{}{}, call(ctx) })
		x.note(action, err)
	}
	try(getRole, func(ctx context.Context) error {
		_, err := x.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &x.name})
		return err
	})
	var inline []string
	try(listRolePolicies, func(ctx context.Context) error {
		out, err := x.iam.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: &x.name})
		if err == nil {
			inline = out.PolicyNames
		}
		return err
	})
	if len(inline) == 0 {
		inline = []string{"serval-probe"}
	}
	for _, name := range inline[:min(len(inline), mostExamined)] {
		try(getRolePolicy, func(ctx context.Context) error {
			out, err := x.iam.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &x.name, PolicyName: &name})
			if err == nil {
				x.documents = append(x.documents, document(deref(out.PolicyDocument)))
			}
			return err
		})
	}
	var attached []types.AttachedPolicy
	try(listAttachedRolePolicies, func(ctx context.Context) error {
		out, err := x.iam.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: &x.name})
		if err == nil {
			attached = out.AttachedPolicies
		}
		return err
	})
	everywhere := "arn:" + x.account.Partition + ":iam::aws:policy/ReadOnlyAccess"
	arns := []string{everywhere}
	for i, p := range attached[:min(len(attached), mostExamined)] {
		arns = append(arns[:i], deref(p.PolicyArn))
	}
	for _, arn := range arns {
		version := "v1" // of a policy that was never changed, or not there any more
		try(getPolicy, func(ctx context.Context) error {
			out, err := x.iam.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: &arn})
			if err == nil && out.Policy != nil && deref(out.Policy.DefaultVersionId) != "" {
				version = *out.Policy.DefaultVersionId
			}
			return err
		})
		try(getPolicyVersion, func(ctx context.Context) error {
			out, err := x.iam.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: &version})
			if err == nil && out.PolicyVersion != nil && len(attached) > 0 {
				x.documents = append(x.documents, document(deref(out.PolicyVersion.Document)))
			}
			return err
		})
	}
}

// retired returns the retired actions that the role's policies allow. They are
// read out of the policies and never tried: nothing but the seven is asked of AWS.
func (x *examination) retired() (granted []string) {
	for _, action := range serval.RetiredActions() {
		allowed, refused := false, false
		for _, d := range x.documents {
			a, r := names(d, action)
			allowed, refused = allowed || a, refused || r
		}
		if allowed && !refused {
			granted = append(granted, action)
		}
	}
	return granted
}

// names reports whether statements of a policy name an action, to allow it and
// to deny it. What they say of resources and conditions is not looked at: an
// action nobody needs is needed nowhere.
func names(d serval.Document, action string) (allow, deny bool) {
	var policy struct{ Statement oneOrMore[statement] }
	if json.Unmarshal([]byte(d), &policy) != nil {
		return false, false
	}
	for _, s := range policy.Statement {
		if !slices.ContainsFunc(s.Action, func(pattern string) bool {
			fits, err := path.Match(plain.Replace(strings.ToLower(pattern)), strings.ToLower(action))
			return err == nil && fits
		}) {
			continue
		}
		allow, deny = allow || s.Effect == "Allow", deny || s.Effect == "Deny"
	}
	return allow, deny
}

// plain lets nothing but * and ? mean something in a pattern of package path.
var plain = strings.NewReplacer(`\`, `\\`, `[`, `\[`)

// A statement is what is looked at of one.
type statement struct {
	Effect string
	Action oneOrMore[string]
}

// oneOrMore is a value or a list of them.
type oneOrMore[T any] []T

// UnmarshalJSON reads either.
func (o *oneOrMore[T]) UnmarshalJSON(text []byte) error {
	var one T
	if err := json.Unmarshal(text, &one); err == nil {
		*o = []T{one}
		return nil
	}
	return json.Unmarshal(text, (*[]T)(o))
}
