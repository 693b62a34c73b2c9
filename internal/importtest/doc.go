// Package importtest holds the table of who may import whom, as a test. The
// table is what keeps the two daemons apart: the bridge has no IAM client and
// no client-go, the worker nothing that opens a person's session. A room that
// is not in the table fails the test; whoever adds one says there what it needs.
//
// The package has nothing to import.
package importtest
