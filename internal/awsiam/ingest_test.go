package awsiam_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The measurements of docs/performance.md: make bench-ingest. Cases on real sockets are three processes: this
// one, the played AWS, and the reader, whose memory is therefore its own. All others run in a bubble, where
// waiting takes no time and computing counts as none.

var ingest = flag.Bool("ingest", false, "measure the reading of accounts, and print the table")

const (
	meanLatency   = 44_700 * time.Microsecond
	medianLatency = 40 * time.Millisecond
	p99Latency    = 120 * time.Millisecond
)

// latency is log-normal.
func latency() time.Duration {
	const p99 = 2.3263 // standard deviations
	sigma := math.Log(float64(p99Latency)/float64(medianLatency)) / p99
	return time.Duration(float64(medianLatency) * math.Exp(sigma*rand.NormFloat64()))
}

// A measured is one estate as it is read.
type measured struct {
	Estate   string // one1000, one5000 or fifty200
	Details  bool   // allowed
	Throttle string // "", "100/s", "20/s" or "per action"
}

func (m measured) way() string {
	if m.Details {
		return "details"
	}
	return "seven actions"
}

// build makes the estate.
func (m measured) build(e *estate) []serval.Account {
	e.SetLatency(latency)
	switch m.Throttle {
	case "100/s":
		e.Throttle(100, 100)
	case "20/s":
		e.Throttle(20, 40)
	case "per action":
		for action, n := range perAction {
			e.ThrottleAction(action, float64(n), n)
		}
	}
	if m.Estate == "fifty200" {
		return fifty(e, m.Details)
	}
	owner, a := e.connect(spoke)
	map[string]shape{"one1000": one1000, "one5000": one5000}[m.Estate].fill(e, owner)
	if m.Details {
		allowDetails(owner)
	}
	return []serval.Account{a}
}

// perAction is the pace that others found to be safe.
var perAction = map[string]int{"GetRole": 15, "ListRolePolicies": 15, "ListAttachedRolePolicies": 15, "GetPolicy": 35, "GetPolicyVersion": 35}

// floor returns the fewest calls and the least time by the formulas: all calls at the mean latency with all
// allowed in flight; the calls that must follow one another; what the throttle of the busiest account lets by.
//
// Of calls that follow one another the mean is enough where one account is read. Fifty that are read side by side have
// ended when the slowest has, whatever reads them: there it is what the slowest takes on average. And no policy of
// AWS's can be asked for before the first page of the details has named it.
func (m measured) floor() (calls int, least time.Duration) {
	type numbers struct {
		calls, refused, one, policies, inFlight int
		chain, beside                           int // pages of the details or calls after AssumeRole, and pages of roles beside them
		known                                   int // policies of AWS's that one account asks for when its first page has named them
	}
	n := map[measured]numbers{
		{"one1000", false, ""}:  {calls: 1594, refused: 1, one: 1594, policies: 96, inFlight: 16, chain: 5},
		{"one5000", false, ""}:  {calls: 7542, refused: 1, one: 7542, policies: 268, inFlight: 16, chain: 9},
		{"fifty200", false, ""}: {calls: 14876, refused: 50, one: 298, policies: 8, inFlight: 64, chain: 5},
		{"one1000", true, ""}:   {calls: 118, one: 117, policies: 57, inFlight: 16, chain: 2, beside: 1, known: 57},
		{"one5000", true, ""}:   {calls: 132, one: 131, policies: 60, inFlight: 16, chain: 6, beside: 5, known: 60},
		{"fifty200", true, ""}:  {calls: 270, one: 4, inFlight: 64, chain: 1, beside: 1},
	}[measured{m.Estate, m.Details, ""}]
	accounts := map[string]int{"fifty200": 50}[m.Estate]
	least = max(time.Duration(n.calls)*meanLatency/time.Duration(n.inFlight), slowest(max(1, accounts), n.chain, n.beside))
	var named time.Duration
	if n.known > 0 {
		named = 2 * meanLatency
		least = max(least, named+time.Duration(2*n.known)*meanLatency/time.Duration(n.inFlight))
	}
	limit := func(calls, perSecond, burst int, from time.Duration) {
		least = max(least, from+time.Duration(calls-burst)*time.Second/time.Duration(perSecond))
	}
	switch m.Throttle {
	case "100/s":
		limit(n.one, 100, 100, 0)
	case "20/s":
		limit(n.one, 20, 40, 0)
	case "per action":
		limit(n.policies, 35, 35, named)
		if !m.Details {
			limit(map[string]int{"one1000": 1000, "one5000": 5000, "fifty200": 200}[m.Estate], 15, 15, 0)
		}
	}
	return n.calls + n.refused, least
}

