//go:build race

package mutate

// slower is by how much the race detector slows everything down.
const slower = 10
