//go:build !race

package mutate

const slower = 1