// slowest returns how long the slowest of the accounts takes on average, each with AssumeRole and then two rows of
// calls beside each other.
func slowest(accounts, chain, beside int) time.Duration {
	const draws = 2000
	row := func(calls int) (sum time.Duration) {
		for range calls {
			sum += latency()
		}
		return sum
	}
	var all time.Duration
	for range draws {
		var longest time.Duration
		for range accounts {
			longest = max(longest, latency()+max(row(chain), row(beside)))
		}
		all += longest
	}
	return all / draws
}

// A result is what came of it.
type result struct {
	Wall             time.Duration
	Calls, Throttled int
	Roles            int
	Fault            string
	Heap, Resident   float64 // MiB at the peak; 0 where it was not measured
	CPU, FarCPU      float64 // seconds of computing, of the reader and of the played AWS
}

func (r *result) add(more result) {
	r.Wall, r.Calls, r.Throttled = r.Wall+more.Wall, r.Calls+more.Calls, r.Throttled+more.Throttled
}

func (r result) percent() float64 { return 100 * float64(r.Throttled) / float64(max(1, r.Calls)) }

// read reads all accounts at once, and keeps nothing of them.
func read(c awsiam.Config, accounts []serval.Account, rounds int) (results []result) {
	var mu sync.Mutex
	var now result
	c.Observe = func(call awsiam.Call) {
		mu.Lock()
		defer mu.Unlock()
		now.Calls++
		if call.Throttled {
			now.Throttled++
		}
	}
	r, err := awsiam.New(context.Background(), c)
	if err != nil {
		return []result{{Fault: err.Error()}}
	}
	defer r.Close()
	for range rounds {
		now = result{}
		start := time.Now()
		var all sync.WaitGroup
		for _, a := range accounts {
			all.Go(func() {
				inv, err := r.Inventory(context.Background(), a, nil, "", nil)
				mu.Lock()
				defer mu.Unlock()
				now.Roles += len(inv.Roles)
				if err != nil || !inv.Complete || len(inv.Problems) > 0 {
					now.Fault = fmt.Sprintf("%v, complete %v, problems %v", err, inv.Complete, inv.Problems)
				}
			})
		}
		all.Wait()
		now.Wall = time.Since(start)
		results = append(results, now)
	}
	return results
}

// inBubbleTime measures without sockets. The second result is of a second reading with the same Reader.
func (m measured) inBubbleTime(t *testing.T) (results []result) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstateInMemory(t, awstest.Options{})
		results = read(e.config, m.build(e), 2)
		e.Close()
	})
	return results
}

// Which of the three processes this is.
const playing, reading = "SERVAL_TEST_PLAYED_AWS", "SERVAL_TEST_READER"

// An opened is what the reader needs to know of the played AWS.
type opened struct {
	URL      string
	Keys     aws.Credentials
	Accounts []serval.Account
}

func TestMain(m *testing.M) {
	if text := os.Getenv(playing); text != "" {
		must(play(text))
		return
	}
	if text := os.Getenv(reading); text != "" {
		must(readAlone(text))
		return
	}
	os.Exit(m.Run())
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// play is AWS until its standard input ends.
func play(text string) error {
	var m measured
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return err
	}
	e := emptyEstate(awstest.Options{})
	o := opened{Accounts: m.build(e)}
	var err error
	if o.Keys, err = e.config.Credentials.Retrieve(context.Background()); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	o.URL = "http://" + l.Addr().String()
	s := &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = s.Close()
	}()
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		return err
	}
	if err := s.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// readAlone reads in a process of its own.
func readAlone(text string) error {
	var o opened
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	c := awsiam.Config{STSEndpoint: o.URL, IAMEndpoint: o.URL, Thrifty: true,
		Credentials: credentials.NewStaticCredentialsProvider(o.Keys.AccessKeyID, o.Keys.SecretAccessKey, o.Keys.SessionToken)}
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		most := uint64(0)
		for {
			metrics.Read(sample)
			most = max(most, sample[0].Value.Uint64())
			select {
			case <-time.After(2 * time.Millisecond):
			case <-stop:
				peak <- most
				return
			}
		}
	}()
	r := read(c, o.Accounts, 1)[0]
	close(stop)
	r.Heap = float64(<-peak) / (1 << 20)
	r.Resident = resident()
	return json.NewEncoder(os.Stdout).Encode(r)
}

