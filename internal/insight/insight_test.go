package insight

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The embedded reference is small, says how old it is, and has its licence.
func TestReference(t *testing.T) {
	if len(packed) >= 1<<20 {
		t.Errorf("the embedded data has %d bytes, want less than 1 MB", len(packed))
	}
	r := AWS()
	if _, err := time.Parse(time.DateOnly, r.Date); err != nil {
		t.Errorf("the reference's date: %s", err)
	}
	if len(r.services) < 400 || len(r.actions) < 20_000 {
		t.Errorf("the reference has %d services and %d actions", len(r.services), len(r.actions))
	}
	for _, bad := range []string{"", "a b c d\n RGet", "a b c d\n\tarn", "a b c d\ns3\tS3\n XGet", "a b c d\ns3\tS3\n RGet 0", "a b c d\ns3\tS3\n\n", "a b c d\ns3\tS3\n RGet\n", "a b c d\ns3\tS3\n RGet\n RAll"} {
		if _, err := parseReference(bad); err == nil {
			t.Errorf("%q is taken for a reference", bad)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		x, y            string
		covers, overlap bool
	}{
		{"*", "", true, true}, {"*", "*", true, true}, {"a", "a", true, true}, {"a", "b", false, false},
		{"a*", "ab*", true, true}, {"ab*", "a*", false, true}, {"a?", "a*", false, true}, {"a*", "a?", true, true},
		{"a*c", "abc", true, true}, {"a*c", "ab", false, false}, {"*a*", "*b*", false, true}, {"a*b", "b*a", false, false},
		{"a?c", "a?c", true, true}, {"?", "", false, false}, {"a*b*c", "a*c", false, true}, {"*x", "x*", false, true},
		{"aa*", "a", false, false}, {"*ab", "*b", false, true}, {"a**", "a", true, true},
	} {
		if got := covers(c.x, c.y); got != c.covers {
			t.Errorf("covers(%q, %q) = %v, want %v", c.x, c.y, got, c.covers)
		}
		for _, pair := range [][2]string{{c.x, c.y}, {c.y, c.x}} {
			steps := maxSteps
			if got := steps.overlap(pair[0], pair[1]); got != c.overlap {
				t.Errorf("overlap(%q, %q) = %v, want %v", pair[0], pair[1], got, c.overlap)
			}
		}
	}
	for _, c := range []struct {
		resource, kind string
		want           bool
	}{
		{"arn:aws:s3:::b", "arn:*:s3:::+", true}, {"arn:aws:s3:::b/k", "arn:*:s3:::+", false}, {"arn:aws:s3:::b/k", "arn:*:s3:::*/*", true},
		{"arn:aws:s3:::*", "arn:*:s3:::*/*", true}, {"*", "arn:*:s3:::+", true}, {"arn:aws:sqs:*:*:*", "arn:*:s3:::+", false},
		{"arn:*:s3:::b", "arn:*:s3:::+", true}, {"arn:aws:s3:::*/*", "arn:*:s3:::+", false}, {"arn:aws:*:*:*:b", "arn:*:sqs:*:*:*", true},
		{"arn:aws:iam::111122223333:role/a/b", "arn:*:iam::*:role/*", true}, {"arn:aws:iam::111122223333:user/a", "arn:*:iam::*:role/*", false},
	} {
		steps := maxSteps
		x, k := newResource(c.resource, c.resource), newKind(c.kind, 0, 0)
		if got := steps.onType(&x, &k); got != c.want {
			t.Errorf("%s is of type %s: %v, want %v", c.resource, c.kind, got, c.want)
		}
	}
}

// What could not be read makes the card say "at least", and names it.
func TestIncomplete(t *testing.T) {
	denied := roleWith(allow("sqs:SendMessage", "*"))
	denied.ManagedPolicies = serval.ManagedPolicies{Status: serval.ListDenied, Action: "iam:GetPolicyVersion",
		Policies: []serval.ManagedPolicy{{ARN: "arn:aws:iam::111122223333:policy/app", Name: "app"}}}
	for _, c := range []struct {
		name string
		role serval.Role
		want []string
	}{
		{"a list that was denied, and a document with it", denied, []string{
			"Not all attached policies are known: iam:GetPolicyVersion denied.", "The policy app is not counted: it could not be read."}},
		{"no JSON", roleWith(allow("sqs:SendMessage", "*"), `{"Statement":`), []string{"The policy b is not counted: it is no policy document"}},
		{"a name twice", roleWith(allow("sqs:SendMessage", "*"), `{"Statement":[],"Statement":[]}`), []string{"The policy b is not counted: it is no policy document"}},
		{"a name twice in another case", roleWith(allow("sqs:SendMessage", "*"), `{"Statement":[{"Effect":"Allow","effect":"Deny","Action":"*","Resource":"*"}]}`), []string{"The policy b is not counted: it is no policy document"}},
		{"an element that IAM does not know", roleWith(allow("sqs:SendMessage", "*"), one(`"Effect":"Allow","Action":"*","Resource":"*","Unless":"x"`)), []string{"The policy b is not counted: it is no policy document"}},
		{"an effect in another case", roleWith(allow("sqs:SendMessage", "*"), one(`"Effect":"allow","Action":"*","Resource":"*"`)), []string{`The policy b is not counted: statement 1 has the effect "allow".`}},
		{"no resource", roleWith(allow("sqs:SendMessage", "*"), one(`"Effect":"Allow","Action":"*"`)), []string{"The policy b is not counted: statement 1 has not one of Resource and NotResource."}},
		{"action and not", roleWith(allow("sqs:SendMessage", "*"), one(`"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"`)), []string{"The policy b is not counted: statement 1 has not one of Action and NotAction."}},
		{"a version of its own", roleWith(allow("sqs:SendMessage", "*"), `{"Version":"2020-01-01","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`), []string{`The policy b is not counted: it has the version "2020-01-01".`}},
		{"nothing in it", roleWith(allow("sqs:SendMessage", "*"), `{"Version":"2012-10-17"}`), []string{"The policy b is not counted: it has no Statement."}},
		{"too long", roleWith(allow("sqs:SendMessage", "*"), allow("s3:GetObject", "arn:aws:s3:::"+strings.Repeat("x", maxDocument))), []string{"The policy b is not counted: it has 2"}},
		{"what follows", roleWith(allow("sqs:SendMessage", "*"), allow("sqs:*", "*")+"x"), []string{"The policy b is not counted: it is no policy document"}},
	} {
		p := AWS().Look(c.role)
		card := p.Card()
		if len(card.AtLeast) != len(c.want) {
			t.Errorf("%s: at least because of %q, want %q", c.name, card.AtLeast, c.want)
			continue
		}
		for i, want := range c.want {
			if !strings.HasPrefix(card.AtLeast[i], want) {
				t.Errorf("%s: at least because of %q, want %q", c.name, card.AtLeast[i], want)
			}
		}
		if want := "It can at least change SQS."; card.Summary != want {
			t.Errorf("%s: %q, want %q", c.name, card.Summary, want)
		}
		if !p.Index().AtLeast() {
			t.Errorf("%s: the index %q does not say at least", c.name, p.Index())
		}
	}
	unknown := roleWith()
	unknown.InlinePolicies = serval.InlinePolicies{Status: serval.ListThrottled, Action: "iam:ListRolePolicies"}
	if got, want := AWS().Look(unknown).Card().Summary, "What it can do is not known: its policies could not all be looked at."; got != want {
		t.Errorf("a role of which nothing is known: %q, want %q", got, want)
	}
}

// A permissions boundary is counted where its document is known, and named where
// it is not.
func TestBoundary(t *testing.T) {
	role := roleWith(allow("*", "*"))
	role.PermissionsBoundary = new(edge)
	for why, policy := range map[string]*serval.BoundaryPolicy{
		"its document was not read":                                  nil,
		"its document is not known: iam:GetPolicy denied":            {Status: serval.ListDenied, Action: "iam:GetPolicy"},
		"its document is not counted: it is no policy document: ":    {Status: serval.ListRead, Version: "v1", Document: "{}x"},
		"its document is not counted: it could not be read":          {Status: serval.ListRead, Version: "v1"},
		"its document is not known: iam:GetPolicyVersion throttled.": {Status: serval.ListThrottled, Action: "iam:GetPolicyVersion", Document: serval.Document(allow("s3:*", "*"))},
	} {
		unknown := role
		unknown.BoundaryPolicy = policy
		card := AWS().Look(unknown).Card()
		if !card.Is(Administrator) || !strings.HasPrefix(card.AtMost, "A permissions boundary, edge, limits it further; "+why) || !strings.HasSuffix(card.Summary, ", at most: a permissions boundary limits it further.") {
			t.Errorf("a boundary that is not known, want %q: %q, %q", why, card.Summary, card.AtMost)
		}
		if !slices.Contains(card.Facts, card.AtMost) {
			t.Errorf("the facts do not have the boundary: %q", card.Facts)
		}
		if x := AWS().Look(unknown).Index(); !x.AtMost() || !x.Is(Administrator) {
			t.Errorf("the index %q does not say at most an administrator", x)
		}
	}
	p := AWS().Look(within(role, `{"Statement":[{"Effect":"Allow","Action":["s3:*","sqs:*"],"Resource":"*"},{"Effect":"Deny","Action":"sqs:SendMessage","Resource":"*"}]}`))
	card := p.Card()
	if card.Is(Administrator) || len(card.Services) != 2 || card.AtMost != "" || p.Index().AtMost() {
		t.Errorf("within a boundary of two services it has %d and the marks %v, at most %q", len(card.Services), card.Marks, card.AtMost)
	}
	if want := regexp.MustCompile(`^Its permissions boundary, edge, takes [0-9]{5} actions back\.$`); !slices.ContainsFunc(card.Facts, want.MatchString) {
		t.Errorf("the facts do not say what the boundary takes: %q", card.Facts)
	}
	if i, _ := AWS().find("sqs:SendMessage"); p.can(i) {
		t.Error("what the boundary denies is allowed")
	}
	if got, want := card.Services[1].Levels[1].Everywhere, card.Services[1].Levels[1].Of-1; card.Services[1].Prefix != "sqs" || got != want {
		t.Errorf("of %s %d writes are everywhere, want %d", card.Services[1].Prefix, got, want)
	}
}

// What is allowed is what both allow, on what both allow it.
func TestWithinABoundary(t *testing.T) {
	const a, b = "arn:aws:s3:::a/*", "arn:aws:s3:::b/*"
	for _, c := range []struct {
		name, own, limit string
		on               []string // of s3:GetObject; nil: it is not allowed
		everywhere       bool
		conditional      bool
	}{
		{"both everywhere", allow("s3:*", "*"), allow("*", "*"), []string{"*"}, true, false},
		{"its own is named", allow("s3:GetObject", a), allow("*", "*"), []string{a}, false, false},
		{"the boundary's is named", allow("s3:GetObject", "*"), allow("s3:*", a), []string{a}, false, false},
		{"both named, the same", allow("s3:GetObject", a), allow("s3:*", a), []string{a}, false, false},
		{"both named, one in the other", allow("s3:GetObject", a), allow("s3:*", "arn:aws:s3:::*"), []string{a}, false, false},
		{"both named, others", allow("s3:GetObject", a), allow("s3:*", b), nil, false, false},
		{"another action", allow("s3:GetObject", "*"), allow("s3:PutObject", "*"), nil, false, false},
		{"nothing in the boundary", allow("s3:GetObject", "*"), `{"Statement":[]}`, nil, false, false},
		{"nothing but in the boundary", allow("sqs:SendMessage", "*"), allow("s3:*", "*"), nil, false, false},
		{"denied by the boundary", allow("s3:GetObject", "*"), `{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"s3:Get*","Resource":"*"}]}`, nil, false, false},
		{"allowed but by the boundary's conditions", allow("s3:GetObject", "*"), allow("s3:*", "*", `"Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}`), []string{"*"}, false, true},
		{"by its own conditions", allow("s3:GetObject", "*", `"Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}`), allow("s3:*", "*"), []string{"*"}, false, true},
		{"everything but in the boundary", allow("s3:GetObject", a), one(`"Effect":"Allow","NotAction":"iam:*","Resource":"*"`), []string{a}, false, false},
	} {
		p := AWS().Look(within(roleWith(c.own), serval.Document(c.limit)))
		card := p.Card()
		marks := card.has(Data)
		i, _ := AWS().find("s3:GetObject")
		if can := p.can(i); can != (c.on != nil) || can != (len(marks) == 1) || can != p.Index().Is(Data) {
			t.Errorf("%s: it can: %v, its marks are %+v, its index is %q", c.name, can, marks, p.Index())
			continue
		}
		if c.on == nil {
			continue
		}
		if m := marks[0]; !slices.Equal(m.Resources, c.on) || m.Everywhere != c.everywhere || m.Conditional != c.conditional {
			t.Errorf("%s: it can on %q, everywhere %v, under conditions %v", c.name, m.Resources, m.Everywhere, m.Conditional)
		}
	}
}

// That somebody could not read a boundary any more, or reads it now, changes
// nothing of what a role can do; that it has none any more does.
func TestChangesOfABoundary(t *testing.T) {
	free := roleWith(allow("*", "*"))
	tight := within(free, serval.Document(allow("s3:GetObject", "*")))
	wide := within(free, serval.Document(allow("s3:GetObject s3:PutObject", "*")))
	wide.BoundaryPolicy.Version = "v2"
	unread := tight
	unread.BoundaryPolicy = &serval.BoundaryPolicy{Status: serval.ListDenied, Action: "iam:GetPolicyVersion"}
	old := tight
	old.BoundaryPolicy = nil
	elsewhere := tight
	elsewhere.PermissionsBoundary = new(edge + "2")
	for _, c := range []struct {
		name          string
		before, after serval.Role
		want          []string
		escalated     bool
		atLeast       int
	}{
		{"it cannot be read any more", tight, unread, []string{"The document of the permissions boundary was known and is not known."}, false, 1},
		{"it is read now", old, tight, []string{"The document of the permissions boundary was not known and is known."}, false, 1},
		{"nobody ever read it", old, unread, nil, false, 2},
		{"it allows more", tight, wide, []string{"It gains 1 action: S3 (1 write).", "The permissions boundary edge was changed (from v1 to v2)."}, false, 0},
		{"another that is the same", tight, elsewhere, []string{"The permissions boundary was " + edge + " and is " + edge + "2.", "The permissions boundary edge was removed (v1).", "The permissions boundary edge2 was added (v1)."}, false, 0},
		{"it is gone", tight, free, []string{"It can now do anything in the account (a, statement 1).", "It can now get credentials"}, true, 0},
		{"it is gone, and nobody knew it", old, free, []string{"The permissions boundary was " + edge + " and is none."}, false, 1},
	} {
		got := AWS().Compare(c.before, c.after)
		if got.Escalated != c.escalated || len(got.AtLeast) != c.atLeast || len(got.Sentences) < len(c.want) || !c.escalated && len(got.Sentences) != len(c.want) {
			t.Errorf("%s: escalated %v, at least because of %q, it says %q; want %q", c.name, got.Escalated, got.AtLeast, got.Sentences, c.want)
			continue
		}
		for i, want := range c.want {
			if !strings.HasPrefix(got.Sentences[i], want) {
				t.Errorf("%s: sentence %d is %q, want %q", c.name, i+1, got.Sentences[i], want)
			}
		}
	}
}

func TestIndex(t *testing.T) {
	r := AWS()
	can := func(x Index, ability string) bool {
		a, err := r.ParseAbility(ability)
		if err != nil {
			t.Fatal(err)
		}
		return r.Has(x, a)
	}
	admin := r.Look(roleWith(allow("*", "*"))).Index()
	power := r.Look(roleWith(one(`"Effect":"Allow","NotAction":["iam:*","s3:Put*","s3:Delete*"],"Resource":"*"`))).Index()
	reader := r.Look(roleWith(allow("s3:Get* dynamodb:GetItem", "*"))).Index()
	for _, c := range []struct {
		x       Index
		ability string
		want    bool
	}{
		{admin, "s3:write", true}, {admin, " S3:Write ", true}, {admin, "administrator", true}, {admin, "privilege_escalation", true}, {admin, "iam:permissions", true},
		{power, "s3:write", true}, {power, "iam:read", false}, {power, "administrator", false}, {power, "privilege_escalation", true}, {power, "ec2:write", true}, {power, "a2c:list", false},
		{reader, "s3:write", false}, {reader, "s3:read", true}, {reader, "dynamodb:read", true}, {reader, "data_access", true}, {reader, "privilege_escalation", false}, {reader, "sqs:read", false},
		{"", "s3:read", false}, {"", "administrator", false}, {"0:a *LRWTP", "administrator", false},
	} {
		if got := can(c.x, c.ability); got != c.want {
			t.Errorf("%.60q has %s: %v, want %v", c.x, c.ability, got, c.want)
		}
	}
	for _, bad := range []string{"", "s3", "s3:", ":write", "s3:delete", "nothere:write", "admin", "s3:write:x"} {
		if _, err := r.ParseAbility(bad); !serval.IsRefusal(err, serval.Invalid) {
			t.Errorf("the ability %q: %v, want a refusal", bad, err)
		}
	}
	if len(admin) > 40 || len(power) > 100 {
		t.Errorf("the indexes have %d and %d bytes: %.100q, %.100q", len(admin), len(power), admin, power)
	}
	if Index("").IsKnown() || !reader.IsKnown() || !admin.AdministratorGrade() || !power.AdministratorGrade() || reader.AdministratorGrade() {
		t.Error("an index does not say whether it is known, or of an administrator's grade")
	}
}

// Work is bounded, whatever a role's documents are, and what is cut short counts
// as possible.
func TestHostileDocuments(t *testing.T) {
	var stars, resources []string
	for i := range 2000 {
		stars = append(stars, fmt.Sprintf(`"*a*b*%d*c*:*d*e*f*g*"`, i))
		resources = append(resources, fmt.Sprintf(`"arn:*a*b*:*c*d*:*:*:*e*f*g*%d*h*i*j*"`, i))
	}
	bad := `{"Statement":[{"Effect":"Allow","Action":"*","Resource":[` + strings.Join(resources, ",") + `]},{"Effect":"Deny","Action":[` + strings.Join(stars, ",") + `],"NotResource":[` + strings.Join(resources, ",") + `]}]}`
	role := roleWith()
	for i := range 20 {
		role.InlinePolicies.Policies = append(role.InlinePolicies.Policies, serval.InlinePolicy{Name: fmt.Sprint(i), Document: serval.Document(bad)})
	}
	p := AWS().Look(role)
	if card := p.Card(); len(card.Services) < 100 {
		t.Errorf("what was cut short has %d services", len(card.Services))
	}
	if p.steps >= 0 || p.steps < -maxSteps/8 {
		t.Errorf("%d steps are left, want none, and hardly more taken", p.steps)
	}
}

// However many patterns of actions a document has, they are held against so many
// actions, and what was not counts as what makes more possible: nobody hides what
// a role can do behind them.
func TestManyPatterns(t *testing.T) {
	r := AWS()
	many := func(n int, last ...string) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("*:zz%d*", i))
		}
		return strings.Join(append(list, last...), " ")
	}
	few, lots := 5, maxHeld/len(r.actions)+1
	deny := func(actions string) string {
		return strings.Replace(allow(actions, "*"), `"Allow"`, `"Deny"`, 1)
	}
	not := func(doc string) string { return strings.Replace(doc, `"Action"`, `"NotAction"`, 1) }
	for _, c := range []struct {
		name  string
		docs  []string
		admin bool
	}{
		{"few", []string{allow(many(few), "*")}, false},
		{"lots", []string{allow(many(lots), "*")}, true},
		{"lots of one service", []string{allow(many(lots-1)+strings.Repeat(" sqs:z*", 9000), "*")}, false},
		{"few taken back", []string{allow("iam:*", "*"), deny(many(few, "iam:*"))}, false},
		{"lots taken back", []string{allow("iam:*", "*"), deny(many(lots, "iam:*"))}, true},
		{"all but few", []string{not(allow(many(few, "iam:*", "*:*"), "*"))}, false},
		{"all but lots", []string{not(allow(many(lots, "iam:*", "*:*"), "*"))}, true},
		{"all but few taken back", []string{allow("iam:*", "*"), not(deny(many(few)))}, false},
		{"all but lots taken back", []string{allow("iam:*", "*"), not(deny(many(lots)))}, true},
	} {
		p := r.Look(roleWith(c.docs...))
		if card := p.Card(); (card.Is(Administrator) || card.Is(Escalation)) != c.admin {
			t.Errorf("%s: %q", c.name, card.Summary)
		}
	}
	left, s := maxHeld, statement{allow: true}
	for i := range 10_000 {
		s.actions = append(s.actions, fmt.Sprintf("*:yy%d*", i))
	}
	before := len(r.patterns)
	r.settle(&s, &left)
	if n := len(r.patterns) - before; n > lots {
		t.Errorf("%d patterns were held against all actions, want at most %d", n, lots)
	}
}

