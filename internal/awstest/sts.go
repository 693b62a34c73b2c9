package awstest

import (
	"bytes"
	"compress/flate"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/policytest"
)

type callerIdentityResult struct {
	Arn     string
	UserId  string
	Account string
}

type credentialsXML struct {
	AccessKeyId     string
	SecretAccessKey string
	SessionToken    string
	Expiration      string
}

type assumedRoleUser struct {
	AssumedRoleId string
	Arn           string
}

type assumeRoleResult struct {
	Credentials      credentialsXML
	AssumedRoleUser  assumedRoleUser
	PackedPolicySize *int   `xml:",omitempty"`
	SourceIdentity   string `xml:",omitempty"`
}

func (c *Cloud) actSTS(req *Request, k *credential) (any, *failure) {
	switch req.Action {
	case "GetCallerIdentity": // no policy can refuse it
		c.mu.Lock()
		defer c.mu.Unlock()
		return callerIdentityResult{k.arn(), k.userID(), k.account.id}, nil
	case "AssumeRole":
		return c.assumeRole(req, k)
	case "":
		return nil, fail(400, "MissingAction", "Could not find operation Action")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return nil, refuseUnknown(k, "sts:"+req.Action, "*")
}

// refuseUnknown refuses an action nobody plays here: no program under test has any business with it.
func refuseUnknown(k *credential, action, resource string) *failure {
	return fail(403, "AccessDenied", "User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action",
		k.arn(), action, resource, action)
}

// A wish is what both ways to assume a role ask for.
type wish struct {
	role       *role
	session    string
	duration   time.Duration
	inline     string
	managed    []string
	tags       map[string]string
	transitive []string
}

// API reference of STS: AssumeRole, AssumeRoleWithWebIdentity, Tag.
var (
	sessionName    = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
	externalID     = regexp.MustCompile(`^[\w+=,.@:/-]{2,}$`)
	sourceIdentity = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
	tagText        = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)
)

const (
	minSession     = 900
	maxSession     = 43200
	defaultSession = 3600
	maxChained     = 3600
)

func invalid(name, value, constraint string) *failure {
	return fail(400, "ValidationError", "1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: %s", value, name, constraint)
}

// readWish checks the form of what is asked, which needs no state. The role is found later.
func readWish(p url.Values) (wish, *failure) {
	var w wish
	if arn := p.Get("RoleArn"); len(arn) < 20 || len(arn) > 2048 {
		return w, invalid("roleArn", arn, "Member must have length greater than or equal to 20")
	}
	if !strings.HasPrefix(p.Get("RoleArn"), "arn:") || !accountInARN.MatchString(p.Get("RoleArn")) {
		return w, fail(400, "ValidationError", "%s is invalid", p.Get("RoleArn"))
	}
	w.session = p.Get("RoleSessionName")
	if !sessionName.MatchString(w.session) {
		return w, invalid("roleSessionName", w.session, `Member must satisfy regular expression pattern: [\w+=,.@-]*`)
	}
	seconds := defaultSession
	if s := p.Get("DurationSeconds"); s != "" {
		n, err := strconv.Atoi(s)
		switch {
		case err != nil:
			return w, fail(400, "MalformedInput", "Invalid Argument")
		case n < minSession:
			return w, invalid("durationSeconds", s, "Member must have value greater than or equal to 900")
		case n > maxSession:
			return w, invalid("durationSeconds", s, "Member must have value less than or equal to 43200")
		}
		seconds = n
	}
	w.duration = time.Duration(seconds) * time.Second
	w.inline = p.Get("Policy")
	if n := utf8.RuneCountInString(w.inline); n > 2048 {
		return w, invalid("policy", w.inline, "Member must have length less than or equal to 2048")
	}
	if w.inline != "" {
		if _, err := policytest.Parse(w.inline, policytest.Identity); err != nil {
			return w, fail(400, "MalformedPolicyDocument", "%s", sentence(err))
		}
	}
	for i := 1; ; i++ {
		arn := p.Get(fmt.Sprintf("PolicyArns.member.%d.arn", i))
		if arn == "" {
			break
		}
		w.managed = append(w.managed, arn)
	}
	if len(w.managed) > 10 {
		return w, invalid("policyArns", strconv.Itoa(len(w.managed)), "Member must have length less than or equal to 10")
	}
	return w, nil
}