// resident returns the most memory this process ever had, in MiB; 0 where the system does not say.
func resident() float64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kib float64
		if n, _ := fmt.Sscanf(s.Text(), "VmHWM: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	return 0
}

// cpu returns how many seconds a process has computed so far; 0 where the system does not say.
func cpu(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may have spaces in it
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	const ticks = 100 // a second, on Linux
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticks
}

// onSockets measures with three processes.
func (m measured) onSockets(t testing.TB) result {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	far := exec.Command(os.Args[0])
	far.Env = append(os.Environ(), playing+"="+string(text))
	far.Stderr = os.Stderr
	hold, err := far.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := far.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := far.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hold.Close(); _ = far.Wait() }()
	said, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	near := exec.Command(os.Args[0])
	near.Env = append(os.Environ(), reading+"="+string(said))
	near.Stderr = os.Stderr
	building := cpu(far.Process.Pid)
	answer, err := near.Output()
	if err != nil {
		t.Fatal(err)
	}
	var r result
	if err := json.NewDecoder(bytes.NewReader(answer)).Decode(&r); err != nil {
		t.Fatal(err)
	}
	r.CPU = (near.ProcessState.UserTime() + near.ProcessState.SystemTime()).Seconds()
	r.FarCPU = cpu(far.Process.Pid) - building
	return r
}

// script is what somebody writes who wants the same: one call after the other, pages as they come, the SDK's
// own three tries, no document kept. It stops at the first error.
func script(c awsiam.Config, accounts []serval.Account) (r result) {
	ctx := context.Background()
	start := time.Now()
	defer func() { r.Wall = time.Since(start) }()
	for _, a := range accounts {
		client := iam.New(iam.Options{
			Region: "us-west-1", BaseEndpoint: &c.IAMEndpoint, HTTPClient: &http.Client{Transport: &http.Transport{DialContext: c.Dial}},
			Credentials: assumed(c, a),
		})
		if err := scriptAccount(ctx, client, &r); err != nil {
			r.Fault = err.Error()
			return r
		}
	}
	return r
}

func scriptAccount(ctx context.Context, client *iam.Client, r *result) error {
	for pages := iam.NewListRolesPaginator(client, &iam.ListRolesInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, role := range page.Roles {
			one, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: role.RoleName})
			if err != nil {
				return err
			}
			tagged := false
			for _, tag := range one.Role.Tags {
				tagged = tagged || *tag.Key == "serval"
			}
			if !tagged {
				continue
			}
			r.Roles++
			inline, err := client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: role.RoleName})
			if err != nil {
				return err
			}
			for _, name := range inline.PolicyNames {
				if _, err := client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: role.RoleName, PolicyName: &name}); err != nil {
					return err
				}
			}
			attached, err := client.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: role.RoleName})
			if err != nil {
				return err
			}
			for _, p := range attached.AttachedPolicies {
				policy, err := client.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: p.PolicyArn})
				if err != nil {
					return err
				}
				if _, err := client.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: p.PolicyArn, VersionId: policy.Policy.DefaultVersionId}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// TestIngest measures all estates in all ways, and prints the table.