// What is remembered is bounded by what it takes, not by what it was made of.
func TestWhatIsRemembered(t *testing.T) {
	r := AWS()
	wide := strings.TrimSuffix(strings.Repeat(`{"Effect":"Allow","Action":["*","s3:*","sqs:*","sns:*","ec2:*"],"Resource":"*"},`, 60), ",")
	for i := range 200 {
		if _, err := r.read(fmt.Sprint(i), serval.Document(`{"Statement":[`+wide+`]}`)); err != nil {
			t.Fatal(err)
		}
		r.match("zz:" + strings.Repeat("*a", 50_000) + fmt.Sprint(i))
	}
	words, text := 0, 0
	for _, statements := range r.readings {
		for _, s := range statements {
			for _, m := range s.matched {
				words += 8 * len(m.words)
			}
		}
	}
	for pattern, s := range r.patterns {
		text += len(pattern) + 8*len(s.words)
	}
	if words > maxRead || text > maxPatterns {
		t.Errorf("%d bytes of documents and %d of patterns are remembered, want at most %d and %d", words, text, maxRead, maxPatterns)
	}
}

func TestChanges(t *testing.T) {
	state := func(docs ...string) serval.Role {
		r := roleWith(docs...)
		r.TrustPolicy = `{"Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"sts:AssumeRole"}]}`
		r.Tags = map[string]string{"serval": "", "team": "payments"}
		r.MaxSessionSeconds = 3600
		return r
	}
	with := func(s serval.Role, f func(*serval.Role)) serval.Role {
		s.Tags = map[string]string{"serval": "", "team": "payments"}
		f(&s)
		return s
	}
	base := state(allow("sqs:SendMessage sqs:ReceiveMessage", "arn:aws:sqs:*:*:orders"))
	for _, c := range []struct {
		name          string
		before, after serval.Role
		want          []string // sentences
		escalated     bool
	}{
		{"nothing", base, base, nil, false},
		{"another order, another form", base,
			state(`{"Statement":{"Sid":"New","Resource":["arn:aws:sqs:*:*:orders"],"Action":["sqs:receivemessage","SQS:SendMessage","sqs:SendMessage"],"Effect":"Allow"},"Version":"2012-10-17"}`), nil, false},
		{"an action", base, state(allow("sqs:SendMessage sqs:ReceiveMessage sqs:PurgeQueue", "arn:aws:sqs:*:*:orders")),
			[]string{"It gains 1 action: SQS (1 write).", "The inline policy a was changed."}, false},
		{"an action less", base, state(allow("sqs:SendMessage", "arn:aws:sqs:*:*:orders")),
			[]string{"The inline policy a was changed.", "It can no longer read data where it could before.", "It loses 1 action: SQS (1 read)."}, false},
		{"everywhere now", base, state(allow("sqs:SendMessage sqs:ReceiveMessage", "*")),
			[]string{"It can now read data where it could not before.", "It gains 2 actions, 2 of which it has elsewhere too: SQS (1 read, 1 write).", "The inline policy a was changed."}, false},
		{"an administrator", base, state(allow("*", "*")),
			[]string{"It can now do anything in the account (a, statement 1).", "It can now get credentials where it could not before.", "It can now change who may use resources where it could not before.",
				"It can now read data where it could not before.", "It gains 22091 actions, 2 of which it has elsewhere too: EC2 ("}, true},
		{"more rights", base, state(allow("sqs:SendMessage sqs:ReceiveMessage", "arn:aws:sqs:*:*:orders"), allow("iam:PutRolePolicy", "*")),
			[]string{"It can now gain more rights by 1 way: write itself an inline policy, by iam:PutRolePolicy (b, statement 1).", "It gains 1 action: IAM (1 permissions).", "The inline policy b was added."}, true},
		{"still an administrator", state(allow("*", "*")), state(allow("iam:*", "*")), nil, false},
		{"trust", base, with(base, func(s *serval.Role) {
			s.TrustPolicy = `{"Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`
		}), []string{`The trust policy loses {"Action":"sts:AssumeRole","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"}}`, `The trust policy gains {"Action":"sts:AssumeRole","Effect":"Allow","Principal":{"AWS":"*"}}`}, false},
		{"what is told of it", base, with(base, func(s *serval.Role) {
			s.Tags["team"], s.MaxSessionSeconds, s.PermissionsBoundary, s.Description = "core", 7200, new(edge), "For deploys."
			s.Tags["cost"] = ""
		}), []string{"The permissions boundary was none and is arn:aws:iam::111122223333:policy/edge.", "The maximum session was 3600 s and is 7200 s.", "The tag cost was (none) and is none.",
			"The tag team was payments and is core.", "The description was none and is For deploys.."}, false},
	} {
		got := AWS().Compare(c.before, c.after)
		if c.name != "still an administrator" {
			if len(c.want) > len(got.Sentences) || (len(c.want) < len(got.Sentences) && c.name != "an administrator") {
				t.Errorf("%s: it says %q, want %q", c.name, got.Sentences, c.want)
				continue
			}
			for i, want := range c.want {
				if !strings.HasPrefix(got.Sentences[i], want) {
					t.Errorf("%s: sentence %d: %q, want %q", c.name, i+1, got.Sentences[i], want)
				}
			}
		}
		if got.Escalated != c.escalated {
			t.Errorf("%s: escalated: %v, want %v", c.name, got.Escalated, c.escalated)
		}
		if got.IsEmpty() != (len(got.Sentences) == 0) {
			t.Errorf("%s: empty: %v, and it says %q", c.name, got.IsEmpty(), got.Sentences)
		}
		// What one way gains the other way loses.
		back := AWS().Compare(c.after, c.before)
		if diff := cmp.Diff(got.Gained, back.Lost); diff != "" {
			t.Errorf("%s: gained, and lost the other way:\n%s", c.name, diff)
		}
	}
}

