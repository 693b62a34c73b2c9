package awsiam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"golang.org/x/sync/errgroup"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Bounds of a reading.
const (
	pageSize  = 1000   // the most IAM gives; the default of 100 is ten times the calls
	mostPages = 10_000 // IAM may give fewer than asked for, but not for ever
)

// Progress is how far a reading is.
type Progress struct {
	AccountID string
	Listed    int  // roles
	AllListed bool // Listed is final
	Read      int  // of the listed roles, looked at
	Tagged    int
}

// Inventory reads the tagged roles of one account. The inventory is complete, or
// says that it is not and why; there is an error only where nothing could be
// read: a *Failure, a *serval.Refusal, or the context's error.
//
// known are the ids of roles that the upstream lists; those seen without the tag
// are in Untagged. issuer, unless empty, is whose OIDC provider is asked for in the
// account. progress, unless nil, is called often and must be quick.
// Reading an account again when nothing changed gives the same bytes but for
// the two times.
func (r *Reader) Inventory(ctx context.Context, a serval.Account, known []string, issuer string, progress func(Progress)) (serval.Inventory, error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, accountDeadline)
	defer cancel()

	started := r.config.Now()
	s, err := r.open(ctx, a)
	if err != nil {
		return serval.Inventory{}, err
	}
	rd := &reading{
		session: s, progress: progress, problems: newProblems(), policies: newPolicies(s),
		known: make(map[string]bool, len(known)), interned: make(map[string]string), details: newDetails(),
		done: Progress{AccountID: a.ID},
	}
	for _, id := range known {
		rd.known[id] = true
	}
	rd.inventory = serval.Inventory{
		AccountID: a.ID, AccountName: a.Name, StartedAt: started, Complete: true, ReadBy: serval.ByRoles,
	}
	rd.gate.pace.Begin()
	err = rd.run(ctx, issuer)
	if outer.Err() != nil {
		return serval.Inventory{}, fmt.Errorf("reading account %s: %w", a.ID, outer.Err())
	}
	if err != nil {
		return serval.Inventory{}, r.failure(StageList, a, err)
	}
	inv := rd.inventory
	inv.Problems = rd.problems.all()
	inv.FinishedAt = r.config.Now()
	inv.Normalize()
	return inv, nil
}

// A reading is one inventory on its way.
type reading struct {
	*session
	progress func(Progress)
	known    map[string]bool
	policies *policies
	problems *problems
	details  *details

	mu        sync.Mutex // guards what follows
	inventory serval.Inventory
	interned  map[string]string
	done      Progress
}

// A listed role is what is kept of a role in ListRoles. All else comes with
// GetRole, and newer; but the details lack the last two.
type listed struct {
	arn, id     string
	description *string
	longest     *int32 // session, in seconds
	created     time.Time
}

// name is the last part of the role's ARN.
func (l listed) name() string { return path.Base(l.arn) }

// packed are listed roles that wait to be looked at one by one, in one piece: the
// lists are the most that readings keep meanwhile.
type packed struct {
	text string // ARN and RoleId of each
	ends []int  // where these end in it
}

func pack(page []listed) packed {
	size := 0
	for _, l := range page {
		size += len(l.arn) + len(l.id)
	}
	var text strings.Builder
	text.Grow(size)
	ends := make([]int, 0, 2*len(page))
	for _, l := range page {
		text.WriteString(l.arn)
		ends = append(ends, text.Len())
		text.WriteString(l.id)
		ends = append(ends, text.Len())
	}
	return packed{text.String(), ends}
}

func (p packed) len() int { return len(p.ends) / 2 }

// role returns one of them, without what GetRole tells better.
func (p packed) role(i int) listed {
	start := 0
	if i > 0 {
		start = p.ends[2*i-1]
	}
	return listed{arn: strings.Clone(p.text[start:p.ends[2*i]]), id: strings.Clone(p.text[p.ends[2*i]:p.ends[2*i+1]])}
}

// run lists the roles, with the details beside them where they can be had, and
// reads what these do not tell while it lists on.
func (rd *reading) run(ctx context.Context, issuer string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var beside sync.WaitGroup
	defer beside.Wait()
	if issuer != "" {
		beside.Go(func() { rd.askProvider(ctx, issuer) })
	}

	pages := make(chan []listed, 16)
	var lister, detailer errgroup.Group
	lister.Go(func() error {
		defer close(pages)
		err := rd.list(ctx, pages)
		if isWrongAccount(err) || err != nil && rd.listed() == 0 {
			cancel(err)
		}
		return err
	})
	detailer.Go(func() error {
		err := rd.readDetails(ctx)
		if isWrongAccount(err) {
			cancel(err)
			return err
		}
		return nil // all else was noted, and is no matter
	})
	readers := rd.reader.newCrew()
	defer readers.leave()
	read := func(f func() error) {
		readers.do(func() error {
			err := f()
			if err != nil {
				cancel(err) // the account itself is wrong
			}
			return err
		})
	}
	var joined []listed
	for page := range pages {
		if rd.details.wanted(ctx) {
			joined = append(joined, page...)
			continue
		}
		waiting := pack(page)
		first := startOf(rd.account.ID, waiting.len())
		for i := range waiting.len() {
			l := waiting.role((first + i) % waiting.len())
			read(func() error { return rd.read(ctx, l) })
		}
	}
	listing, wrong := lister.Wait(), detailer.Wait()
	if wrong == nil && rd.listed() > 0 {
		rd.join(ctx, joined, read)
	}
	err := cmp.Or(readers.wait(), wrong)
	switch {
	case err != nil:
		return err
	case listing == nil:
		return nil
	case isWrongAccount(listing) || rd.listed() == 0:
		return listing
	}
	rd.trouble(listing, listRoles, rd.account.ID)
	return nil
}

