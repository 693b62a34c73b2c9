// Package trust answers, from a role's trust policy alone, what AWS would say
// to an attempt to assume the role, and who could assume it without the bridge.
//
// A Policy is a trust policy, read. A Context is what is known of one attempt.
// Judge puts the two together in three-valued logic: a value that is not known
// makes what depends on it unknown, and an unknown Deny or Allow makes the
// verdict "unknown", so that "works" and "fails" are said only where AWS's
// documentation decides. A verdict of "fails" comes with the smallest mended
// policy that works, where there is one that lets nobody else in. Findings are
// about the policy itself, whoever asks.
//
// The rules are those of the IAM User Guide; comments name its pages. Where two
// pages disagree, or none speaks, the answer is unknown.
//
// The package is pure: no I/O, no clock, no log. Work is bounded, whatever the
// policy: patterns share one budget per judgement, and what exceeds it is
// unknown.
package trust
