package bridge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A File is the configuration file, read and found right.
type File struct {
	Team           string
	Revision       int64            // of the file; 0 where it has none
	Accounts       []serval.Account // External IDs are empty where the team's applies
	Policies       []serval.AccessPolicy
	Admins         serval.People
	Auditors       serval.People
	UpstreamTokens []UpstreamToken
	Networks       map[string][]netip.Prefix

	Digest string // of the text, SHA-256 in hex
}

// An UpstreamToken lets a worker outside the cluster push the accounts that it
// names.
type UpstreamToken struct {
	Name       string
	Accounts   []string
	SecretFile string
}

// maxFile bounds the configuration file.
const maxFile = 4 << 20

// minToken is how long an upstream token has to be, in bytes.
const minToken = 16

// A Fault is something wrong with the configuration file.
type Fault struct {
	Line int    // 0 where it is of no line
	Path string // such as $.accounts[0].role_arn
	Text string

	// Elsewhere says that the file itself is right: it names another that is there
	// where the bridge runs, and maybe nowhere else.
	Elsewhere bool
}

// String returns the fault as "line 3: accounts[0].role_arn: …".
func (f Fault) String() string {
	var b strings.Builder
	if f.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", f.Line)
	}
	if path := strings.TrimPrefix(strings.TrimPrefix(f.Path, "$"), "."); path != "" {
		fmt.Fprintf(&b, "%s: ", path)
	}
	b.WriteString(f.Text)
	return b.String()
}

// ReadFile reads the configuration file at path. It returns every fault, in the
// order of the lines; the File is of use only where there is none.
func ReadFile(path string) (File, []Fault) {
	text, err := readText(path)
	if err != nil {
		return File{}, []Fault{unreadable(err)}
	}
	return ParseFile(text)
}

// readText returns the text of a configuration file.
func readText(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("it has %d bytes; at most %d are read", info.Size(), maxFile)
	}
	return os.ReadFile(path)
}

func unreadable(err error) Fault {
	return Fault{Text: "the configuration file cannot be read: " + err.Error() + "."}
}

// digest names a text of a configuration file.
func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// ParseFile is ReadFile of a text.
func ParseFile(text []byte) (File, []Fault) {
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return File{}, []Fault{syntaxFault(err)}
	}
	if len(tree.Docs) > 1 {
		return File{}, []Fault{{Text: "one YAML document is read; there are more behind ---."}}
	}
	if line := aliased(tree); line > 0 {
		// A file of a kilobyte could stand for more than fits into memory.
		return File{}, []Fault{{Line: line, Text: "anchors and aliases are not taken; write it out."}}
	}
	source := source{tree}

	faults := checkSchema(text, source)
	var f file
	if err := yaml.UnmarshalWithOptions(text, &f); err != nil {
		// With a fault of the schema this says the same again.
		if len(faults) == 0 {
			faults = append(faults, syntaxFault(err))
		}
		return File{}, faults
	}
	out, more := f.check(source)
	out.Digest = digest(text)
	for _, m := range more {
		if !slices.ContainsFunc(faults, func(f Fault) bool { return f.Path == m.Path || strings.HasPrefix(f.Path, m.Path+".") }) {
			faults = append(faults, m)
		}
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return a.Line - b.Line })
	return out, faults
}

// aliased returns the first line with an anchor or an alias; 0 where there is
// none.
func aliased(tree *ast.File) (line int) {
	for _, doc := range tree.Docs {
		if doc.Body == nil {
			continue
		}
		ast.Walk(visitor(func(n ast.Node) bool {
			switch n.Type() {
			case ast.AnchorType, ast.AliasType, ast.MergeKeyType:
				line = n.GetToken().Position.Line
			}
			return line == 0
		}), doc.Body)
		if line > 0 {
			return line
		}
	}
	return 0
}

// visitor is a function that is asked whether to look further.
type visitor func(ast.Node) bool

// Visit asks.
func (v visitor) Visit(n ast.Node) ast.Visitor {
	if v(n) {
		return v
	}
	return nil
}

// syntaxFault returns the parser's error as a fault.
func syntaxFault(err error) Fault {
	f := Fault{Text: "not YAML: " + err.Error() + "."}
	if e, ok := errors.AsType[yaml.Error](err); ok {
		f.Text = "not YAML: " + e.GetMessage() + "."
		if t := e.GetToken(); t != nil {
			f.Line = t.Position.Line
		}
	}
	return f
}

// A source finds lines.
type source struct{ tree *ast.File }

