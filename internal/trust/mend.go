package trust

import (
	"slices"
	"strings"
)

// How many statements are tried for a mend. A trust policy of 4,096 characters
// has fewer that could be meant.
const maxTries = 16

// mend returns the policy changed as little as makes the attempt work, or nil.
//
// A mend corrects what was mistyped: the provider, the audience, the name of a
// key, the External ID, a missing action. What refuses on purpose stays: an
// explicit Deny, and conditions on who, from where and when. It never puts in a
// wildcard, and whom it trusts it holds to the audience or the External ID.
func (p *Policy) mend(c Context, steps *budget) *Mend {
	now := p
	for range 4 { // the call's own action, two beside it, and the check
		q := newQuestion(c, now, steps)
		v, r := now.judge(q)
		switch {
		case v.Verdict == Works && now != p:
			return &Mend{JSON: writeJSON(now.root), Terraform: writeTerraform(now.root)}
		case v.Verdict != Fails, r.deny == yes:
			return nil
		case r.action == q.operation.action():
			now = now.mendOwn(q)
		default:
			now = now.mendBeside(q, r.action)
		}
		if now == nil {
			return nil
		}
	}
	return nil
}

// mendOwn returns the policy with the call's own action allowed, or nil.
func (p *Policy) mendOwn(q *question) *Policy {
	switch q.operation {
	case withWebIdentity:
		if q.provider == "" || q.issuer == "" || isBuiltIn(q.issuer) {
			return nil
		}
	case assumeRole:
	default:
		return nil
	}
	action := q.operation.action()

	// A statement that is meant for the caller and has the action refuses by a
	// condition: if it cannot be mended, it refuses on purpose.
	var named, nearly []*statement
	for i := range p.statements {
		s := &p.statements[i]
		if s.allow && s.except && q.concerns(s) != yes {
			return nil // left out by name
		}
		if !s.allow || s.except || q.concerns(s) != yes && !q.isOurs(s) {
			continue
		}
		switch {
		case q.covers(s, strings.ToLower(action)) != no:
			named = append(named, s)
		case s.others:
			return nil // the action is left out by name
		case assumes(s) && q.isAlone(s):
			nearly = append(nearly, s)
		}
	}
	if len(named)+len(nearly) == 0 {
		return p.with(q, q.statement())
	}
	tried := named
	if len(named) == 0 {
		tried = nearly
	}
	var best *Policy
	least := 0
	for i, s := range tried {
		if i == maxTries {
			break
		}
		if q.operation == assumeRole && s.isPublic() {
			continue // an External ID that everyone may use is no mend
		}
		e := edit{q: q, root: p.root.clone()}
		if !e.statement(s, action) {
			continue
		}
		mended, err := read(e.root)
		if err != nil {
			continue
		}
		if r := mended.rule(q, action, yes); r.granted() == yes && (best == nil || e.changes < least) {
			best, least = mended, e.changes
		}
	}
	return best
}

// assumes reports whether a statement has an action that assumes a role,
// spelled out.
func assumes(s *statement) bool {
	for _, a := range s.actions {
		if strings.HasPrefix(a, "sts:assumerole") {
			return true
		}
	}
	return false
}

// isAlone reports whether the statement trusts nobody but the caller, so that
// an action more is nobody else's.
func (q *question) isAlone(s *statement) bool {
	for i := range s.principals {
		p := &s.principals[i]
		if q.is(p) != yes && !q.isMistaken(p) || p.arn.class == account {
			return false
		}
	}
	return !s.all
}

// isOurs reports whether the statement trusts another provider on the issuer's
// host: another authorization server, or the provider of another account.
func (q *question) isOurs(s *statement) bool {
	for i := range s.principals {
		if q.isMistaken(&s.principals[i]) {
			return true
		}
	}
	return false
}

func (q *question) isMistaken(p *principal) bool {
	_, url, ok := strings.Cut(p.id, ":oidc-provider/")
	return ok && p.kind == "Federated" && q.issuer != "" && p.id != q.provider && strings.EqualFold(host(url), host(q.issuer))
}

