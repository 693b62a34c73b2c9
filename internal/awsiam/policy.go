package awsiam

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A version is the default version of a managed policy, with its document.
type version struct {
	id       string
	document serval.Document
}

// policies are the managed policies of one reading: each is read once, however
// many roles it is attached to. A customer's policy is not kept longer: deleted
// and made again, it has the same ARN and a version v1 that is another.
type policies struct {
	session *session

	mu   sync.Mutex
	once map[string]*once // by ARN
}

type once struct {
	done    chan struct{} // closed when what follows is set
	version version
	err     error
}

func newPolicies(s *session) *policies {
	return &policies{session: s, once: make(map[string]*once)}
}

// get returns the policy's default version. Its error is the same for all who
// ask in one reading.
func (p *policies) get(ctx context.Context, arn string) (version, error) {
	p.mu.Lock()
	o := p.once[arn]
	first := o == nil
	if first {
		o = &once{done: make(chan struct{})}
		p.once[arn] = o
	}
	p.mu.Unlock()
	if first {
		defer close(o.done)
		if isAWSManaged(arn) {
			o.version, o.err = p.session.reader.shared.get(ctx, p.session, arn)
		} else {
			o.version, o.err = p.session.policy(ctx, arn, nil)
		}
		return o.version, o.err
	}
	select {
	case <-o.done:
		return o.version, o.err
	case <-ctx.Done():
		return version{}, ctx.Err()
	}
}

// put takes over a policy that was seen with its document, unless it was asked
// for already.
func (p *policies) put(arn string, v version) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.once[arn] == nil {
		o := &once{done: make(chan struct{}), version: v}
		close(o.done)
		p.once[arn] = o
	}
}

// isAWSManaged reports whether a policy is one of AWS's own, the same in every
// account of the partition.
func isAWSManaged(arn string) bool {
	f := strings.SplitN(arn, ":", 6)
	return len(f) == 6 && f[4] == "aws"
}

// A library keeps AWS's own policies for all accounts. Which version is the
// default one is asked again after an hour; a version's document never changes.
// There are some thirteen hundred of them, so nothing is ever thrown away.
type library struct {
	mu    sync.Mutex
	books map[string]*book // by ARN
}

const defaultFor = time.Hour

type book struct {
	lock    chan struct{} // a mutex that a context can leave; guards what follows
	version version
	asked   time.Time
}

func newLibrary() *library { return &library{books: make(map[string]*book)} }

// get returns the policy's default version, asking as the session where that is
// needed. Readings of several accounts wait for one another; a failure is that
// of the one account, and the next tries for itself.
func (l *library) get(ctx context.Context, s *session, arn string) (version, error) {
	l.mu.Lock()
	b := l.books[arn]
	if b == nil {
		b = &book{lock: make(chan struct{}, 1)}
		l.books[arn] = b
	}
	l.mu.Unlock()
	select {
	case b.lock <- struct{}{}:
	case <-ctx.Done():
		return version{}, ctx.Err()
	}
	defer func() { <-b.lock }()
	if b.version.id != "" && time.Since(b.asked) < defaultFor {
		return b.version, nil
	}
	v, err := s.policy(ctx, arn, &b.version)
	if err != nil {
		return v, err
	}
	b.version, b.asked = v, time.Now()
	return v, nil
}

// busy reports whether a reading is at the policy now.
func (l *library) busy(arn string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[arn]
	return b != nil && len(b.lock) > 0
}

// policy reads the default version of a managed policy; old, unless nil, is a
// version whose document is known. Where the default changes between the two
// calls, both are made once more. With an error comes what is known.
func (s *session) policy(ctx context.Context, arn string, old *version) (version, error) {
	for again := false; ; again = true {
		id, err := ask(ctx, &s.line, getPolicy, arn, func(ctx context.Context) (string, error) {
			out, err := s.iam.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: &arn})
			switch {
			case err != nil:
				return "", err
			case out.Policy == nil || deref(out.Policy.DefaultVersionId) == "":
				return "", errEmpty
			}
			return *out.Policy.DefaultVersionId, nil
		})
		if err != nil {
			return version{}, err
		}
		if old != nil && old.id == id {
			return *old, nil
		}
		v, err := ask(ctx, &s.line, getPolicyVersion, arn, func(ctx context.Context) (*types.PolicyVersion, error) {
			out, err := s.iam.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: &id})
			switch {
			case err != nil:
				return nil, err
			case out.PolicyVersion == nil || deref(out.PolicyVersion.Document) == "":
				return nil, errEmpty
			}
			return out.PolicyVersion, nil
		})
		switch {
		case err == nil && v.IsDefaultVersion:
			return version{id, document(*v.Document)}, nil
		case err == nil && again:
			return version{id: id}, &callError{action: getPolicyVersion, target: arn, kind: failed, code: "VersionChanged",
				message: "the default version changed while it was read, twice"}
		case err != nil && (again || asCallError(err, getPolicyVersion, arn).kind != gone):
			return version{id: id}, err
		}
	}
}
