// Package insight says, from a role's permission documents alone, what the role
// can do, and what changed between two states of it.
//
// A Reference is AWS's list of services, actions, access levels and resource
// types, embedded. Powers are what a role's statements come to under it: allows,
// denies, and a permissions boundary where its document is known. A Card is the
// powers as somebody reads them who has to approve: services by level, marks for
// what is dangerous with the statement that causes each, and the facts that
// matter most in plain words. An Index is the powers of a role in a few bytes, to
// search thousands of them. A Change is what differs between two states of a
// role, by meaning: actions gained and lost, statements, trust, tags, boundary.
//
// Two questions are kept apart. What is allowed everywhere is said only where a
// statement allows it on every resource, under no condition, and nothing denies
// it. What may be allowed somewhere is said wherever it cannot be ruled out:
// conditions count as met, a Deny that is narrower than the Allow leaves it. So a
// card may say more than AWS would allow, and not less. Not seen at all are
// resource policies, service and resource control policies and session policies.
// What could not be read is named, and what is said is "at least".
//
// The rules are those of the IAM User Guide; comments name its pages. The package
// is pure: no I/O, no clock, no log. Work is bounded, whatever the documents.
package insight
