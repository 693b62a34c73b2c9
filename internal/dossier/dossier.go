// Package dossier is what is kept of a role's policies: each list with what came of
// reading it, and of each document the digest by which it is kept. Roles share most
// of their documents, and whoever lists roles looks into none.
package dossier

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A dossier is the text's JSON form.
type dossier struct {
	Inline   list      `json:"inline"`
	Managed  list      `json:"managed"`
	Boundary *boundary `json:"boundary,omitempty"`
}

type boundary struct {
	Status   serval.ListStatus `json:"status"`
	Action   string            `json:"action,omitempty"`
	Version  string            `json:"version,omitempty"`
	Document string            `json:"document,omitempty"` // digest
}

type list struct {
	Status   serval.ListStatus `json:"status"`
	Action   string            `json:"action,omitempty"`
	Policies []policy          `json:"policies,omitempty"`
}

type policy struct {
	ARN      string `json:"arn,omitempty"`
	Name     string `json:"name"`
	Version  string `json:"version,omitempty"`
	Document string `json:"document,omitempty"` // digest
}

// Of returns the text that is kept of r's policies.
func Of(r serval.Role) (string, error) {
	d := dossier{
		Inline:  list{Status: r.InlinePolicies.Status, Action: r.InlinePolicies.Action},
		Managed: list{Status: r.ManagedPolicies.Status, Action: r.ManagedPolicies.Action},
	}
	for _, p := range r.InlinePolicies.Policies {
		d.Inline.Policies = append(d.Inline.Policies, policy{Name: p.Name, Document: p.Document.Digest()})
	}
	for _, p := range r.ManagedPolicies.Policies {
		d.Managed.Policies = append(d.Managed.Policies, policy{ARN: p.ARN, Name: p.Name, Version: p.Version, Document: p.Document.Digest()})
	}
	if b := r.BoundaryPolicy; b != nil {
		d.Boundary = &boundary{b.Status, b.Action, b.Version, b.Document.Digest()}
	}
	text, err := json.Marshal(d)
	if err != nil {
		return "", fmt.Errorf("encoding policies: %w", err)
	}
	return string(text), nil
}

// Fill gives r the policies that a text says, with each document as find returns it
// for its digest; the digest is empty where the document could not be read.
func Fill(r *serval.Role, text string, find func(digest string) (serval.Document, error)) error {
	var of dossier
	if err := json.Unmarshal([]byte(text), &of); err != nil {
		return fmt.Errorf("reading the policies of %s: %w", r.ARN, err)
	}
	r.InlinePolicies = serval.InlinePolicies{Status: of.Inline.Status, Action: of.Inline.Action, Policies: []serval.InlinePolicy{}}
	for _, p := range of.Inline.Policies {
		d, err := find(p.Document)
		if err != nil {
			return err
		}
		r.InlinePolicies.Policies = append(r.InlinePolicies.Policies, serval.InlinePolicy{Name: p.Name, Document: d})
	}
	r.ManagedPolicies = serval.ManagedPolicies{Status: of.Managed.Status, Action: of.Managed.Action, Policies: []serval.ManagedPolicy{}}
	for _, p := range of.Managed.Policies {
		d, err := find(p.Document)
		if err != nil {
			return err
		}
		r.ManagedPolicies.Policies = append(r.ManagedPolicies.Policies, serval.ManagedPolicy{ARN: p.ARN, Name: p.Name, Version: p.Version, Document: d})
	}
	if b := of.Boundary; b != nil {
		d, err := find(b.Document)
		if err != nil {
			return err
		}
		r.BoundaryPolicy = &serval.BoundaryPolicy{Status: b.Status, Action: b.Action, Version: b.Version, Document: d}
	}
	return nil
}

// Digests returns the digests of the documents that a text refers to: whatever in it
// is quoted and as long as one, so that no kind of policy is forgotten here.
func Digests(text string) (digests []string) {
	for quoted := range strings.SplitSeq(text, `"`) {
		if len(quoted) == 2*sha256.Size {
			digests = append(digests, quoted)
		}
	}
	return digests
}
