// Package awstest is AWS beyond the wire: IAM, STS, the one call of Organizations that lists accounts,
// and the sign-in federation endpoint, in one http.Handler that speaks their real protocols, so that the
// real SDK clients run against it unchanged with nothing but another BaseEndpoint.
//
// A [Cloud] holds accounts, an [Account] its roles, policies, users and identity providers. The cloud
// judges as AWS does: every signature is computed anew, every call is authorised by the policies of its
// caller, every role is assumed under its trust policy, and a web identity token is verified against the
// issuer's published keys. What a program may not do in AWS it cannot do here, and it is told so in
// AWS's words.
//
// A test makes a cloud, fills it, and points clients at it:
//
//	c := awstest.New(awstest.Options{})
//	a := c.AddAccount("111122223333", "Tools")
//	a.PutRole(awstest.Role{Name: "worker", Inline: map[string]string{"all": policy}})
//	keys, url := a.Session("worker", "w1", time.Hour), c.Start(t)
//	client := iam.NewFromConfig(config(keys), func(o *iam.Options) { o.BaseEndpoint = &url })
//
// A role without policies may do nothing, and a user likewise: rights must be given, as in AWS.
//
// Beside the judging there are faults on request: see [Fault], [Cloud.Throttle], [Cloud.ShortPages] and
// [Cloud.SetLatency]. [Cloud.Calls] says what was asked.
//
// Nothing here is ever part of a product; nothing is kept on disk; keys and secrets are made at run time.
package awstest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/policytest"
)

// Options of a Cloud. The zero value works.
type Options struct {
	// Now is the cloud's clock; time.Now where nil.
	Now func() time.Time
	// Partition of all ARNs: "aws" where empty, or "aws-cn", "aws-us-gov".
	Partition string
	// HTTPClient fetches discovery documents and keys of OIDC providers; one with a timeout of five
	// seconds where nil, which is as long as AWS waits.
	HTTPClient *http.Client
	// SourceIP is what aws:SourceIp says of every call; the peer's address where empty.
	SourceIP string
}

// A Cloud is one AWS partition. It is safe for concurrent use.
type Cloud struct {
	now       func() time.Time
	partition string
	client    *http.Client
	sourceIP  string

	mu         sync.Mutex // guards what follows, and everything in the accounts
	accounts   map[string]*Account
	keys       map[string]*credential
	shared     map[string]*managed // AWS's own policies by ARN
	parsed     map[string]*policytest.Policy
	management string
	signins    map[string]signin
	packed     func(inline string, policyARNs []string, tags map[string]string) int

	issuers  sync.Mutex // guards the next
	jwks     map[string]*keySet
	servers  sync.Mutex // guards the next
	closers  []func()
	watching sync.Mutex // guards what follows
	calls    []Call
	keep     bool
	inFlight map[string]int
	most     map[string]int
	faults   []*fault
	latency  func() time.Duration
	pageSize int
	limits   limits
}

