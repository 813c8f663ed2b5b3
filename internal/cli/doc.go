// Package cli is the command tree of `hypha`, which also answers as `cilium`, `cilium-dbg` and `hubble`. A command
// asks the agent over its local API (package client), or works on files; it never touches the kernel itself, but
// for `doctor` and `cleanup`, whose kernel parts come in with Deps. Run is the whole program but for the wiring: it
// returns the exit code (0 fine, 1 failed or degraded, 2 usage, 130 interrupted) and has printed what went wrong.
package cli
