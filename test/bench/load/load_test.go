package load

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 63, 64, 65, 127, 128, 1000, 12345, time.Millisecond, time.Second, 50 * time.Second, time.Hour} {
		i := bucket(d)
		if i < 0 || i >= len(histogram{}.buckets) {
			t.Fatalf("%s: bucket %d", d, i)
		}
		if lo := lower(i); d < time.Minute && (lo > d || float64(d-lo) > float64(d)/64) {
			t.Errorf("%s is in the bucket of %s", d, lo)
		}
	}
	var h histogram
	var all []time.Duration
	for range 10000 {
		d := time.Duration(rand.ExpFloat64() * 30000)
		h.add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.5, 0.99} {
		got, want := h.quantile(q), all[int(q*10000)]
		if diff := float64(got-want) / float64(want); diff > 0.02 || diff < -0.02 {
			t.Errorf("quantile %v: %s, want %s", q, got, want)
		}
	}
}

// TestMain lets the test binary be the child process: blocked raw system calls would stop the tests' own scheduler.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"server", "client", "connect", "probe"}, os.Args[1]) {
		if err := Main(os.Args[1:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func child(t *testing.T, args []string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), exe, args...)
}

func TestTransactions(t *testing.T) {
	for i, mode := range []Mode{RR, CRR} {
		addr := netip.MustParseAddrPort([]string{"127.0.0.1:47311", "127.0.0.1:47312"}[i])
		srv := child(t, ServerArgs(addr, mode, 4))
		out, err := srv.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = srv.Process.Kill(); _ = srv.Wait() }()
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			t.Fatalf("%q %v", line, err)
		}
		for _, conns := range []int{1, 4} {
			out, err := child(t, ClientArgs(addr, mode, conns, 100*time.Millisecond)).Output()
			var r Result
			if err == nil {
				err = json.Unmarshal(out, &r)
			}
			if err != nil || r.Count == 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Rate() < 100 {
				t.Errorf("%s with %d connections: %+v %v", mode, conns, r, err)
			}
			t.Logf("%s with %d connections: %.0f/s p50 %s p99 %s", mode, conns, r.Rate(), r.P50, r.P99)
		}
	}
	if err := child(t, ClientArgs(netip.MustParseAddrPort("127.0.0.1:1"), RR, 1, time.Millisecond)).Run(); err == nil {
		t.Error("a client without a server")
	}
}
