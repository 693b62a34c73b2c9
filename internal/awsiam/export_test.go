package awsiam

import (
	"context"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Connect is the first half of Check.
func (r *Reader) Connect(ctx context.Context, a serval.Account) error {
	_, err := r.connect(ctx, a)
	return err
}

// CrowdedPercent is crowdedPercent.
const CrowdedPercent = crowdedPercent

// Thrift is thrift.
type Thrift struct{ thrift thrift }

// Add is thrift.add.
func (t *Thrift) Add(n, many int) { t.thrift.add(n, many) }

// StartOf is startOf.
var StartOf = startOf
