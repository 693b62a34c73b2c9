package control

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/connect"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// Connect is what an admin pastes into AWS so that the worker gets into an
// account, with the real values in it.
type Connect struct {
	TrustedAccount string // empty while it is not known
	Note           string // why it is not known; empty where it is
	ExternalID     string
	RoleName       string

	// The policies of the ingestion role, and the whole role for Terraform and as a
	// template for CloudFormation. Whatever names the trusted account is empty
	// while that is not known: half a text would be pasted.
	TrustPolicy, PermissionPolicy, Terraform, CloudFormation string
}

// Connecting returns what connects an account that is not connected yet: an admin
// makes the role with it, and knows the role's ARN then.
func (p *Plane) Connecting(ctx context.Context, who serval.Principal) (c Connect, err error) {
	err = p.view(ctx, who, serval.AccountRead, "", func(v *store.View) error {
		c, err = p.connect(v, serval.Account{ExternalID: p.settings.ExternalID})
		return err
	})
	return c, err
}

// connect returns what lets the worker into a; where a has no id, into any.
func (p *Plane) connect(v *store.View, a serval.Account) (Connect, error) {
	trusted, partition, note, err := p.trusted(v, a)
	if err != nil {
		return Connect{}, err
	}
	role := connect.Role{
		Partition: a.Partition, TrustedAccount: trusted, ExternalID: a.ExternalID, Name: connect.DefaultRole, Path: "/",
		AccountID: a.ID, AccountName: a.Name,
	}
	if role.Partition == "" {
		role.Partition = partition
	}
	if arn, err := serval.ParseRoleARN(a.RoleARN); err == nil {
		role.Name, role.Path = arn.Name, arn.Path
	}
	c := Connect{
		TrustedAccount: trusted, Note: note, ExternalID: a.ExternalID, RoleName: role.Name, PermissionPolicy: connect.PermissionPolicy(),
	}
	if trusted != "" {
		c.TrustPolicy = connect.TrustPolicy(role.Partition, trusted, a.ExternalID)
		c.Terraform, c.CloudFormation = connect.Terraform(role), connect.CloudFormation(role)
	}
	return c, nil
}

// identityLasts is how long what a worker said of itself counts.
const identityLasts = 24 * time.Hour

// trusted returns the account that the ingestion role of a has to trust, and its
// partition: that of the last role on the way there, what the setting says, or
// the one of the workers that may read it, where they say the same.
func (p *Plane) trusted(v *store.View, a serval.Account) (account, partition, note string, err error) {
	if n := len(a.Via); n > 0 {
		arn, err := serval.ParseRoleARN(a.Via[n-1].RoleARN)
		return arn.AccountID, arn.Partition, "", err
	}
	workers, err := v.Workers(p.now().Add(-identityLasts))
	if err != nil {
		return "", "", "", err
	}
	var accounts []string
	partition = serval.PartitionAWS
	for _, w := range workers {
		if a.ID != "" && w.Bound != nil && !slices.Contains(w.Bound, a.ID) {
			continue
		}
		partition = w.Partition
		if !slices.Contains(accounts, w.AccountID) {
			accounts = append(accounts, w.AccountID)
		}
	}
	switch {
	case p.settings.TrustedAccount != "":
		return p.settings.TrustedAccount, partition, "", nil
	case len(accounts) == 1:
		return accounts[0], partition, "", nil
	case len(accounts) == 0:
		return "", partition, "The trusted account is not known yet: no worker has said within a day which AWS account it runs in. Start the worker, or set SERVAL_TRUSTED_ACCOUNT.", nil
	default:
		return "", partition, "Workers run in several AWS accounts (" + strings.Join(accounts, ", ") + "). Set SERVAL_TRUSTED_ACCOUNT to the one that ingestion roles are to trust.", nil
	}
}
