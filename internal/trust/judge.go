package trust

import (
	"fmt"
	"slices"
	"strings"
)

// The verdicts.
const (
	Works   = "works"
	Fails   = "fails"
	Unknown = "unknown"
)

// A Verdict says whether the trust policy lets an attempt through. It is about
// the trust policy, and IAM's provider where the context tells of it; NotChecked
// names what else AWS asks.
type Verdict struct {
	Verdict    string   `json:"verdict"`   // Works, Fails or Unknown
	Reason     string   `json:"reason"`    // one sentence
	Statement  string   `json:"statement"` // that decided; empty where none did
	Condition  string   `json:"condition"` // of it, that decided; empty where none did
	NotChecked []string `json:"not_checked"`
	Mend       *Mend    `json:"mend"`               // where the policy refuses and there is one; else null
	Provider   *Lack    `json:"provider,omitempty"` // where IAM's provider refuses; the verdict is Fails then
}

// A Mend is the whole policy, changed as little as makes the attempt work.
type Mend struct {
	JSON      string `json:"json"`
	Terraform string `json:"terraform"` // the argument of an aws_iam_role
}

// Judge says what AWS would make of the attempt: "works" or "fails" only where
// AWS's documentation and the context decide, else "unknown". A verdict is for
// the whole call: where tags are passed or a source identity is set, the policy
// must allow sts:TagSession and sts:SetSourceIdentity too (IAM User Guide,
// "Passing session tags in AWS STS", "Monitor and control actions taken with
// assumed roles").
func (p *Policy) Judge(c Context) Verdict {
	steps := maxSteps
	q := newQuestion(c, p, &steps)
	v, _ := p.judge(q)
	if v.Verdict == Fails {
		v.Mend = p.mend(c, &steps)
	}
	q.provided(&v)
	return v
}

// A ruling is what the policy says to one action.
type ruling struct {
	action string
	needed truth

	allow, deny truth
	allowed     *statement // the Allow that decided
	denied      *statement // the Deny that decided
}

func (r *ruling) granted() truth { return and(r.allow, not(r.deny)) }

// rule puts one action to all statements: an explicit Deny wins, and what no
// Allow matches is denied (IAM User Guide, "Policy evaluation logic").
func (p *Policy) rule(q *question, action string, needed truth) ruling {
	r := ruling{action: action, needed: needed, allow: no, deny: no}
	name := strings.ToLower(action)
	for i := range p.statements {
		s := &p.statements[i]
		if s.allow && r.allow == yes || !s.allow && r.deny == yes {
			continue
		}
		t := q.matches(s, name)
		switch {
		case s.allow && t > r.allow:
			r.allow, r.allowed = t, s
		case !s.allow && t > r.deny:
			r.deny, r.denied = t, s
		}
	}
	return r
}

// matches reports whether the statement is about this attempt.
func (q *question) matches(s *statement, action string) truth {
	t := q.covers(s, action)
	if t == no {
		return no
	}
	if t = and(t, q.concerns(s)); t == no {
		return no
	}
	for i := range s.conditions {
		if t = and(t, q.holds(&s.conditions[i])); t == no {
			return no
		}
	}
	return t
}

// covers reports whether the statement's Action or NotAction has the action, in
// lower case: actions "are not case-sensitive" (IAM User Guide, "Action").
func (q *question) covers(s *statement, action string) truth {
	t := no
	for _, pattern := range s.actions {
		if t = or(t, q.steps.glob(pattern, action)); t == yes {
			break
		}
	}
	if s.others {
		return not(t)
	}
	return t
}

// Actions that one call needs besides its own.
const (
	tagSession        = "sts:TagSession"
	setSourceIdentity = "sts:SetSourceIdentity"
)

// action returns the operation's action as AWS writes it.
func (o operation) action() string {
	switch o {
	case withWebIdentity:
		return "sts:AssumeRoleWithWebIdentity"
	case assumeRole:
		return "sts:AssumeRole"
	case withSAML:
		return "sts:AssumeRoleWithSAML"
	}
	return ""
}

// tagged reports whether sts:TagSession is needed: tags are passed, or come
// along from the caller's session.
func (q *question) tagged() truth {
	t := unknown
	if q.PassesTags.told {
		t = known(q.PassesTags.sent)
	}
	k := unknown
	if q.TransitiveTags.told {
		k = known(q.TransitiveTags.sent)
	}
	return or(t, k)
}

