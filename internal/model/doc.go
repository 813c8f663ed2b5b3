// Package model holds the plain values that the other packages exchange: labels, identities, endpoints, nodes,
// addresses, compiled policy, events. It imports nothing of Hypha, does no I/O, and its values are not to be changed
// once they are in a table.
package model
