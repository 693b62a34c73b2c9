package control

import (
	"context"

	"github.com/serval-bridge/serval-bridge/internal/connect"
	"github.com/serval-bridge/serval-bridge/internal/door"
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
	trusted, partition, note, err := door.TrustedAccount(v, a, p.settings.TrustedAccount, p.now())
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
