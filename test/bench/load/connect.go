package load

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hypha-net/hypha/test/bench/stat"
)

// Connects is what a process measured that connects to several places in turn.
type Connects struct {
	To  []Connect     `json:"to"`  // by place, in the order given
	CPU time.Duration `json:"cpu"` // of a connection, its end and its other side's part included: the mean over all places
}

// Connect is how long the call took.
type Connect struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50"` // ns
	P99   time.Duration `json:"p99"`
	Added time.Duration `json:"added"` // p50 of the differences from the first place in the same turn
}

// mostSamples of a place are kept.
const mostSamples = 1 << 17

// ConnectArgs are the arguments of a process for Main that connects from where it is to each of these addresses in turn, and
// accepts in the server's namespace on these ports. It prints Connects as JSON. A connection that fails is an error.
func ConnectArgs(server string, ports []uint16, to []netip.AddrPort, d time.Duration) []string {
	return []string{"connect", "-server", server, "-ports", join(ports), "-to", join(to), "-duration", d.String()}
}

func join[T any](all []T) string {
	s := make([]string, len(all))
	for i, x := range all {
		s[i] = fmt.Sprint(x)
	}
	return strings.Join(s, ",")
}

// ends are the flags that name a server.
type ends struct{ server, ports *string }

func endFlags(f *flag.FlagSet) ends {
	return ends{f.String("server", "", "namespace of the server"), f.String("ports", "", "ports of the server")}
}

func (e ends) listen() (listeners, error) {
	var ports []uint16
	for p := range strings.SplitSeq(*e.ports, ",") {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("port %q: %w", p, err)
		}
		ports = append(ports, uint16(n))
	}
	return listenIn(*e.server, ports)
}

func connects(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	e := endFlags(f)
	list := f.String("to", "", "IPv4 addresses with ports, comma separated")
	duration := f.Duration("duration", 0, "how long")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	var to []*unix.RawSockaddrInet4
	for text := range strings.SplitSeq(*list, ",") {
		a, err := parseAddr(text)
		if err != nil {
			return err
		}
		to = append(to, sockaddr(a))
	}
	ls, err := e.listen()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if _, err := turns(to, ls, *duration/4, mostSamples); err != nil { // warms up
		return err
	}
	before, err := threadTime()
	if err != nil {
		return err
	}
	took, err := turns(to, ls, *duration, mostSamples)
	if err != nil {
		return err
	}
	after, err := threadTime()
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(summary(took, after-before))
}

// turns connects to each place once in a turn, forwards and backwards, and returns how long the calls took, by place.
func turns(to []*unix.RawSockaddrInet4, ls listeners, d time.Duration, most int) ([][]time.Duration, error) {
	took := make([][]time.Duration, len(to))
	for i := range took {
		took[i] = make([]time.Duration, 0, most)
	}
	end := time.Now().Add(d)
	for n := 0; n == 0 || n < most && time.Now().Before(end); n++ {
		for i := range to {
			if n%2 == 1 {
				i = len(to) - 1 - i
			}
			x, err := connectOnce(to[i])
			if err != nil {
				return nil, fmt.Errorf("connection %d to place %d: %w", n, i, err)
			}
			took[i] = append(took[i], x)
		}
		if err := ls.empty(); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// connectOnce makes a connection and ends it; it returns how long the call took.
func connectOnce(to *unix.RawSockaddrInet4) (time.Duration, error) {
	s, err := newSocket()
	if err != nil {
		return 0, err
	}
	defer s.close()
	if err := s.abort(); err != nil {
		return 0, err
	}
	began := time.Now()
	errno := s.connect(to)
	took := time.Since(began)
	if errno != 0 {
		return 0, fmt.Errorf("connect: %w", errno)
	}
	return took, nil
}

func summary(took [][]time.Duration, cpu time.Duration) Connects {
	out := Connects{CPU: cpu / time.Duration(len(took)*len(took[0]))}
	for _, v := range took {
		added := make([]time.Duration, len(v))
		for i := range v {
			added[i] = v[i] - took[0][i]
		}
		s, d := stat.SpreadOf(v), stat.SpreadOf(added)
		out.To = append(out.To, Connect{Count: s.N, P50: s.P50, P99: s.P99, Added: d.P50})
	}
	return out
}

// threadTime is the CPU time of this thread so far.
func threadTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