// judge returns the verdict, without a mend, and the ruling that decided it.
func (p *Policy) judge(q *question) (Verdict, *ruling) {
	v := Verdict{NotChecked: q.notChecked()}
	if q.operation == noOperation {
		v.Verdict = Unknown
		v.Reason = "cannot tell: the action is not given."
		if q.Action != "" {
			v.Reason = fmt.Sprintf("cannot tell: %s is not sts:AssumeRoleWithWebIdentity, sts:AssumeRole or sts:AssumeRoleWithSAML.", clip(q.Action, 60))
		}
		return v, nil
	}
	identity := unknown
	if !q.SourceIdentity.IsUnknown() {
		identity = known(!q.SourceIdentity.IsAbsent())
	}
	rulings := []ruling{
		p.rule(q, q.operation.action(), yes),
		p.rule(q, tagSession, q.tagged()),
		p.rule(q, setSourceIdentity, identity),
	}
	result := yes
	for i := range rulings {
		result = and(result, or(not(rulings[i].needed), rulings[i].granted()))
	}
	if result == yes {
		v.Verdict, v.Reason = Works, "the trust policy accepts you"
		v.Statement = rulings[0].allowed.String()
		return v, nil
	}
	i := slices.IndexFunc(rulings, func(r ruling) bool { return or(not(r.needed), r.granted()) == result })
	r := &rulings[i]
	if result == no {
		v.Verdict = Fails
		p.refuses(q, r, &v)
	} else {
		v.Verdict = Unknown
		q.cannotTell(r, &v)
	}
	return v, r
}

// notChecked names what AWS asks besides the trust policy.
func (q *question) notChecked() []string {
	switch q.operation {
	case withWebIdentity:
		return []string{providerUnseen, "resource control policies"}
	case withSAML:
		return []string{"the IAM SAML provider", "resource control policies"}
	}
	return []string{"the caller's own permissions", "service control policies", "resource control policies"}
}

// why says what an action is needed for, where it is not the call's own.
func why(action string) string {
	switch action {
	case tagSession:
		return ", which session tags need"
	case setSourceIdentity:
		return ", which a source identity needs"
	}
	return ""
}

// refuses fills in why a verdict is Fails.
func (p *Policy) refuses(q *question, r *ruling, v *Verdict) {
	if r.deny == yes {
		v.Statement = r.denied.String()
		when := ""
		if len(r.denied.conditions) > 0 {
			v.Condition = r.denied.conditions[0].String()
			when = ", where " + v.Condition
		}
		v.Reason = fmt.Sprintf("refuses you: %s denies %s%s%s.", v.Statement, r.action, why(r.action), when)
		return
	}
	s := p.nearest(q, r.action)
	if s == nil {
		v.Reason = "refuses you: no statement allows anything."
		return
	}
	v.Statement = s.String()
	switch {
	case q.concerns(s) == no && s.except:
		v.Reason = fmt.Sprintf("refuses you: %s allows all but those it names, and it names %s.", v.Statement, q.who())
	case q.concerns(s) == no:
		v.Reason = fmt.Sprintf("refuses you: %s trusts %s, and not %s.", v.Statement, s.whom(), q.who())
	case q.covers(s, strings.ToLower(r.action)) == no:
		v.Reason = fmt.Sprintf("refuses you: %s does not allow %s%s.", v.Statement, r.action, why(r.action))
	default:
		c := q.failing(s, no)
		if c == nil { // the budget ended between the verdict and its explanation
			v.Reason = fmt.Sprintf("refuses you: a condition of %s does not hold.", v.Statement)
			return
		}
		v.Condition = c.String()
		v.Reason = fmt.Sprintf("refuses you: %s asks for %s, and %s.", v.Statement, v.Condition, q.instead(c))
	}
}

// nearest returns the Allow statement that comes nearest to matching: by
// principal, then action, then conditions.
func (p *Policy) nearest(q *question, action string) *statement {
	var best *statement
	top := -1
	for i := range p.statements {
		s := &p.statements[i]
		if !s.allow {
			continue
		}
		score := 0
		if q.concerns(s) != no {
			score += 2
		} else if q.isOurs(s) {
			score++
		}
		score *= 2
		if q.covers(s, strings.ToLower(action)) != no {
			score++
			score *= 1000
			score -= min(999, q.failures(s))
		} else {
			score *= 1000
		}
		if score > top {
			best, top = s, score
		}
	}
	return best
}

