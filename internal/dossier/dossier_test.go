package dossier

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// What is kept of a role's policies gives them back, with every document that it
// refers to.
func TestDossier(t *testing.T) {
	r := serval.Role{
		InlinePolicies: serval.InlinePolicies{Status: serval.ListRead, Policies: []serval.InlinePolicy{{Name: "a", Document: `{"a":1}`}, {Name: "b", Document: `{"b":1}`}}},
		ManagedPolicies: serval.ManagedPolicies{Status: serval.ListDenied, Action: "iam:GetPolicyVersion", Policies: []serval.ManagedPolicy{
			{ARN: "arn:aws:iam::aws:policy/c", Name: "c", Version: "v3", Document: `{"c":1}`}, {ARN: "arn:aws:iam::aws:policy/d", Name: "d"}}},
		BoundaryPolicy: &serval.BoundaryPolicy{Status: serval.ListRead, Action: "x", Version: "v2", Document: `{"e":1}`},
	}
	documents := map[string]serval.Document{"": ""}
	for _, d := range r.Documents() {
		documents[d.Digest()] = d
	}
	text, err := Of(r)
	if err != nil {
		t.Fatal(err)
	}
	var got serval.Role
	if err := Fill(&got, text, func(digest string) (serval.Document, error) { return documents[digest], nil }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, got); d != "" {
		t.Errorf("given back (-want +got):\n%s", d)
	}
	if n := len(Digests(text)); n != 4 {
		t.Errorf("it refers to %d documents, want the 4 that were read", n)
	}
	for _, digest := range Digests(text) {
		if documents[digest] == "" {
			t.Errorf("it refers to %s, which is no document of the role", digest)
		}
		gone := errors.New("gone")
		err := Fill(&got, text, func(d string) (serval.Document, error) {
			if d == digest {
				return "", gone
			}
			return documents[d], nil
		})
		if !errors.Is(err, gone) {
			t.Errorf("without a document: %v, want %v", err, gone)
		}
	}
	if err := Fill(&got, "no JSON", nil); err == nil || !strings.Contains(err.Error(), "reading the policies of ") {
		t.Errorf("a text that is none: %v", err)
	}
}

// A role without policies says so; it is not the same as one whose policies could
// not be read.
func TestEmptyDossier(t *testing.T) {
	text, err := Of(serval.Role{InlinePolicies: serval.InlinePolicies{Status: serval.ListRead}, ManagedPolicies: serval.ManagedPolicies{Status: serval.ListRead}})
	if err != nil || !json.Valid([]byte(text)) {
		t.Fatalf("%q, %v", text, err)
	}
	var r serval.Role
	if err := Fill(&r, text, nil); err != nil {
		t.Fatal(err)
	}
	want := serval.Role{
		InlinePolicies:  serval.InlinePolicies{Status: serval.ListRead, Policies: []serval.InlinePolicy{}},
		ManagedPolicies: serval.ManagedPolicies{Status: serval.ListRead, Policies: []serval.ManagedPolicy{}},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("given back %+v, want %+v", r, want)
	}
}