// New returns a cloud without accounts. It knows four of AWS's own policies: AdministratorAccess,
// PowerUserAccess, ReadOnlyAccess and SecurityAudit.
func New(o Options) *Cloud {
	c := &Cloud{
		now:       o.Now,
		partition: cmp.Or(o.Partition, "aws"),
		client:    o.HTTPClient,
		sourceIP:  o.SourceIP,
		accounts:  make(map[string]*Account),
		keys:      make(map[string]*credential),
		shared:    make(map[string]*managed),
		parsed:    make(map[string]*policytest.Policy),
		signins:   make(map[string]signin),
		packed:    packedSize,
		jwks:      make(map[string]*keySet),
		inFlight:  make(map[string]int),
		most:      make(map[string]int),
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.client == nil {
		c.client = &http.Client{Timeout: 5 * time.Second}
	}
	for name, document := range awsPolicies {
		c.PutAWSPolicy(name, document)
	}
	return c
}

// A Request is one call as faults see it.
type Request struct {
	Service     string // "iam", "sts", "organizations", "signin"
	Action      string
	Account     string // the account the call lands in: the caller's, or the role's of an unsigned call
	Target      string // the account of the role to assume, where there is one
	Params      url.Values
	Caller      string // ARN as the access key has it, before the signature is judged
	AccessKeyID string

	http   *http.Request
	body   []byte
	signed bool
}

// A Call is one call as it was answered.
type Call struct {
	At          time.Time
	Service     string
	Account     string // see Request
	Target      string
	Action      string
	Caller      string
	AccessKeyID string
	Signed      bool // an Authorization header came with it
	Status      int  // 0 where there was no answer
	Code        string
	Throttled   bool
	Params      url.Values // nil unless KeepParams(true)
}

// A failure is an answer that says no, with AWS's code and words.
type failure struct {
	status  int
	code    string
	message string
}

func fail(status int, code, format string, args ...any) *failure {
	return &failure{status, code, fmt.Sprintf(format, args...)}
}

// An answer is what goes back over the wire.
type answer struct {
	status      int
	code        string
	contentType string
	body        []byte
}

// maxBody bounds a request's body.
const maxBody = 1 << 20

var accountInARN = regexp.MustCompile(`^arn:[^:]*:iam::([0-9]{12}):`)

// ServeHTTP is the endpoint of all four services, told apart by the path /federation, the header
// X-Amz-Target, and the parameters Version and Action.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "Request Entity Too Large", http.StatusRequestEntityTooLarge)
		return
	}
	req := c.read(r, body)
	a, answered := c.answer(r.Context(), req)
	if !answered {
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Date", c.now().UTC().Format(http.TimeFormat))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Amzn-Requestid", requestID())
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client's going away is no matter
}

// answer returns what goes back, if anything does. By then the call is recorded: who has
// read the answer counts it, and may make another in its place.
func (c *Cloud) answer(ctx context.Context, req *Request) (a answer, answered bool) {
	call := Call{
		At: c.now(), Service: req.Service, Account: req.Account, Target: req.Target, Action: req.Action,
		Caller: req.Caller, AccessKeyID: req.AccessKeyID, Signed: req.signed, Params: req.Params,
	}
	c.begin(req.Account)
	defer func() { c.end(req.Account, call) }()

	if !sleep(ctx, c.delay()) {
		return answer{}, false
	}
	if a, answered = c.applyFaults(ctx, req); !answered {
		return answer{}, false
	}
	if len(a.body) > oneRead && !sleep(ctx, settle) {
		return answer{}, false
	}
	call.Status, call.Code = a.status, a.code
	call.Throttled = a.code == "Throttling"
	return a, true
}

// The SDK (smithy-go v1.28.8) closes a request's body as soon as the head of the answer is there. A writer that
// has sent the body by then, but not yet seen its end, takes that for a failure and closes the connection, and
// what of the answer is not read by then is lost. AWS is too far away for this to happen; a cloud in the same
// process is not. So an answer that does not fit one read of the client waits a moment.
const (
	oneRead = 3 << 10
	settle  = 5 * time.Millisecond
)

// read finds out what is asked and by whom, and judges nothing yet.
func (c *Cloud) read(r *http.Request, body []byte) *Request {
	req := &Request{http: r, body: body, Params: r.URL.Query()}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		form, _ := url.ParseQuery(string(body))
		for k, v := range form {
			req.Params[k] = append(req.Params[k], v...)
		}
	}
	req.Action = req.Params.Get("Action")
	target, isJSON := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "AWSOrganizationsV20161128.")
	switch {
	case r.URL.Path == "/federation":
		req.Service = "signin"
	case isJSON:
		req.Service, req.Action = "organizations", target
		var in map[string]any
		_ = json.Unmarshal(body, &in) // only for Params; the action judges the body
		for k, v := range in {
			req.Params.Set(k, fmt.Sprint(v))
		}
	case req.Params.Get("Version") == "2011-06-15":
		req.Service = "sts"
	default:
		req.Service = "iam"
	}
	if m := accountInARN.FindStringSubmatch(req.Params.Get("RoleArn")); m != nil && req.Service == "sts" {
		req.Target = m[1]
	}
	req.signed = r.Header.Get("Authorization") != ""
	req.AccessKeyID = accessKeyID(r)
	if req.Service == "signin" {
		req.AccessKeyID = req.console().ID
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.keys[req.AccessKeyID]; k != nil {
		req.Account, req.Caller = k.account.id, k.arn()
	} else if !req.signed {
		req.Account = req.Target
	}
	return req
}

