package trust

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A maker makes policies and contexts out of few words, so that they meet.
type maker struct{ *rand.Rand }

func (m maker) of(words ...string) string { return words[m.IntN(len(words))] }

func (m maker) principal() string {
	return m.of(federated, federated, federated,
		`"Principal": "*"`, `"Principal": {"AWS": "*"}`, rootOf, `"Principal": {"AWS": ["`+worker+`", "444455556666"]}`,
		`"Principal": {"AWS": "`+workerIn+`"}`, `"Principal": {"AWS": "AROAIIAV3SAMPLEEXAMPLE"}`,
		`"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/x.okta.com"}`,
		`"Principal": {"Federated": ["arn:aws:iam::999999999999:oidc-provider/x.okta.com/oauth2/aus1", "*"]}`,
		`"Principal": {"Service": "ec2.amazonaws.com"}`,
		`"NotPrincipal": {"AWS": "`+worker+`"}`, `"NotPrincipal": {"Federated": "`+ourProvider+`"}`,
		`"NotPrincipal": {"AWS": ["`+worker+`", "`+workerIn+`", "444455556666"]}`)
}

func (m maker) action() string {
	return m.of(`"Action": "sts:AssumeRoleWithWebIdentity"`, `"Action": "sts:AssumeRole"`, `"Action": "sts:*"`, `"Action": "sts:AssumeRole*"`,
		`"Action": ["sts:AssumeRoleWithWebIdentity", "sts:TagSession"]`, `"Action": "sts:TagSession"`, `"Action": "sts:SetSourceIdentity"`,
		`"NotAction": "sts:TagSession"`, `"Action": ["sts:AssumeRole", "sts:SetSourceIdentity"]`)
}

func (m maker) condition() string {
	operator := m.of("", "", "", "ForAllValues:", "ForAnyValue:") +
		m.of("StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "StringEqualsIgnoreCase", "IpAddress", "NotIpAddress", "Bool",
			"ArnLike", "ArnNotEquals", "DateLessThan", "NumericGreaterThan", "Nonsense") + m.of("", "", "IfExists")
	if m.IntN(8) == 0 {
		operator = "Null"
	}
	key := m.of(ourPrefix+":aud", ourPrefix+":sub", ourPrefix+":amr", ourPrefix+":azp", "x.okta.com:aud", "aws:SourceIp", "aws:SourceVpce",
		"sts:RoleSessionName", "sts:ExternalId", "sts:SourceIdentity", "aws:PrincipalOrgID", "aws:PrincipalArn", "aws:PrincipalTag/a",
		"aws:RequestTag/a", "aws:TagKeys", "sts:TransitiveTagKeys", "aws:CurrentTime", "aws:EpochTime", "aws:username", "aws:nonsense")
	values := make([]string, 1+m.IntN(2))
	for i := range values {
		values[i] = fmt.Sprintf("%q", m.of("0oa1", "00u1", "0*", "*", "mfa", "true", "false", "203.0.113.0/24", "198.51.100.1", "vpce-1", "xid-1",
			"ana", "o-1", worker, "2026-06-01T00:00:00Z", "1772366400", "${"+ourPrefix+":sub}", "${aws:username}", "${aws:username, 'ana'}", "a", ""))
	}
	return fmt.Sprintf(`{%q: {%q: [%s]}}`, operator, key, strings.Join(values, ", "))
}

func (m maker) statement(effect string) string {
	s := fmt.Sprintf(`{"Effect": %q, %s, %s`, effect, m.principal(), m.action())
	if m.IntN(3) > 0 {
		s += `, "Condition": ` + m.condition()
	}
	return s + "}"
}

func (m maker) statements() []string {
	var list []string
	for range 1 + m.IntN(3) {
		list = append(list, m.statement(m.of("Allow", "Allow", "Allow", "Deny")))
	}
	return list
}

func (m maker) policy(statements []string) string {
	return m.of(policy(statements...), policy(statements...), old(statements...))
}

func (m maker) value(words ...string) Value {
	switch m.IntN(5) {
	case 0:
		return Value{}
	case 1:
		return Absent()
	}
	return Of(m.of(words...))
}