func host(issuer string) string {
	h, _, _ := strings.Cut(issuer, "/")
	return h
}

// with returns the policy with one more statement, or nil.
func (p *Policy) with(q *question, statement *node) *Policy {
	if statement == nil {
		return nil
	}
	root := p.root.clone()
	statements := root.get("Statement")
	if statements.kind != '[' {
		statements = list(statements)
	}
	statements.items = append(statements.items, statement)
	root.put("Statement", statements)
	mended, err := read(root)
	if err != nil {
		return nil
	}
	return mended
}

// statement returns a statement for just this caller, or nil where what would
// hold it to the caller is not known.
func (q *question) statement() *node {
	s := object(member{"Effect", text("Allow")})
	conditions := func(key, value string) {
		s.put("Condition", object(member{"StringEquals", object(member{key, text(value)})}))
	}
	if q.operation == withWebIdentity {
		audience, ok := q.plain("aud")
		if !ok {
			return nil
		}
		s.put("Principal", object(member{"Federated", text(q.provider)}))
		s.put("Action", text(q.operation.action()))
		conditions(q.issuer+":aud", audience)
		return s
	}
	external := q.ExternalID.text()
	if !isPlain(external) {
		external = ""
	}
	switch {
	case q.caller.class == role, q.caller.class == user:
		s.put("Principal", object(member{"AWS", text(q.callerARN)}))
	case q.caller.class == session && external != "" && q.partition != "":
		s.put("Principal", object(member{"AWS", text("arn:" + q.partition + ":iam::" + q.account + ":root")}))
	default:
		return nil
	}
	s.put("Action", text(q.operation.action()))
	if external != "" {
		conditions("sts:ExternalId", external)
	}
	return s
}

// plain returns the one value of a claim that AWS would compare, if it can
// stand in a policy as it is.
func (q *question) plain(claim string) (string, bool) {
	f := q.lookup(newKey(q.issuer + ":" + claim))
	if f.state != yes || len(f.values) != 1 {
		return "", false
	}
	return f.values[0], isPlain(f.values[0])
}

// isPlain reports whether no operator takes the text for more than itself.
func isPlain(s string) bool { return s != "" && !strings.ContainsAny(s, "*?$") }

// An edit changes one statement in a copy of a document.
type edit struct {
	q       *question
	root    *node
	changes int
}

// statement mends a statement for an action. It reports false where that would
// take more than corrections.
func (e *edit) statement(s *statement, action string) bool {
	n := e.root.get("Statement")
	if n.kind == '[' {
		n = n.items[s.number-1]
	}
	widened := false
	if e.q.concerns(s) != yes {
		if !e.principal(s, n.get("Principal")) {
			return false
		}
		widened = true
	}
	if e.q.covers(s, strings.ToLower(action)) != yes {
		n.put("Action", n.get("Action").add(action))
		e.changes++
		widened = true
	}
	for i := range s.conditions {
		if e.q.holds(&s.conditions[i]) != yes && !e.condition(&s.conditions[i], n.get("Condition")) {
			return false
		}
	}
	if widened && e.q.operation == withWebIdentity {
		return e.audience(n)
	}
	return true
}

// principal puts our provider in the place of a mistaken one.
func (e *edit) principal(s *statement, n *node) bool {
	for i := range s.principals {
		p := &s.principals[i]
		if !e.q.isMistaken(p) {
			continue
		}
		ids := n.get("Federated")
		if ids.kind != '[' {
			ids = list(ids)
			n.put("Federated", ids.items[0])
		}
		for _, id := range ids.items {
			if id.text == p.id {
				id.text = e.q.provider
				e.changes++
				return true
			}
		}
	}
	return false
}

