// Package serval is the dictionary: the nouns of the system, and the rules that
// live on them.
//
// An Account is read into an Inventory of Roles. A Person asks for a Role with
// a Request, under one AccessPolicy; approved time is an Allocation, and the
// active one with a running clock is the grant. Under a grant Sessions are
// opened. Everything that anybody does, or is refused, is an Event in one
// chain.
//
// The package is pure: standard library only, no I/O, no clock, no log. What
// depends on the time takes it as an argument. Refusals are errors written for
// the person who asked; see Refusal.
package serval
