package lease

import (
	"cmp"
	"context"

	apiv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// Try reads the Lease, and has the API server say whether it may be made and
// written, as Lead does, without doing either. It returns who holds it; empty for
// nobody. The error is in the words of a State's.
func Try(ctx context.Context, c Config) (holder string, err error) {
	c.RenewDeadline = cmp.Or(c.RenewDeadline, DefaultRenewDeadline)
	client, err := coordination.NewForConfig(c.rest())
	if err != nil {
		return "", c.unusable(err)
	}
	leases := client.Leases(c.Namespace)
	found, err := leases.Get(ctx, c.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		found = nil
	case err != nil:
		return "", c.explain("get", err)
	case found.Spec.HolderIdentity != nil:
		holder = *found.Spec.HolderIdentity
	}
	// Whether somebody may is asked first: one that is there already, is not there
	// or was written meanwhile was refused to one who may.
	made := apiv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name}}
	dry := []string{metav1.DryRunAll}
	if _, err := leases.Create(ctx, &made, metav1.CreateOptions{DryRun: dry}); err != nil && !apierrors.IsAlreadyExists(err) {
		return holder, c.explain("create", err)
	}
	if found == nil {
		found = &made
	}
	if _, err := leases.Update(ctx, found, metav1.UpdateOptions{DryRun: dry}); err != nil &&
		!apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && !apierrors.IsInvalid(err) {
		return holder, c.explain("update", err)
	}
	return holder, nil
}