// startOf returns which of an account's roles is looked at first, of so many another
// one in each account: accounts that are made alike would want the same of AWS's
// policies at the same moment, and one of them would fetch most.
func startOf(accountID string, roles int) int {
	h := fnv.New32a()
	h.Write([]byte(accountID))
	return int(h.Sum32() % uint32(max(1, roles)))
}

// listed returns how many roles were.
func (rd *reading) listed() int {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	return rd.done.Listed
}

// list sends the roles page by page. It fails where the listing is not known to
// be whole.
func (rd *reading) list(ctx context.Context, pages chan<- []listed) error {
	wrong := func(code, format string, args ...any) error {
		return &callError{action: listRoles, target: rd.account.ID, kind: failed, code: code, message: fmt.Sprintf(format, args...)}
	}
	known := make(map[string]bool) // a role that moves between pages is read once
	used := map[string]bool{"": true}
	marker := ""
	for range mostPages {
		out, err := rd.listRoles(ctx, marker, pageSize)
		if err != nil {
			return err
		}
		page := make([]listed, 0, len(out.Roles))
		for _, role := range out.Roles {
			l := listed{deref(role.Arn), deref(role.RoleId), role.Description, role.MaxSessionDuration, deref(role.CreateDate)}
			if err := rd.ours(l.arn); err != nil {
				return err
			}
			if !known[l.arn] {
				known[l.arn] = true
				page = append(page, l)
			}
		}
		rd.advance(func(p *Progress) { p.Listed += len(page); p.AllListed = !out.IsTruncated })
		select {
		case pages <- page:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !out.IsTruncated {
			return nil
		}
		next := deref(out.Marker)
		switch {
		case next == "":
			return wrong("MissingMarker", "more roles were announced, without the marker to ask for them")
		case used[next]:
			return wrong("RepeatedMarker", "the same marker came twice")
		}
		used[next] = true
		marker = next
	}
	return wrong("TooManyPages", "the listing did not end after %d pages", mostPages)
}

// listRoles asks for one page. An answer without the element Roles is none.
func (s *session) listRoles(ctx context.Context, marker string, size int32) (*iam.ListRolesOutput, error) {
	in := &iam.ListRolesInput{MaxItems: &size}
	if marker != "" {
		in.Marker = &marker
	}
	return ask(ctx, &s.line, listRoles, s.account.ID, func(ctx context.Context) (*iam.ListRolesOutput, error) {
		out, err := s.iam.ListRoles(ctx, in, s.page)
		if err == nil && out.Roles == nil {
			return nil, errEmpty
		}
		return out, err
	})
}

// ours refuses what is not of the account: then nothing of the reading can be
// trusted.
func (s *session) ours(arn string) error {
	partition, account, err := splitARN(arn)
	if err == nil && partition == s.account.Partition && account == s.account.ID {
		return nil
	}
	return &callError{action: listRoles, target: s.account.ID, kind: failed, code: codeWrongAccount,
		message: fmt.Sprintf("%q is not a role of account %s", clip(arn, 200), s.account.ID)}
}

// advance changes the progress and reports it.
func (rd *reading) advance(f func(*Progress)) {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	f(&rd.done)
	if rd.progress != nil {
		rd.progress(rd.done)
	}
}

// trouble notes what went wrong in the listing or with a whole role. The
// inventory is not complete any more.
func (rd *reading) trouble(err error, action, target string) *callError {
	e := asCallError(err, action, target)
	rd.problems.add(e, target)
	rd.mu.Lock()
	defer rd.mu.Unlock()
	rd.inventory.Complete = false
	return e
}

// asCallError names what ended a reading from without, too.
func asCallError(err error, action, target string) *callError {
	if e, ok := errors.AsType[*callError](err); ok {
		return e
	}
	e := &callError{action: action, target: target, kind: failed, code: codeCanceled, cause: err}
	if errors.Is(err, context.DeadlineExceeded) {
		e.code, e.message = codeTimeout, fmt.Sprintf("the account was not read in %d minutes", int(accountDeadline.Minutes()))
	}
	return e
}

// How many problems an inventory names: of one action with one code, and in all.
const (
	mostAlike    = 20
	mostProblems = 200
)

// problems collects what went wrong, the same things in the same order however
// the calls raced.
type problems struct {
	mu    sync.Mutex
	alike map[[2]string]map[string]string // by action and code: message by target
}

func newProblems() *problems {
	return &problems{alike: make(map[[2]string]map[string]string)}
}

func (p *problems) add(e *callError, target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := [2]string{e.action, e.code}
	if p.alike[key] == nil {
		p.alike[key] = make(map[string]string)
	}
	if old, ok := p.alike[key][target]; !ok || e.message < old {
		p.alike[key][target] = e.message
	}
}

// all returns the problems, and for those left out how many they are.
func (p *problems) all() []serval.Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	var keys [][2]string
	for key := range p.alike {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	var out []serval.Problem
	left := 0
	for _, key := range keys {
		var targets []string
		for target := range p.alike[key] {
			targets = append(targets, target)
		}
		slices.Sort(targets)
		for i, target := range targets {
			if i == mostAlike && len(out) < mostProblems {
				out = append(out, serval.Problem{Action: key[0], Code: key[1],
					Message: fmt.Sprintf("and %d more targets", len(targets)-i)})
				break
			}
			if len(out) >= mostProblems-1 {
				left += len(targets) - i
				break
			}
			out = append(out, serval.Problem{Action: key[0], Target: target, Code: key[1], Message: p.alike[key][target]})
		}
	}
	if left > 0 {
		out = append(out, serval.Problem{Action: "various", Code: "More", Message: fmt.Sprintf("and %d more problems", left)})
	}
	return out
}
