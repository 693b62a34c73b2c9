package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Of the accounts only staging lets the worker ask for its OIDC provider.
const provided, unseen = "staging-readonly", "prod-readonly"

// patience is how long the story waits for what a worker is to bring.
const patience = 2 * time.Minute

// looked reports whether a role's verdict takes in the account's OIDC provider.
func looked(r wire.Role) bool {
	return !slices.Contains(r.Trust.NotChecked, "the IAM OIDC provider and its audiences")
}

func (s *story) providers(ctx context.Context) (string, error) {
	roles, err := s.catalogue(ctx)
	if err != nil {
		return "", err
	}
	if in := roles[provided]; !looked(in) || in.Trust.Verdict != "works" {
		return "", fmt.Errorf("%s %s, with %q not checked", provided, in.Trust.Verdict, in.Trust.NotChecked)
	}
	if in := roles[unseen]; looked(in) || in.Trust.Verdict != "works" {
		return "", fmt.Errorf("%s %s, with %q not checked", unseen, in.Trust.Verdict, in.Trust.NotChecked)
	}
	page, err := s.admin.page(ctx, "/accounts/"+stagingAccount)
	if err != nil {
		return "", err
	}
	if !strings.Contains(page, "there, for "+clientID) {
		return "", errors.New("the account's page does not say whom its provider is for")
	}
	return "in staging; in prod it is named as not checked", nil
}

// refused has the staging account read, and waits until its role is refused.
func (s *story) refused(ctx context.Context) (r wire.Role, err error) {
	if err := s.admin.call(ctx, "POST", "/accounts/"+stagingAccount+"/sync", nil, nil); err != nil {
		return r, err
	}
	for asked := time.Now(); time.Since(asked) < patience; {
		roles, err := s.catalogue(ctx)
		if err != nil {
			return r, err
		}
		if r = roles[provided]; r.Trust.Verdict == "fails" {
			return r, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case err := <-s.demo.failed:
			return r, err
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
	return r, fmt.Errorf("after %s %s %s: %s", patience, provided, r.Trust.Verdict, r.Trust.Reason)
}

func (s *story) unprovided(ctx context.Context) (string, error) {
	staging := s.demo.cloud.Account(stagingAccount)
	staging.DeleteOIDCProvider(serval.ProviderARN("aws", stagingAccount, s.demo.issuer))
	refused, err := s.refused(ctx)
	if err != nil {
		return "", err
	}
	page, err := s.requester.page(ctx, "/roles/"+stagingAccount+"/"+provided)
	if err != nil {
		return "", err
	}
	for _, said := range []string{"AWS refuses you in this account", "has no IAM OIDC provider", "aws iam create-open-id-connect-provider"} {
		if !strings.Contains(page, said) {
			return "", fmt.Errorf("the role's page does not say %q", said)
		}
	}
	staging.PutOIDCProvider(s.demo.issuer, clientID)
	return refused.Trust.Reason, nil
}