// fault returns the fault at path, with its line, or that of the nearest thing
// around it.
func (s source) fault(path, format string, args ...any) Fault {
	f := Fault{Path: path, Text: fmt.Sprintf(format, args...)}
	for at := path; f.Line == 0 && at != "" && at != "$"; at = at[:max(strings.LastIndexAny(at, ".["), 0)] {
		p, err := yaml.PathString(at)
		if err != nil {
			continue
		}
		if node, err := p.FilterFile(s.tree); err == nil && node != nil && node.GetToken() != nil {
			f.Line = firstToken(node).Position.Line
		}
	}
	return f
}

// checkSchema holds the text against the JSON Schema.
func checkSchema(text []byte, s source) []Fault {
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return []Fault{syntaxFault(err)}
	}
	var faults []Fault
	err = configuration().check(asJSON, func(path, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		switch {
		case text == "got number, want string":
			text += "; put it in quotes" // an account id is digits and no number
		case text == "got null, want object" && path == "$":
			text = "the file is empty; it names at least the team"
		}
		faults = append(faults, s.fault(path, "%s.", text))
	})
	if err != nil {
		return []Fault{{Text: "not a configuration: " + err.Error() + "."}}
	}
	return faults
}

// firstToken returns where a node begins: of a mapping that is its first key.
func firstToken(n ast.Node) *token.Token {
	switch n := n.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return n.GetToken()
}

// file is the configuration file's own form.
type file struct {
	Team     string `yaml:"team"`
	Revision int64  `yaml:"revision"`
	Accounts []struct {
		ID              string `yaml:"id"`
		Name            string `yaml:"name"`
		RoleARN         string `yaml:"role_arn"`
		Partition       string `yaml:"partition"`
		ExternalID      string `yaml:"external_id"`
		Via             []hop  `yaml:"via"`
		DefaultRegion   string `yaml:"default_region"`
		STS             sts    `yaml:"sts"`
		WorkflowRoleARN string `yaml:"workflow_role_arn"`
	} `yaml:"accounts"`
	AccessPolicies []struct {
		Name  string `yaml:"name"`
		Roles struct {
			Accounts []string          `yaml:"accounts"`
			ARNs     []string          `yaml:"arns"`
			Tags     map[string]string `yaml:"tags"`
		} `yaml:"roles"`
		Eligible people `yaml:"eligible"`
		Approval struct {
			Automatic bool     `yaml:"automatic"`
			Steps     []people `yaml:"steps"`
		} `yaml:"approval"`
		MaxMinutes           int  `yaml:"max_minutes"`
		MaxTotalMinutes      int  `yaml:"max_total_minutes"`
		RecommendedMinutes   int  `yaml:"recommended_minutes"`
		RequireJustification bool `yaml:"require_justification"`
		AllowSelfApproval    bool `yaml:"allow_self_approval"`
		AllowChaining        bool `yaml:"allow_chaining"`
		BreakGlass           bool `yaml:"break_glass"`
		SuspendOnEscalation  bool `yaml:"suspend_on_escalation"`
	} `yaml:"access_policies"`
	Admins         people `yaml:"admins"`
	Auditors       people `yaml:"auditors"`
	UpstreamTokens []struct {
		Name       string   `yaml:"name"`
		Accounts   []string `yaml:"accounts"`
		SecretFile string   `yaml:"secret_file"`
	} `yaml:"upstream_tokens"`
	Networks []struct {
		Name  string   `yaml:"name"`
		CIDRs []string `yaml:"cidrs"`
	} `yaml:"networks"`
}

type people struct {
	Groups []string `yaml:"groups"`
	Emails []string `yaml:"emails"`
}

func (p people) serval() serval.People { return serval.People{Groups: p.Groups, Emails: p.Emails} }

type hop struct {
	RoleARN    string `yaml:"role_arn"`
	ExternalID string `yaml:"external_id"`
}

type sts struct {
	Region    string `yaml:"region"`
	Endpoint  string `yaml:"endpoint"`
	Dial      string `yaml:"dial"`
	HTTPProxy string `yaml:"http_proxy"`
}