// perform judges the call and does what it asks.
func (c *Cloud) perform(req *Request) answer {
	if req.Service == "signin" {
		return c.federate(req)
	}
	result, f := c.act(req)
	if f != nil {
		return req.refusal(f)
	}
	if req.Service == "organizations" {
		b, err := json.Marshal(result)
		if err != nil {
			return req.refusal(fail(500, "ServiceException", "%v", err))
		}
		return answer{status: 200, contentType: "application/x-amz-json-1.1", body: b}
	}
	b, err := envelope(req, result)
	if err != nil {
		return req.refusal(fail(500, "ServiceFailure", "%v", err))
	}
	return answer{status: 200, contentType: "text/xml", body: b}
}

func (c *Cloud) act(req *Request) (any, *failure) {
	if req.Service == "sts" && req.Action == "AssumeRoleWithWebIdentity" {
		if f := c.throttled(req); f != nil {
			return nil, f
		}
		return c.assumeRoleWithWebIdentity(req)
	}
	k, f := c.authenticate(req)
	if f != nil {
		return nil, f
	}
	if f := c.throttled(req); f != nil {
		return nil, f
	}
	switch req.Service {
	case "sts":
		return c.actSTS(req, k)
	case "organizations":
		return c.actOrganizations(req, k)
	}
	return c.actIAM(req, k)
}

func (req *Request) namespace() string {
	if req.Service == "sts" {
		return "https://sts.amazonaws.com/doc/2011-06-15/"
	}
	return "https://iam.amazonaws.com/doc/2010-05-08/"
}

// envelope wraps a result in the two elements of AWS's Query protocol. A nil result has none of its own.
func envelope(req *Request, result any) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<%sResponse xmlns=%q>\n", req.Action, req.namespace())
	if result != nil {
		e := xml.NewEncoder(&b)
		e.Indent("  ", "  ")
		if err := e.EncodeElement(result, xml.StartElement{Name: xml.Name{Local: req.Action + "Result"}}); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(&b, "\n  <ResponseMetadata>\n    <RequestId>%s</RequestId>\n  </ResponseMetadata>\n</%sResponse>\n",
		requestID(), req.Action)
	return b.Bytes(), nil
}

// refusal is f in the protocol of the service that was called.
func (req *Request) refusal(f *failure) answer {
	a := answer{status: f.status, code: f.code}
	switch req.Service {
	case "organizations":
		a.contentType = "application/x-amz-json-1.1"
		a.body, _ = json.Marshal(map[string]string{"__type": f.code, "Message": f.message}) // texts always marshal
		return a
	case "signin":
		a.contentType = "text/plain"
		a.body = []byte(f.message)
		return a
	}
	kind := "Sender"
	if f.status >= 500 {
		kind = "Receiver"
	}
	var message bytes.Buffer
	_ = xml.EscapeText(&message, []byte(f.message)) // a buffer never fails
	a.contentType = "text/xml"
	a.body = fmt.Appendf(nil, "<ErrorResponse xmlns=%q>\n  <Error>\n    <Type>%s</Type>\n    <Code>%s</Code>\n"+
		"    <Message>%s</Message>\n  </Error>\n  <RequestId>%s</RequestId>\n</ErrorResponse>\n",
		req.namespace(), kind, f.code, message.Bytes(), requestID())
	return a
}

// Start serves the cloud on loopback until the test ends and returns its URL.
func (c *Cloud) Start(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := httptest.NewUnstartedServer(c)
	s.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	s.Start()
	t.Cleanup(func() {
		cancel() // what hangs lets go
		s.Close()
	})
	return s.URL
}