func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// readTags reads the session tags of an AssumeRole.
func (w *wish) readTags(p url.Values) *failure {
	w.tags = make(map[string]string)
	seen := make(map[string]bool)
	for i := 1; ; i++ {
		key, ok := p[fmt.Sprintf("Tags.member.%d.Key", i)]
		if !ok {
			break
		}
		value := p.Get(fmt.Sprintf("Tags.member.%d.Value", i))
		if f := checkTag(key[0], value); f != nil {
			return f
		}
		if seen[strings.ToLower(key[0])] {
			return fail(400, "InvalidParameterValue", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		seen[strings.ToLower(key[0])] = true
		w.tags[key[0]] = value
	}
	if len(w.tags) > 50 {
		return invalid("tags", strconv.Itoa(len(w.tags)), "Member must have length less than or equal to 50")
	}
	for i := 1; ; i++ {
		key, ok := p[fmt.Sprintf("TransitiveTagKeys.member.%d", i)]
		if !ok {
			return nil
		}
		if !seen[strings.ToLower(key[0])] {
			return fail(400, "InvalidParameterValue", "The specified transitive tag key must be included in the requested tags.")
		}
		w.transitive = append(w.transitive, key[0])
	}
}

func checkTag(key, value string) *failure {
	switch {
	case key == "" || utf8.RuneCountInString(key) > 128 || !tagText.MatchString(key):
		return invalid("tags.1.member.key", key, `Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]+`)
	case utf8.RuneCountInString(value) > 256 || !tagText.MatchString(value):
		return invalid("tags.1.member.value", value, `Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]*`)
	case strings.HasPrefix(strings.ToLower(key), "aws:"):
		return fail(400, "InvalidParameterValue", "Tag keys cannot begin with 'aws:'")
	}
	return nil
}

// assumeRole is https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
func (c *Cloud) assumeRole(req *Request, k *credential) (any, *failure) {
	p := req.Params
	w, f := readWish(p)
	if f != nil {
		return nil, f
	}
	if f := w.readTags(p); f != nil {
		return nil, f
	}
	if id, ok := p["ExternalId"]; ok && (len(id[0]) > 1224 || !externalID.MatchString(id[0])) {
		return nil, invalid("externalId", id[0], `Member must satisfy regular expression pattern: [\w+=,.@:\/-]*`)
	}
	source, named := p["SourceIdentity"]
	if named && (!sourceIdentity.MatchString(source[0]) || strings.HasPrefix(source[0], "aws:")) {
		return nil, invalid("sourceIdentity", source[0], `Member must satisfy regular expression pattern: [\w+=,.@-]*`)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w.role = c.roleByARN(p.Get("RoleArn"))
	if w.role == nil { // AWS does not tell whether a role exists
		return nil, fail(403, "AccessDenied", "User: %s is not authorized to perform: sts:AssumeRole on resource: %s",
			k.arn(), p.Get("RoleArn"))
	}
	q := policytest.Question{Action: "sts:AssumeRole", Resource: w.role.arn, Context: c.context(req, k)}
	describe(q.Context, w.role)
	tagging(q.Context, w.tags)
	if len(w.transitive) > 0 {
		q.Context["sts:transitivetagkeys"] = w.transitive
	}
	q.Context["sts:rolesessionname"] = []string{w.session}
	if id := p.Get("ExternalId"); id != "" {
		q.Context["sts:externalid"] = []string{id}
	}
	if named {
		q.Context["sts:sourceidentity"] = source
	}
	if f := c.mayAssume(k, w.role, q); f != nil {
		return nil, f
	}
	out := &credential{account: w.role.account, role: w.role, sourceIdentity: k.sourceIdentity, chained: k.role != nil}
	if len(w.tags) > 0 || len(k.transitive) > 0 {
		q.Action = "sts:TagSession"
		if f := c.mayAssume(k, w.role, q); f != nil {
			return nil, f
		}
	}
	if named || k.sourceIdentity != "" {
		if named && k.sourceIdentity != "" && source[0] != k.sourceIdentity {
			return nil, fail(403, "AccessDenied", "The source identity of a session cannot be changed")
		}
		q.Action = "sts:SetSourceIdentity"
		if f := c.mayAssume(k, w.role, q); f != nil {
			return nil, f
		}
		if named {
			out.sourceIdentity = source[0]
		}
	}
	for _, key := range k.transitive {
		if hasFold(w.tags, key) {
			return nil, fail(400, "InvalidParameterValue", "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.")
		}
		w.tags[key] = k.tags[key]
		w.transitive = append(w.transitive, key)
	}
	if k.role != nil && w.duration > maxChained*time.Second {
		return nil, fail(400, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	}
	keys, packed, f := c.open(out, w)
	if f != nil {
		return nil, f
	}
	return assumeRoleResult{
		Credentials: keys.xml(), AssumedRoleUser: assumedRoleUser{out.userID(), out.arn()},
		PackedPolicySize: packed, SourceIdentity: out.sourceIdentity,
	}, nil
}

func hasFold(tags map[string]string, key string) bool {
	for k := range tags {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

// open makes the session that was allowed, if it is short and small enough.
func (c *Cloud) open(k *credential, w wish) (Keys, *int, *failure) {
	if w.duration > time.Duration(w.role.MaxSessionDuration)*time.Second {
		return Keys{}, nil, fail(400, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	for _, arn := range w.managed {
		if w.role.account.findPolicy(arn) == nil {
			return Keys{}, nil, fail(400, "ValidationError", "The policy %s does not exist or is not attachable.", arn)
		}
	}
	k.session, k.inline, k.managed = w.session, w.inline, w.managed
	k.narrowed = w.inline != "" || len(w.managed) > 0
	k.tags, k.transitive = w.tags, w.transitive
	var packed *int
	if k.narrowed || len(w.tags) > 0 {
		n := c.packed(w.inline, w.managed, w.tags)
		if n > 100 {
			return Keys{}, nil, fail(400, "PackedPolicyTooLarge", "Packed size of session tags and policies consumes %d%% of allotted space, please use smaller session policies or tags.", n)
		}
		packed = &n
	}
	now := c.now().UTC().Truncate(time.Second)
	k.issued, k.expires = now, now.Add(w.duration)
	return c.keysFor(k), packed, nil
}

// SetPackedSize replaces the estimate of PackedPolicySize, a percentage; above 100 a session is refused.
// How AWS packs is not published. The estimate follows one report, by which the six tags of EKS Pod Identity
// take about 74 percent.
func (c *Cloud) SetPackedSize(f func(inline string, policyARNs []string, tags map[string]string) int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packed = f
	if f == nil {
		c.packed = packedSize
	}
}

func packedSize(inline string, policyARNs []string, tags map[string]string) int {
	var b bytes.Buffer
	z, _ := flate.NewWriter(&b, flate.BestCompression)            // the level is valid
	_, _ = z.Write([]byte(inline + strings.Join(policyARNs, ""))) // a buffer never fails
	_ = z.Close()
	percent := 0
	if inline != "" || len(policyARNs) > 0 {
		percent = 1 + b.Len()*100/1024
	}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		percent += (len(key) + len(tags[key]) + 16) * 100 / 512
	}
	return percent
}

func (k Keys) xml() credentialsXML {
	return credentialsXML{k.AccessKeyID, k.SecretAccessKey, k.SessionToken, k.Expiration.UTC().Format(time.RFC3339)}
}
