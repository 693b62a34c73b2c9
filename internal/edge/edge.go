// Package edge is what every address of an HTTP server of ours goes through,
// whatever it is for: bodies and queries read strictly and within bounds, lists
// cut into pages, refusals answered in one envelope, addresses held to a rate.
// It knows no route and nobody who visits one; those are web's.
package edge