// A role of which less is known now than before has not lost it: the change says
// what could not be looked at.
func TestChangeOfTheUnknown(t *testing.T) {
	before, after := roleWith(allow("sqs:*", "*")), roleWith(allow("sqs:*", "*"))
	after.InlinePolicies = serval.InlinePolicies{Status: serval.ListDenied, Action: "iam:GetRolePolicy", Policies: []serval.InlinePolicy{{Name: "a"}}}
	c := AWS().Compare(before, after)
	if len(c.AtLeast) != 2 || !strings.HasPrefix(c.AtLeast[0], "Now: ") {
		t.Errorf("at least because of %q", c.AtLeast)
	}
}

func FuzzLook(f *testing.F) {
	for _, d := range handCheckedDocuments {
		for _, doc := range d.docs {
			f.Add(doc, doc)
		}
	}
	f.Add(`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringLike":{"iam:PassedToService":["a",1,true]}}}}`, `[]`)
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := roleWith(a), within(roleWith(b), serval.Document(a))
		for _, role := range []serval.Role{x, y, within(roleWith(a), serval.Document(b))} {
			p := AWS().Look(role)
			card, index := p.Card(), p.Index()
			for i := range p.some {
				if p.broad[i]&^p.some[i] != 0 {
					t.Fatal("something is allowed everywhere and not somewhere")
				}
			}
			for _, k := range Kinds {
				if card.Is(k) != index.Is(k) {
					t.Errorf("the card has the mark %s: %v, the index %q: %v", k, card.Is(k), index, index.Is(k))
				}
			}
			for _, s := range card.Services {
				if got, want := index.levels(AWS(), s.Prefix), lettersOf(card, s.Prefix); got != want {
					t.Errorf("of %s the index has %q, the card %q", s.Prefix, got, want)
				}
			}
			if card.Summary == "" || len(card.Facts) > maxFacts {
				t.Errorf("the card says %q and %d facts", card.Summary, len(card.Facts))
			}
		}
		if c := AWS().Compare(x, x); !c.IsEmpty() {
			t.Errorf("a role differs from itself: %q", c.Sentences)
		}
		AWS().Compare(x, y)
	})
}
