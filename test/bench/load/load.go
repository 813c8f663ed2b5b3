// Package load makes and serves the transactions of the benchmarks: TCP_RR (one byte there and back on an open connection)
// and TCP_CRR (connect, one byte there and back, close), in processes of their own that the parent binds to CPUs. Connections
// alone are measured by a process that has both their ends.
//
// A thread serves each connection with blocking system calls made past Go's scheduler, which would otherwise be a good
// part of what is measured.
package load

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"runtime/debug"
	"time"
)

// Mode is what a transaction is.
type Mode string

// Modes.
const (
	RR  Mode = "rr"
	CRR Mode = "crr"
)

// Result of a client.
type Result struct {
	Count   uint64        `json:"count"`   // transactions
	Elapsed time.Duration `json:"elapsed"` // ns
	P50     time.Duration `json:"p50"`     // ns
	P99     time.Duration `json:"p99"`
}

// Rate is in transactions per second.
func (r Result) Rate() float64 { return float64(r.Count) / r.Elapsed.Seconds() }

// Main is the child process: args are what one of the functions below that end in Args returned.
func Main(args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New("want server, client, connect or probe")
	}
	debug.SetGCPercent(-1) // nothing is allocated in the loops
	switch args[0] {
	case "server", "client":
		return transactions(args, stdout)
	case "connect":
		return connects(args, stdout)
	case "probe":
		return probe(args, stdin, stdout)
	}
	return fmt.Errorf("%q: want server, client, connect or probe", args[0])
}

func transactions(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	addr := f.String("addr", "", "IPv4 address and port")
	mode := f.String("mode", "", "rr or crr")
	conns := f.Int("conns", 1, "connections at a time")
	duration := f.Duration("duration", 0, "how long")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	to, err := parseAddr(*addr)
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(2*(*conns) + 4) // a blocked thread keeps its slot
	debug.SetMaxThreads(10*(*conns) + 100)
	if args[0] == "server" {
		return serve(to, Mode(*mode), func() { _, _ = fmt.Fprintln(stdout, "ready") })
	}
	res, err := run(to, Mode(*mode), *conns, *duration)
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(res)
}

func parseAddr(text string) (netip.AddrPort, error) {
	to, err := netip.ParseAddrPort(text)
	if err != nil || !to.Addr().Is4() {
		return to, fmt.Errorf("address %q: want an IPv4 address and a port", text)
	}
	return to, nil
}

// ServerArgs are the arguments of a server for Main. It prints "ready" and serves until it is killed.
func ServerArgs(addr netip.AddrPort, mode Mode, conns int) []string {
	return []string{"server", "-addr", addr.String(), "-mode", string(mode), "-conns", fmt.Sprint(conns)}
}

// ClientArgs are the arguments of a client for Main. It prints a Result as JSON.
func ClientArgs(addr netip.AddrPort, mode Mode, conns int, d time.Duration) []string {
	return []string{"client", "-addr", addr.String(), "-mode", string(mode), "-conns", fmt.Sprint(conns), "-duration", d.String()}
}