// check turns the file into the dictionary's words, and returns what is wrong
// beyond its form.
func (f file) check(s source) (File, []Fault) {
	out := File{
		Team: f.Team, Revision: f.Revision, Admins: f.Admins.serval(), Auditors: f.Auditors.serval(), Networks: map[string][]netip.Prefix{},
	}
	var faults []Fault
	add := func(path, format string, args ...any) { faults = append(faults, s.fault(path, format, args...)) }

	ids := map[string]bool{}
	for i, a := range f.Accounts {
		path := fmt.Sprintf("$.accounts[%d]", i)
		account := serval.Account{
			ID: a.ID, Name: a.Name, RoleARN: a.RoleARN, Partition: a.Partition, ExternalID: a.ExternalID,
			DefaultRegion: a.DefaultRegion, WorkflowRoleARN: a.WorkflowRoleARN,
			STS: serval.STS(a.STS),
		}
		for _, h := range a.Via {
			account.Via = append(account.Via, serval.Hop(h))
		}
		if account.Partition == "" {
			if arn, err := serval.ParseRoleARN(a.RoleARN); err == nil {
				account.Partition = arn.Partition
			}
		}
		checked := account
		if checked.ExternalID == "" {
			checked.ExternalID = "derived" // from the team, once the key is known
		}
		for _, text := range checked.Faults() {
			field, sentence, _ := strings.Cut(text, ": ")
			add(path+"."+field, "%s", sentence)
		}
		if ids[a.ID] {
			add(path+".id", "account %s is declared twice.", a.ID)
		}
		ids[a.ID] = true
		out.Accounts = append(out.Accounts, account)
	}
	names := map[string]bool{}
	for i, p := range f.AccessPolicies {
		path := fmt.Sprintf("$.access_policies[%d]", i)
		policy := serval.AccessPolicy{
			Name: p.Name, Eligible: p.Eligible.serval(),
			Roles:      serval.RoleMatch{Accounts: p.Roles.Accounts, ARNs: p.Roles.ARNs, Tags: p.Roles.Tags},
			Approval:   serval.Approval{Automatic: p.Approval.Automatic},
			MaxMinutes: p.MaxMinutes, MaxTotalMinutes: p.MaxTotalMinutes, RecommendedMinutes: p.RecommendedMinutes,
			RequireJustification: p.RequireJustification, AllowSelfApproval: p.AllowSelfApproval, AllowChaining: p.AllowChaining,
			BreakGlass: p.BreakGlass, SuspendOnEscalation: p.SuspendOnEscalation,
		}
		for _, step := range p.Approval.Steps {
			policy.Approval.Steps = append(policy.Approval.Steps, step.serval())
		}
		for _, text := range policy.Faults() {
			field, sentence, _ := strings.Cut(text, ": ")
			add(path+"."+field, "%s", sentence)
		}
		if names[p.Name] {
			add(path+".name", "there are two policies called %q.", p.Name)
		}
		names[p.Name] = true
		out.Policies = append(out.Policies, policy)
	}
	for path, p := range map[string]people{"$.admins": f.Admins, "$.auditors": f.Auditors} {
		for i, e := range p.Emails {
			if _, err := serval.ParseEmail(e); err != nil {
				add(fmt.Sprintf("%s.emails[%d]", path, i), "%s", err)
			}
		}
	}
	tokens := map[string]bool{}
	var secrets []serval.Secret
	for i, t := range f.UpstreamTokens {
		path := fmt.Sprintf("$.upstream_tokens[%d]", i)
		if tokens[t.Name] {
			add(path+".name", "there are two tokens called %q.", t.Name)
		}
		tokens[t.Name] = true
		if strings.Contains(t.Name, "/") {
			add(path+".name", "a name has no slash.")
		}
		secret, err := readToken(t.SecretFile)
		if err != nil {
			fault := s.fault(path+".secret_file", "%s.", err)
			fault.Elsewhere = errors.Is(err, fs.ErrNotExist)
			faults = append(faults, fault)
		}
		for _, other := range secrets {
			if err == nil && secret.Equal(other) {
				add(path+".secret_file", "two tokens have the same secret, so one worker would pass for the other.")
			}
		}
		if err == nil {
			secrets = append(secrets, secret)
		}
		out.UpstreamTokens = append(out.UpstreamTokens, UpstreamToken(t))
	}
	for i, n := range f.Networks {
		path := fmt.Sprintf("$.networks[%d]", i)
		if _, twice := out.Networks[n.Name]; twice {
			add(path+".name", "there are two networks called %q.", n.Name)
		}
		out.Networks[n.Name] = nil
		for j, text := range n.CIDRs {
			prefix, err := netip.ParsePrefix(text)
			if err != nil || prefix != prefix.Masked() {
				add(fmt.Sprintf("%s.cidrs[%d]", path, j), "%q is not a network such as 203.0.113.0/24.", text)
				continue
			}
			out.Networks[n.Name] = append(out.Networks[n.Name], prefix)
		}
	}
	return out, faults
}

// readToken reads an upstream token's file.
func readToken(path string) (serval.Secret, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return serval.Secret{}, fmt.Errorf("the token's file cannot be read: %w", err)
	}
	token := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if len(token) < minToken {
		return serval.Secret{}, fmt.Errorf("the token in the file has %d characters; it needs at least %d", len(token), minToken)
	}
	return serval.NewSecret(token), nil
}
