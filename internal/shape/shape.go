// Package shape says what the control plane's nouns look like on the wire: one
// function for each, without a decision. The API answers with them, and the pages
// show the same.
package shape
