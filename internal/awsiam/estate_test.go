package awsiam_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const (
	hub      = "111122223333"
	spoke    = "444455556666"
	external = "external-id-of-the-team"
)

// An estate is a cloud with a worker in the hub, and accounts it may read.
type estate struct {
	*awstest.Cloud
	config awsiam.Config
}

// newEstate returns an estate that is reached over loopback.
func newEstate(t testing.TB) *estate {
	e := emptyEstate(awstest.Options{})
	url := e.Start(t)
	e.config.STSEndpoint, e.config.IAMEndpoint = url, url
	return e
}

// newEstateInMemory returns one that is reached without sockets, so that time in a bubble passes at once.
func newEstateInMemory(t testing.TB, o awstest.Options) *estate {
	e := emptyEstate(o)
	e.config.STSEndpoint, e.config.IAMEndpoint = "http://127.0.0.1:1", "http://127.0.0.1:1"
	e.config.Dial = e.Dialer()
	t.Cleanup(e.Close)
	return e
}

func emptyEstate(o awstest.Options) *estate {
	e := &estate{Cloud: awstest.New(o)}
	a := e.AddAccount(hub, "hub")
	a.PutRole(awstest.Role{Name: "worker", Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")}})
	now := time.Now()
	if o.Now != nil {
		now = o.Now()
	}
	k := a.PodIdentity("worker", now)
	e.config.Credentials = staticKeys(k)
	return e
}

func staticKeys(k awstest.Keys) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(k.AccessKeyID, k.SecretAccessKey, k.SessionToken)
}

func allow(actions ...string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}]}`
}

func trust(account, externalID string, actions ...string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:root"},"Action":["%s"],"Condition":{"StringEquals":{"sts:ExternalId":%q}}}]}`,
		account, strings.Join(actions, `","`), externalID)
}

// connect adds an account with an ingestion role that has exactly the seven actions.
func (e *estate) connect(id string) (*awstest.Account, serval.Account) {
	a := e.AddAccount(id, "account "+id)
	a.PutRole(awstest.Role{
		Name: "serval-ingest", Trust: trust(hub, external, "sts:AssumeRole", "sts:TagSession"),
		Inline: map[string]string{"read": allow(serval.IngestionActions()...)},
	})
	return a, serval.Account{
		ID: id, Name: "account " + id, Partition: "aws", ExternalID: external, RoleARN: "arn:aws:iam::" + id + ":role/serval-ingest",
	}
}

// reader returns a Reader of the estate.
func (e *estate) reader(t testing.TB) *awsiam.Reader {
	t.Helper()
	r, err := awsiam.New(context.Background(), e.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func (e *estate) inventory(t testing.TB, a serval.Account, known ...string) serval.Inventory {
	t.Helper()
	inv, err := e.reader(t).Inventory(t.Context(), a, known, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// A shape is how many of what an account has.
type shape struct {
	roles, tagged, inline, attached int
	aws, local                      int // pools of managed policies
	padding                         int // characters in each document
	first                           int // in the pool
}

// one1000 is the account of the project's measurements.
var one1000 = shape{roles: 1000, tagged: 100, inline: 2, attached: 3, aws: 57, local: 39}

// one5000 and fifty200 are its others.
var (
	one5000  = shape{roles: 5000, tagged: 500, inline: 2, attached: 3, aws: 60, local: 208}
	fifty200 = shape{roles: 200, tagged: 20, inline: 2, attached: 3, aws: 60, local: 8}
)

// fifty fills the fifty accounts of the measurements, of which all policies of AWS's occur in several.
func fifty(e *estate, withDetails bool) []serval.Account {
	var all []serval.Account
	for i := range 50 {
		owner, a := e.connect(fmt.Sprintf("4444%08d", i))
		s := fifty200
		s.first = i
		if i < 9 {
			s.local = 0 // so that it is the estate of the measurements, call by call
		}
		s.fill(e, owner)
		if withDetails {
			allowDetails(owner)
		}
		all = append(all, a)
	}
	return all
}

// readAll reads the accounts at once, and each must be complete.
func readAll(t testing.TB, r *awsiam.Reader, accounts []serval.Account) {
	t.Helper()
	var g errgroup.Group
	for _, a := range accounts {
		g.Go(func() error {
			inv, err := r.Inventory(context.Background(), a, nil, "", nil)
			if err == nil && (!inv.Complete || len(inv.Problems) != 0) {
				err = fmt.Errorf("account %s: complete %v, problems %v", a.ID, inv.Complete, inv.Problems)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// fill puts roles into the account; its ingestion role is one of them. It returns the number of calls that
// a clean reading makes: AssumeRole + P + N + 2T + I + 2D.
func (s shape) fill(e *estate, a *awstest.Account) int {
	pad := strings.Repeat(" ", s.padding)
	doc := func(sid string) string {
		return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":%q,"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::%s/*"}]}%s`, sid, sid, pad)
	}
	var pool []string
	for i := range s.aws {
		pool = append(pool, e.PutAWSPolicy(fmt.Sprintf("Made%03d", i), doc(fmt.Sprintf("aws%d", i))))
	}
	for i := range s.local {
		pool = append(pool, a.PutPolicy(awstest.Policy{Name: fmt.Sprintf("local%03d", i), Document: doc(fmt.Sprintf("local%d", i))}))
	}
	used := make(map[string]bool)
	next, tagged := s.first, 0
	for i := range s.roles - 1 {
		r := awstest.Role{Name: fmt.Sprintf("role%05d", i), Description: "made", Tags: map[string]string{"team": "x"}}
		if i*s.tagged/(s.roles-1) != (i+1)*s.tagged/(s.roles-1) {
			tagged++
			r.Tags["serval"] = ""
			r.Inline = make(map[string]string)
			for n := range s.inline {
				r.Inline[fmt.Sprintf("inline%d", n)] = doc(fmt.Sprintf("r%dp%d", i, n))
			}
			for range s.attached {
				r.Attached = append(r.Attached, pool[next%len(pool)])
				used[pool[next%len(pool)]] = true
				next++
			}
		}
		a.PutRole(r)
	}
	pages := int(math.Ceil(float64(s.roles) / 1000))
	return 1 + pages + s.roles + 2*tagged + tagged*s.inline + 2*len(used)
}

// names of the roles of an inventory.
func names(inv serval.Inventory) []string {
	var out []string
	for _, r := range inv.Roles {
		out = append(out, r.Name)
	}
	return out
}

// role returns one role of the inventory.
func role(t testing.TB, inv serval.Inventory, name string) serval.Role {
	t.Helper()
	i := slices.IndexFunc(inv.Roles, func(r serval.Role) bool { return r.Name == name })
	if i < 0 {
		t.Fatalf("the inventory has %v, not %s", names(inv), name)
	}
	return inv.Roles[i]
}

// dials counts connections of a dialer.
func dials(n *atomic.Int64, dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		n.Add(1)
		return dial(ctx, network, address)
	}
}

// asText is for comparing inventories byte by byte.
func asText(t testing.TB, inv serval.Inventory) string {
	t.Helper()
	inv.StartedAt, inv.FinishedAt = time.Time{}, time.Time{}
	return string(mustJSON(t, inv))
}
