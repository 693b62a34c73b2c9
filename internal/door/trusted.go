package door

import (
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// IdentityLasts is how long what a worker said of itself counts.
const IdentityLasts = 24 * time.Hour

// TrustedAccount returns the account that the ingestion role of a has to trust,
// and its partition: that of the last role on the way there, what is set, or the
// one of the workers that may read it, where they say the same. Where it is not
// known the note says why.
func TrustedAccount(v *store.View, a serval.Account, set string, now time.Time) (account, partition, note string, err error) {
	if n := len(a.Via); n > 0 {
		arn, err := serval.ParseRoleARN(a.Via[n-1].RoleARN)
		return arn.AccountID, arn.Partition, "", err
	}
	workers, err := v.Workers(now.Add(-IdentityLasts))
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
	case set != "":
		return set, partition, "", nil
	case len(accounts) == 1:
		return accounts[0], partition, "", nil
	case len(accounts) == 0:
		return "", partition, "The trusted account is not known yet: no worker has said within a day which AWS account it runs in. Start the worker, or set SERVAL_TRUSTED_ACCOUNT.", nil
	default:
		return "", partition, "Workers run in several AWS accounts (" + strings.Join(accounts, ", ") + "). Set SERVAL_TRUSTED_ACCOUNT to the one that ingestion roles are to trust.", nil
	}
}