// Close ends what Dialer started. What Start started ends with its test.
func (c *Cloud) Close() {
	c.servers.Lock()
	closers := c.closers
	c.closers = nil
	c.servers.Unlock()
	for _, f := range closers {
		f()
	}
}

// AddAccount adds an account and returns it; the one there is where the id is known already.
// It panics where id is not twelve digits.
func (c *Cloud) AddAccount(id, name string) *Account {
	if !regexp.MustCompile(`^[0-9]{12}$`).MatchString(id) {
		panic("awstest: an account id has twelve digits, not " + strconv.Quote(id))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.accounts[id]; a != nil {
		return a
	}
	a := &Account{
		cloud: c, id: id, name: name, created: c.now(),
		roles:     make(map[string]*role),
		policies:  make(map[string]*managed),
		users:     make(map[string]*user),
		providers: make(map[string]*provider),
		attached:  make(map[string]int),
		bounding:  make(map[string]int),
	}
	c.accounts[id] = a
	return a
}

// Account returns the account, nil where there is none.
func (c *Cloud) Account(id string) *Account {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accounts[id]
}

// Secrets returns what the cloud gave away that nobody but its holder may see: the secret keys and the tokens
// of sessions, and sign-in tokens that were not used.
func (c *Cloud) Secrets() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	secrets := slices.Collect(maps.Keys(c.signins))
	for _, k := range c.keys {
		if k.role != nil {
			secrets = append(secrets, k.secret, k.token)
		}
	}
	return secrets
}

// Calls returns what was asked so far, in the order of the answers.
func (c *Cloud) Calls() []Call {
	c.watching.Lock()
	defer c.watching.Unlock()
	return append([]Call(nil), c.calls...)
}

// CountCalls returns how often the action was asked, whatever the answer; of all actions where it is "".
func (c *Cloud) CountCalls(action string) int {
	c.watching.Lock()
	defer c.watching.Unlock()
	n := 0
	for i := range c.calls {
		if action == "" || c.calls[i].Action == action {
			n++
		}
	}
	return n
}

// ResetCalls forgets the calls so far and the most that were in flight.
func (c *Cloud) ResetCalls() {
	c.watching.Lock()
	defer c.watching.Unlock()
	c.calls = nil
	clear(c.most)
}

// KeepParams says whether calls keep their parameters. They hold tokens and External IDs.
func (c *Cloud) KeepParams(keep bool) {
	c.watching.Lock()
	defer c.watching.Unlock()
	c.keep = keep
}

// MaxInFlight returns how many calls at once the account had to answer at most.
func (c *Cloud) MaxInFlight(accountID string) int {
	c.watching.Lock()
	defer c.watching.Unlock()
	return c.most[accountID]
}

// SetLatency makes every call wait for as long as f says; nil turns it off.
func (c *Cloud) SetLatency(f func() time.Duration) {
	c.watching.Lock()
	defer c.watching.Unlock()
	c.latency = f
}

func (c *Cloud) delay() time.Duration {
	c.watching.Lock()
	f := c.latency
	c.watching.Unlock()
	if f == nil {
		return 0
	}
	return f()
}

func (c *Cloud) begin(account string) {
	c.watching.Lock()
	defer c.watching.Unlock()
	c.inFlight[account]++
	c.most[account] = max(c.most[account], c.inFlight[account])
}

func (c *Cloud) end(account string, call Call) {
	c.watching.Lock()
	defer c.watching.Unlock()
	c.inFlight[account]--
	if !c.keep {
		call.Params = nil
	}
	c.calls = append(c.calls, call)
}

// sleep reports whether d went by before the client went away.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// random returns n characters of the alphabet of AWS's ids.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return base32.StdEncoding.EncodeToString(b)[:n]
}

// secret returns n random bytes in base 64, with the plus, slash and equals signs that badly written
// encoders lose.
func secret(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

func requestID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	s := hex.EncodeToString(b)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
