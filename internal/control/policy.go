package control

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/roster"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// MaxPolicies is how many access policies may be made over the API. Each is
// looked at for each role that somebody sees.
const MaxPolicies = 2000

// The priorities that may be given over the API, and the one where none is.
const (
	MaxPriority     = 1_000_000
	DefaultPriority = 100
)

// policyName is what a policy made over the API may be called: its name is part
// of addresses.
var policyName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9 ._-]{0,98}[A-Za-z0-9_-])?$`)

// inForce returns the access policies in force in v, in the order in which they
// are tried; the caller changes nothing of them. They are kept with their version
// and read again only when that is another: so each replica decides by what is
// in force in the very transaction in which it decides, whichever of them changed
// it.
func (p *Plane) inForce(v *store.View) (*roster.Policies, error) {
	version, err := v.PolicyVersion()
	if err != nil {
		return nil, err
	}
	if kept := p.policies.Load(); kept != nil && kept.Version == version {
		return kept, nil
	}
	known, err := v.Policies()
	if err != nil {
		return nil, err
	}
	read := &roster.Policies{Version: version, List: make([]serval.AccessPolicy, len(known))}
	for i, k := range known {
		read.List[i] = k.AccessPolicy
	}
	p.policies.Store(read)
	return read, nil
}

// declarePolicies makes the policies of the configuration file those that are
// kept as the file's, and records it where that changes anything. A policy made
// over the API whose name the file uses is the file's from then on.
func declarePolicies(tx *store.Tx, who serval.Principal, declared []serval.AccessPolicy) error {
	known, err := tx.Policies()
	if err != nil {
		return err
	}
	before := make(map[string]store.Policy, len(known))
	for _, k := range known {
		before[k.Name] = k
	}
	e := door.Event(who, serval.PolicyDeclare, "", serval.OutcomeDone)
	e.Detail = map[string]string{}
	changed := false
	for i, policy := range declared {
		was, there := before[policy.Name]
		delete(before, policy.Name)
		digest := policy.Digest()
		e.Detail[fmt.Sprintf("%03d %s", i+1, policy.Name)] = digest
		switch {
		case there && was.Source == store.SourceFile && was.Priority == i && was.Digest == digest:
			continue
		case there && was.Source == store.SourceAPI:
			e.Detail["taken over "+policy.Name] = was.Digest
		case there && was.Digest != digest:
			e.Detail["was "+policy.Name] = was.Digest
		}
		changed = true
		if err := tx.SavePolicy(store.Policy{AccessPolicy: policy, Source: store.SourceFile, Priority: i}); err != nil {
			return err
		}
	}
	for name, was := range before {
		if was.Source != store.SourceFile {
			continue
		}
		changed = true
		e.Detail["gone "+name] = was.Digest
		if err := tx.DropPolicy(name); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	return tx.Append(e)
}

// A Policy is an access policy with where it is from and when it is tried.
type Policy = store.Policy

// A PolicyFilter chooses a page of the access policies.
type PolicyFilter struct {
	After string // the name of a policy: those that are tried after it
	Limit int
}

// Policies returns the access policies in the order in which they are tried, and
// whether there are more.
func (p *Plane) Policies(ctx context.Context, who serval.Principal, f PolicyFilter) (list []Policy, more bool, err error) {
	err = p.view(ctx, who, serval.PolicyRead, "", func(v *store.View) error {
		if list, err = v.Policies(); err != nil || f.After == "" {
			return err
		}
		i := slices.IndexFunc(list, func(k store.Policy) bool { return k.Name == f.After })
		if i < 0 {
			return door.NoPage()
		}
		list = list[i+1:]
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	if len(list) > f.Limit {
		return list[:f.Limit], true, nil
	}
	return list, false, nil
}

// CreatePolicy puts an access policy into force, on every replica with the next
// thing that any of them decides.
func (p *Plane) CreatePolicy(ctx context.Context, who serval.Principal, policy serval.AccessPolicy, priority int) (made Policy, err error) {
	err = p.act(ctx, who, serval.PolicyCreate, policyTarget(policy.Name), func(tx *store.Tx, e *serval.Event) error {
		faults := policyFaults(policy, priority)
		if !policyName.MatchString(policy.Name) {
			faults = append(faults, "name: 1 to 100 of the characters A-Z a-z 0-9 space . _ -, beginning with a letter or digit, and not ending with a space or dot.")
		}
		if len(faults) > 0 {
			return faulty("This access policy cannot be taken", faults)
		}
		known, err := tx.Policies()
		if err != nil {
			return err
		}
		var n int
		for _, k := range known {
			if k.Source == store.SourceAPI {
				n++
			}
			if k.Name == policy.Name && k.Source == store.SourceFile {
				return serval.Refuse(serval.Conflict, "The configuration file%s declares an access policy of this name. Choose another.", p.file())
			}
			if k.Name == policy.Name {
				return serval.Refuse(serval.Conflict, "There is an access policy of this name. Choose another, or change that one.")
			}
		}
		if n >= MaxPolicies {
			return serval.Refuse(serval.FailedPrecondition, "There are %d access policies, and no more are taken. Delete some, or let one say what several say.", n)
		}
		made, err = p.savePolicy(tx, e, policy, priority)
		return err
	})
	if err != nil {
		return Policy{}, err
	}
	return made, nil
}

// ChangePolicy replaces the access policy with the name by policy, which has the
// same name or none. Where priority is nil it keeps its own.
func (p *Plane) ChangePolicy(ctx context.Context, who serval.Principal, name string, policy serval.AccessPolicy, priority *int) (made Policy, err error) {
	err = p.act(ctx, who, serval.PolicyChange, policyTarget(name), func(tx *store.Tx, e *serval.Event) error {
		was, err := p.ownPolicy(tx, name)
		if err != nil {
			return err
		}
		next, place := policy, was.Priority
		if priority != nil {
			place = *priority
		}
		if next.Name == "" {
			next.Name = name
		}
		faults := policyFaults(next, place)
		if next.Name != name {
			faults = append(faults, "name: a policy keeps its name. Make another and delete this one.")
		}
		if len(faults) > 0 {
			return faulty("This access policy cannot be taken", faults)
		}
		e.Detail = map[string]string{"old_digest": was.Digest, "old_priority": fmt.Sprint(was.Priority)}
		made, err = p.savePolicy(tx, e, next, place)
		return err
	})
	if err != nil {
		return Policy{}, err
	}
	return made, nil
}

// PlacePolicy gives the access policy with the name another priority. What it says
// stays what it is now, whatever whoever places it has seen of it.
func (p *Plane) PlacePolicy(ctx context.Context, who serval.Principal, name string, priority int) error {
	return p.act(ctx, who, serval.PolicyChange, policyTarget(name), func(tx *store.Tx, e *serval.Event) error {
		was, err := p.ownPolicy(tx, name)
		if err != nil {
			return err
		}
		if faults := policyFaults(was.AccessPolicy, priority); len(faults) > 0 {
			return faulty("This access policy cannot be moved so", faults)
		}
		e.Detail = map[string]string{"old_digest": was.Digest, "old_priority": fmt.Sprint(was.Priority)}
		_, err = p.savePolicy(tx, e, was.AccessPolicy, priority)
		return err
	})
}

// DeletePolicy takes an access policy out of force. What was approved under it
// can be used again when another policy fits.
func (p *Plane) DeletePolicy(ctx context.Context, who serval.Principal, name string) error {
	return p.act(ctx, who, serval.PolicyDelete, policyTarget(name), func(tx *store.Tx, e *serval.Event) error {
		was, err := p.ownPolicy(tx, name)
		if err != nil {
			return err
		}
		e.Detail = map[string]string{"old_digest": was.Digest, "old_priority": fmt.Sprint(was.Priority)}
		return tx.DropPolicy(name)
	})
}

// ownPolicy returns the policy with the name, if it may be changed here.
func (p *Plane) ownPolicy(tx *store.Tx, name string) (store.Policy, error) {
	was, err := tx.Policy(name)
	if err == nil && was.Source == store.SourceFile {
		err = serval.Refuse(serval.FailedPrecondition, "The access policy %s is declared in the configuration file%s. Change it there.", name, p.file())
	}
	return was, err
}

func (p *Plane) savePolicy(tx *store.Tx, e *serval.Event, policy serval.AccessPolicy, priority int) (store.Policy, error) {
	if err := tx.SavePolicy(store.Policy{AccessPolicy: policy, Source: store.SourceAPI, Priority: priority}); err != nil {
		return store.Policy{}, err
	}
	if e.Detail == nil {
		e.Detail = map[string]string{}
	}
	e.Detail["digest"], e.Detail["priority"] = policy.Digest(), fmt.Sprint(priority)
	return tx.Policy(policy.Name)
}

func policyFaults(policy serval.AccessPolicy, priority int) []string {
	faults := policy.Faults()
	if priority < 0 || priority > MaxPriority {
		faults = append(faults, fmt.Sprintf("priority: from 0, which is tried first, to %d.", MaxPriority))
	}
	return faults
}

// policyTarget is what an event calls a policy, apart from everything else that
// has a name.
func policyTarget(name string) string { return "access-policy/" + serval.Cut(name, 200) }

// file names the configuration file within a sentence.
func (p *Plane) file() string {
	if p.settings.File == "" {
		return ""
	}
	return " " + p.settings.File
}

// maxFaults is how many faults a refusal names: its event keeps them.
const maxFaults = 50

// faulty refuses what somebody filled in, with every fault by its field in the
// detail. A fault is "field: sentence".
func faulty(what string, faults []string) error {
	detail := map[string]string{}
	for i, text := range faults {
		if i == maxFaults {
			detail["more"] = fmt.Sprintf("%d further faults", len(faults)-i)
			break
		}
		field, sentence, _ := strings.Cut(text, ": ")
		if detail[field] != "" {
			sentence = detail[field] + " " + sentence
		}
		detail[field] = sentence
	}
	reason := what + ". " + faults[0]
	if n := len(faults) - 1; n > 0 {
		reason += fmt.Sprintf(" And %d more; see the detail.", n)
	}
	return &serval.Refusal{Kind: serval.Invalid, Reason: reason, Detail: detail}
}