// condition corrects a key of another authorization server, an audience or an
// External ID.
func (e *edit) condition(c *condition, n *node) bool {
	keys := n.exactly(c.operator)
	if keys == nil {
		return false
	}
	fixed := *c
	if k := c.key; k.provider != "" && e.q.issuer != "" && !strings.EqualFold(k.provider, e.q.issuer) {
		name := e.q.issuer + k.name[len(k.provider):]
		if !strings.EqualFold(host(k.provider), host(e.q.issuer)) || keys.get(name) != nil {
			return false
		}
		for i := range keys.members {
			if keys.members[i].name == k.name {
				keys.members[i].name = name
			}
		}
		e.changes++
		fixed.key = newKey(name)
		if e.q.holds(&fixed) == yes {
			return true
		}
	}
	value, ok := "", false
	switch {
	case fixed.key.claim == "aud":
		value, ok = e.q.plain("aud")
	case fixed.key.lower == "sts:externalid":
		value = e.q.ExternalID.text()
		ok = isPlain(value)
	}
	if !ok || fixed.negated || fixed.test != testEquals && fixed.test != testEqualsFold && fixed.test != testLike {
		return false
	}
	values := keys.exactly(fixed.key.name)
	if len(fixed.values) > 1 {
		fixed.values = append(append([]string(nil), fixed.values...), value)
		values.add(value)
	} else {
		fixed.values = []string{value}
		*values = *text(value)
	}
	e.changes++
	return e.q.holds(&fixed) == yes
}

// exactly returns the member by that very name, or nil.
func (n *node) exactly(name string) *node {
	for _, m := range n.members {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// audience holds a statement to our audience, if it is not yet.
func (e *edit) audience(n *node) bool {
	key := e.q.issuer + ":aud"
	conditions := n.get("Condition")
	if conditions == nil {
		conditions = object()
		n.put("Condition", conditions)
	}
	for _, operator := range conditions.members {
		for _, m := range operator.value.members {
			values, err := m.value.words("")
			c := newCondition(operator.name, m.name, values)
			if err == nil && c.key.lower == strings.ToLower(key) && c.pins() {
				return !slices.ContainsFunc(values, func(v string) bool { return !isPlain(v) })
			}
		}
	}
	audience, ok := e.q.plain("aud")
	if !ok {
		return false
	}
	equals := conditions.exactly("StringEquals")
	if equals == nil {
		equals = object()
		conditions.members = append(conditions.members, member{"StringEquals", equals})
	}
	if equals.get(key) != nil {
		return false
	}
	equals.put(key, text(audience))
	e.changes++
	return true
}

// pins reports whether the condition holds only for requests that have the key
// with one of its values.
func (c *condition) pins() bool {
	switch c.test {
	case testEquals, testEqualsFold, testLike, testARN, testAddress:
		return !c.negated && !c.ifExists && c.set != allOf
	}
	return false
}

// mendBeside returns the policy with an action allowed that the call needs
// besides its own, to just those who may make the call, or nil.
func (p *Policy) mendBeside(q *question, action string) *Policy {
	var granting *statement
	for i := range p.statements {
		s := &p.statements[i]
		if !s.allow {
			continue
		}
		if q.concerns(s) != no && q.covers(s, strings.ToLower(action)) != no {
			return nil // it is there, and refuses by a condition
		}
		if granting == nil && q.matches(s, strings.ToLower(q.operation.action())) == yes {
			granting = s
		}
	}
	if granting == nil || granting.others || granting.except || granting.isPublic() {
		return nil // left out by name, or to be narrowed before it allows more
	}
	root := p.root.clone()
	n := root.get("Statement")
	if n.kind == '[' {
		n = n.items[granting.number-1]
	}
	n.put("Action", n.get("Action").add(action))
	mended, err := read(root)
	if err != nil {
		return nil
	}
	return mended
}

// isPublic reports whether the statement trusts everyone.
func (s *statement) isPublic() bool {
	return s.all || slices.ContainsFunc(s.principals, func(p principal) bool { return p.id == "*" })
}