func (m maker) context() Context {
	c := Context{
		Action: m.of("sts:AssumeRoleWithWebIdentity", "sts:AssumeRoleWithWebIdentity", "sts:AssumeRole", "sts:AssumeRoleWithSAML"),
		Issuer: Of(ourIssuer), RoleARN: ourRole,
		Audience: m.value("0oa1", "0oa2"), Subject: m.value("00u1", "*"), Email: m.value("ana"), AMR: m.value("mfa", "pwd", ""),
		AZP: m.value("0oa1", "0oa9"), SessionName: m.value("ana", "00u1"), SourceIP: m.value("203.0.113.7", "198.51.100.1", "::1"),
		ExternalID: m.value("xid-1", "xid-2"), CallerARN: m.value(worker, workerIn, "arn:aws:iam::444455556666:user/ana", "ec2.amazonaws.com"),
		OrgID: m.value("o-1", "o-2"), SourceIdentity: m.value("ana"),
		PassesTags:     []Tags{{}, NoTags(), SomeTags(), TheTags(map[string]string{"a": "a"})}[m.IntN(4)],
		TransitiveTags: []Keys{{}, NoKeys(), SomeKeys(), TheKeys("a")}[m.IntN(4)],
	}
	if m.IntN(2) == 0 {
		c.Now = time.Unix(1772366400, 0)
	}
	if m.IntN(3) == 0 {
		c.AMR = Of("pwd", "mfa")
	}
	if c.SourceIP.IsAbsent() {
		c.SourceVPCE = m.value("vpce-1", "vpce-2")
	}
	if m.IntN(4) == 0 {
		c.Issuer, c.RoleARN = Value{}, ""
	}
	return c
}

// each tries random policies and contexts. A seed in a failure repeats it.
func each(t *testing.T, rounds uint64, f func(m maker, where string)) {
	t.Helper()
	for seed := range rounds {
		f(maker{rand.New(rand.NewPCG(seed, 9))}, fmt.Sprintf("seed %d", seed))
		if t.Failed() {
			return
		}
	}
}

// A Deny more can only refuse more.
func TestPolicy_Judge_denyMore(t *testing.T) {
	each(t, 10000, func(m maker, where string) {
		c, statements := m.context(), m.statements()
		p := m.policy(statements)
		before := parse(t, p).Judge(c)
		i := strings.Index(p, "[")
		more := p[:i+1] + m.statement("Deny") + ", " + p[i+1:]
		after := parse(t, more).Judge(c)
		if before.Verdict != Works && after.Verdict == Works || before.Verdict == Fails && after.Verdict != Fails {
			t.Errorf("%s: %q became %q by a Deny\n%s\n%s\n%+v", where, before.Verdict, after.Verdict, p, more, c)
		}
	})
}

// An Allow less can only refuse more, and a Deny less allows nothing that no
// Allow allows.
func TestPolicy_Judge_statementLess(t *testing.T) {
	each(t, 10000, func(m maker, where string) {
		c, statements := m.context(), m.statements()
		before := parse(t, policy(statements...)).Judge(c)
		i := m.IntN(len(statements))
		less := append(append([]string(nil), statements[:i]...), statements[i+1:]...)
		after := parse(t, policy(less...)).Judge(c)
		if strings.Contains(statements[i], `"Allow"`) {
			if before.Verdict != Works && after.Verdict == Works || before.Verdict == Fails && after.Verdict != Fails {
				t.Errorf("%s: %q became %q without an Allow\n%s\n%+v", where, before.Verdict, after.Verdict, policy(statements...), c)
			}
			return
		}
		var allows []string
		for _, s := range less {
			if strings.Contains(s, `"Allow"`) {
				allows = append(allows, s)
			}
		}
		if alone := parse(t, policy(allows...)).Judge(c); after.Verdict == Works && alone.Verdict != Works {
			t.Errorf("%s: works without a Deny, and not by the Allows alone\n%s\n%+v", where, policy(less...), c)
		}
	})
}