func TestIngest(t *testing.T) {
	if !*ingest {
		t.Skip("it takes minutes: make bench-ingest")
	}
	var table strings.Builder
	table.WriteString("| estate | way | throttle | calls | of floor | refused % | seconds | of floor | of what can be drawn | second time | on sockets | of floor | CPU: reader, AWS | heap MiB | process MiB |\n")
	table.WriteString("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: |\n")
	var cases []measured
	for _, estate := range []string{"one1000", "one5000", "fifty200"} {
		for _, details := range []bool{false, true} {
			for _, throttle := range []string{"", "100/s", "20/s", "per action"} {
				cases = append(cases, measured{estate, details, throttle})
			}
		}
	}
	peak := make(map[measured]float64)
	for _, m := range cases {
		t.Run(fmt.Sprintf("%s/%s/%s", m.Estate, m.way(), cmp.Or(m.Throttle, "none")), func(t *testing.T) {
			calls, least := m.floor()
			rounds := 1
			if m.Details { // so few calls follow one another there that one reading says little
				rounds = 10
			}
			var results []result
			var first, second result // all rounds of each
			for range rounds {
				both := m.inBubbleTime(t)
				results = append(results, both...)
				first.add(both[0])
				second.add(both[1])
			}
			n := time.Duration(rounds)
			ofDrawn := ""
			if m.Details {
				ofDrawn = fmt.Sprintf("%.2f", float64(first.Wall/n)/float64(m.drawn().mean()))
			}
			row := fmt.Sprintf("| %s | %s | %s | %d | %.3f | %.2f | %.2f | %.2f | %s | %.1f s, %.2f %% |", m.Estate, m.way(), cmp.Or(m.Throttle, "none"),
				first.Calls/rounds, float64(first.Calls-first.Throttled)/float64(rounds*calls), first.percent(), (first.Wall / n).Seconds(), float64(first.Wall/n)/float64(least), ofDrawn,
				(second.Wall / n).Seconds(), second.percent())
			if m.Throttle == "" || m.Throttle == "100/s" && m.Estate != "one5000" {
				r := m.onSockets(t)
				results = append(results, r)
				peak[m] = r.Resident
				row += fmt.Sprintf(" %.2f | %.2f | %.1f, %.1f | %.0f | %.0f |", r.Wall.Seconds(), float64(r.Wall)/float64(least), r.CPU, r.FarCPU, r.Heap, r.Resident)
			} else {
				row += " | | | | |"
			}
			t.Log(row)
			table.WriteString(row + "\n")
			tagged := map[string]int{"one1000": 100, "one5000": 500, "fifty200": 1000}[m.Estate]
			for _, r := range results {
				if r.Fault != "" || r.Roles != tagged {
					t.Errorf("%d roles of %d, %s", r.Roles, tagged, r.Fault)
				}
			}
			if first.Calls-first.Throttled != rounds*calls {
				t.Errorf("%d calls without the refused in %d rounds, want %d", first.Calls-first.Throttled, rounds, rounds*calls)
			}
			if second.Throttled != 0 {
				t.Errorf("%d calls refused the second time, want none", second.Throttled)
			}
		})
	}
	for _, throttle := range []string{"", "100/s", "20/s", "per action"} {
		m := measured{"one1000", false, throttle}
		synctest.Test(t, func(t *testing.T) {
			e := newEstateInMemory(t, awstest.Options{})
			accounts := m.build(e)
			r := script(e.config, accounts)
			refused := 0
			for _, c := range e.Calls() {
				if c.Throttled {
					refused++
				}
			}
			_, least := m.floor()
			outcome := r.Fault
			if outcome != "" {
				outcome = fmt.Sprintf("failed after %d of 100 roles", r.Roles)
			}
			fmt.Fprintf(&table, "| one1000 | sequential script | %s | %d | %.3f | %.2f | %.2f | %.2f | | %s | | | | | |\n", cmp.Or(throttle, "none"),
				e.CountCalls(""), float64(e.CountCalls("")-refused)/1594, 100*float64(refused)/float64(e.CountCalls("")), r.Wall.Seconds(), float64(r.Wall)/float64(least), outcome)
			e.Close()
		})
	}
	fmt.Print("\n", table.String(), "\n", inFlightAndRefused(), "\n")
	if peak[measured{"fifty200", true, ""}] == 0 {
		return // only some were measured
	}
	one := peak[measured{"one5000", false, ""}]
	if one = max(one, peak[measured{"one5000", true, ""}]); one > 48 {
		t.Errorf("the peak of five thousand roles is %.0f MiB, want at most 48", one)
	}
	for _, details := range []bool{false, true} {
		all, one := peak[measured{"fifty200", details, ""}], peak[measured{"one5000", details, ""}]
		t.Logf("fifty accounts, details %v: %.0f MiB, %.2f of one of five thousand roles", details, all, all/one)
		if all > 1.3*one {
			t.Errorf("the peak of fifty accounts is %.0f MiB, want at most 1.3 times the %.0f of one of five thousand roles", all, one)
		}
	}
}

// assumed returns credentials of the account's ingestion role.
func assumed(c awsiam.Config, a serval.Account) aws.CredentialsProvider {
	client := sts.New(sts.Options{
		Region: "us-west-1", BaseEndpoint: &c.STSEndpoint, HTTPClient: &http.Client{Transport: &http.Transport{DialContext: c.Dial}}, Credentials: c.Credentials,
	})
	return aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(client, a.RoleARN, func(o *stscreds.AssumeRoleOptions) { o.ExternalID = &a.ExternalID }))
}
