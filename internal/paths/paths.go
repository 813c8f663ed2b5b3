// Package paths says where an agent keeps what it owns. Everything derives from one pair, the state directory and the
// node name, so that several agents can share a kernel without meeting.
package paths

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
)

// Defaults.
const (
	StateDir = "/var/lib/hypha"      // of agents on their own machine
	DemoDir  = "/var/lib/hypha-demo" // of `hypha demo`
	RunDir   = "/run/hypha"          // see Refuge
	BPFFS    = "/sys/fs/bpf"
)

// Paths are the places of one agent.
type Paths struct {
	State string // <state-dir>/<node-name>
	BPF   string // directory in bpffs
}

// For computes the places of an agent. stateDir is made absolute.
func For(stateDir, nodeName string) Paths {
	abs, err := filepath.Abs(stateDir)
	if err != nil { // only without a working directory
		abs = stateDir
	}
	sum := sha256.Sum256([]byte(abs))
	return Paths{
		State: filepath.Join(abs, nodeName),
		BPF:   filepath.Join(BPFFS, "hypha", bpfName(nodeName)+"-"+hex.EncodeToString(sum[:4])),
	}
}

// Owner marks devices as this agent's: its node name and a hash of its state directory.
func (p Paths) Owner() string { return filepath.Base(p.BPF) }

// AgentSocket serves the Reader API.
func (p Paths) AgentSocket() string { return filepath.Join(p.State, "agent.sock") }

// AdminSocket serves the Reader and the Admin API.
func (p Paths) AdminSocket() string { return filepath.Join(p.State, "admin.sock") }

// FlowSocket serves the flow API.
func (p Paths) FlowSocket() string { return filepath.Join(p.State, "hubble.sock") }

// Refuge is where an agent serves a socket that its state directory does not take: a disk without room, or not to be written
// to. It does not outlive the machine's run.
func Refuge(socket string) string {
	own := filepath.Dir(socket)
	return filepath.Join(RunDir, For(filepath.Dir(own), filepath.Base(own)).Owner(), filepath.Base(socket))
}

// Lock is held by the agent while it runs, and holds its process number.
func (p Paths) Lock() string { return filepath.Join(p.State, "agent.lock") }

// Endpoints holds one file per attached workload.
func (p Paths) Endpoints() string { return filepath.Join(p.State, "endpoints") }

// PendingDel holds one file per CNI DEL that came while the agent was down.
func (p Paths) PendingDel() string { return filepath.Join(p.State, "pending-del") }

// Etcd is the data directory of the embedded store.
func (p Paths) Etcd() string { return filepath.Join(p.State, "etcd") }

// PKI holds certificates the agent made for itself.
func (p Paths) PKI() string { return filepath.Join(p.State, "pki") }

// HostRecord notes the node's settings as they were before the agent changed them.
func (p Paths) HostRecord() string { return filepath.Join(p.State, "host.json") }

// NodeNumbers notes which numbers the labels of other nodes have on this one.
func (p Paths) NodeNumbers() string { return filepath.Join(p.State, "node-identities.json") }

// Prefilter is the list of denied sources.
func (p Paths) Prefilter() string { return filepath.Join(p.State, "prefilter.json") }

// Maps holds the pinned maps.
func (p Paths) Maps() string { return filepath.Join(p.BPF, "maps") }

// Links holds the pinned links, programs included.
func (p Paths) Links() string { return filepath.Join(p.BPF, "links") }

// Programs holds the programs of the running agent, so that the next one need not have them verified again.
func (p Paths) Programs() string { return filepath.Join(p.BPF, "progs") }

// HostIf is the name of the host side of a workload's device pair: "hy" and 10 hex digits, 12 bytes.
func HostIf(containerID, ifName string) string {
	sum := sha256.Sum256([]byte(containerID + "\x00" + ifName))
	return "hy" + hex.EncodeToString(sum[:5])
}

// bpfName is a node name as bpffs takes it: it allows no dot in names.
func bpfName(nodeName string) string { return strings.ReplaceAll(nodeName, ".", ":") }