// Knowing less never gives an answer, and never another one.
func TestPolicy_Judge_knowLess(t *testing.T) {
	hide := []func(c *Context){
		func(c *Context) { c.Action = "" }, func(c *Context) { c.RoleARN = "" }, func(c *Context) { c.Issuer = Value{} },
		func(c *Context) { c.Audience = Value{} }, func(c *Context) { c.Subject = Value{} }, func(c *Context) { c.Email = Value{} },
		func(c *Context) { c.AMR = Value{} }, func(c *Context) { c.AZP = Value{} }, func(c *Context) { c.SessionName = Value{} },
		func(c *Context) { c.SourceIP = Value{} }, func(c *Context) { c.SourceVPCE = Value{} }, func(c *Context) { c.ExternalID = Value{} },
		func(c *Context) { c.CallerARN = Value{} }, func(c *Context) { c.OrgID = Value{} }, func(c *Context) { c.SourceIdentity = Value{} },
		func(c *Context) { c.PassesTags = Tags{} }, func(c *Context) { c.TransitiveTags = Keys{} }, func(c *Context) { c.Now = time.Time{} },
		func(c *Context) {
			if c.PassesTags.exact && c.PassesTags.sent {
				c.PassesTags = SomeTags()
			}
		},
		func(c *Context) {
			if c.TransitiveTags.list != nil {
				c.TransitiveTags = SomeKeys()
			}
		},
	}
	each(t, 5000, func(m maker, where string) {
		c := m.context()
		text := m.policy(m.statements())
		p := parse(t, text)
		before := p.Judge(c)
		for i, f := range hide {
			less := c
			f(&less)
			if after := p.Judge(less); after.Verdict != before.Verdict && after.Verdict != Unknown {
				t.Errorf("%s, hidden %d: %q (%s) became %q (%s)\n%s\n%+v", where, i, before.Verdict, before.Reason, after.Verdict, after.Reason, text, c)
			}
		}
	})
}

// A mend works, holds no new wildcard, and lets nobody else in.
func TestPolicy_Judge_mends(t *testing.T) {
	mends := 0
	each(t, 20000, func(m maker, where string) {
		c := m.context()
		text := m.policy(m.statements())
		p := parse(t, text)
		v := p.Judge(c)
		if v.Mend == nil {
			return
		}
		mends++
		mended, err := Parse(serval.Document(v.Mend.JSON))
		if err != nil {
			t.Errorf("%s: the mend is no policy: %v\n%s", where, err, v.Mend.JSON)
			return
		}
		if after := mended.Judge(c); after.Verdict != Works {
			t.Errorf("%s: mended, it is %q (%s)\n%s\n%s\n%+v", where, after.Verdict, after.Reason, text, v.Mend.JSON, c)
		}
		if strings.Count(v.Mend.JSON, "*") > strings.Count(text, "*") {
			t.Errorf("%s: the mend has a star more\n%s\n%s", where, text, v.Mend.JSON)
		}
		for _, stranger := range strangers(c) {
			// Whom the policy trusts may be allowed to pass tags too.
			untagged := stranger
			untagged.PassesTags, untagged.TransitiveTags, untagged.SourceIdentity = NoTags(), NoKeys(), Absent()
			before, bare, after := p.Judge(stranger), p.Judge(untagged), mended.Judge(stranger)
			if before.Verdict == Fails && bare.Verdict == Fails && after.Verdict == Works {
				t.Errorf("%s: the mend lets a stranger in\n%s\n%s\n%+v", where, text, v.Mend.JSON, stranger)
			}
		}
	})
	if mends < 200 {
		t.Errorf("%d mends in all, want enough to mean something", mends)
	}
}

// strangers returns attempts by others than who made c.
func strangers(c Context) []Context {
	issuer, audience, caller := c, c, c
	issuer.Issuer, issuer.ProviderARN = Of("https://evil.example.com"), Value{}
	audience.Audience, audience.AZP = Of("evil"), Absent()
	caller.CallerARN = Of("arn:aws:iam::666666666666:role/evil")
	switch c.operation() {
	case assumeRole:
		return []Context{caller}
	case withWebIdentity:
		return []Context{issuer, audience}
	}
	return nil
}