// failures counts the conditions that do not hold.
func (q *question) failures(s *statement) int {
	n := 0
	for i := range s.conditions {
		if q.holds(&s.conditions[i]) == no {
			n++
		}
	}
	return n
}

// failing returns the first condition of that truth, or nil.
func (q *question) failing(s *statement, t truth) *condition {
	for i := range s.conditions {
		if q.holds(&s.conditions[i]) == t {
			return &s.conditions[i]
		}
	}
	return nil
}

// whom names a statement's principals for a sentence.
func (s *statement) whom() string {
	if len(s.principals) == 0 {
		return "nobody"
	}
	p := &s.principals[0]
	name := quote(clip(p.id, 200))
	if p.arn.class == uniqueID {
		name += ", a principal that was deleted"
	}
	if n := len(s.principals) - 1; n > 0 {
		name += fmt.Sprintf(" and %d more", n)
	}
	return name
}

// who names the caller for a sentence.
func (q *question) who() string {
	switch {
	case q.operation == assumeRole && q.callerARN != "":
		return quote(clip(q.callerARN, 200))
	case q.operation == assumeRole && q.account != "":
		return "account " + clip(q.account, 20)
	case q.operation != assumeRole && q.provider != "":
		return quote(clip(q.provider, 200))
	case q.issuer != "":
		return "the provider " + quote(clip(q.issuer, 200))
	}
	return "the caller"
}

// instead says what the request has where a condition does not hold.
func (q *question) instead(c *condition) string {
	f := q.lookup(c.key)
	switch {
	case f.state == no && c.key.provider != "" && q.issuer != "" && !strings.EqualFold(c.key.provider, q.issuer):
		return fmt.Sprintf("your token's keys begin with %s", clip(q.issuer, 200))
	case f.state == no && q.operation != assumeRole && strings.HasPrefix(c.key.lower, "aws:principal"),
		f.state == no && q.operation != assumeRole && strings.HasPrefix(c.key.lower, "aws:multifactor"):
		return "AWS sets no such key for federated callers"
	case f.state == no:
		return "the request has no such key"
	case f.kind == kindTime || f.kind == kindEpoch:
		return "it is " + q.Now.UTC().Format("2006-01-02T15:04:05Z")
	case len(f.values) == 1:
		return "it is " + quote(clip(f.values[0], 200))
	}
	return "the request's values do not fit"
}

// cannotTell fills in why a verdict is Unknown.
func (q *question) cannotTell(r *ruling, v *Verdict) {
	s := r.denied
	if r.deny == no || r.deny == unknown && r.allow == unknown && r.allowed != nil {
		s = r.allowed
	}
	if r.granted() == no { // and whether it is needed is not known
		v.Reason = fmt.Sprintf("cannot tell: the policy does not allow %s%s, and whether the call has any is not known.", r.action, why(r.action))
		return
	}
	v.Statement = s.String()
	effect := "allow"
	if !s.allow {
		effect = "deny"
	}
	c := q.failing(s, unknown)
	switch {
	case q.concerns(s) == unknown && q.who() == "the caller":
		v.Reason = fmt.Sprintf("cannot tell: %s may %s this, and who calls is not known.", v.Statement, effect)
	case q.concerns(s) == unknown:
		v.Reason = fmt.Sprintf("cannot tell: whether the principals of %s take in %s is not known.", v.Statement, q.who())
	case c == nil:
		v.Reason = fmt.Sprintf("cannot tell: %s is too much to work through.", v.Statement)
	default:
		v.Condition = c.String()
		v.Reason = fmt.Sprintf("cannot tell: %s may %s this, and of %s %s.", v.Statement, effect, v.Condition, q.open(c))
	}
}

// open says why a condition is unknown.
func (q *question) open(c *condition) string {
	f := q.lookup(c.key)
	switch {
	case c.test == testUnknown:
		return "the operator is not known"
	case !f.known:
		return "AWS documents no such key"
	case c.key.claim == "aud" && q.AZP.IsUnknown() && !q.Audience.IsUnknown():
		return "the token's azp is not known, which AWS may compare in its place"
	case c.key.claim == "aud" && f.state == unknown && !q.Audience.IsUnknown():
		return "AWS may compare the token's azp in place of its audience"
	case f.state == unknown, f.state == yes && f.values == nil:
		return "the request's value is not known"
	}
	return "AWS documents no answer for this value"
}
