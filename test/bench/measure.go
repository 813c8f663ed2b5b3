package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/hypha-net/hypha/internal/netns"
	"github.com/hypha-net/hypha/test/bench/arm"
	"github.com/hypha-net/hypha/test/bench/load"
)

// A test is one kind of measurement, the same for all arms.
type test struct {
	name  string
	title string
	mode  load.Mode // "" for streams
	conns int
	cpus  [2][]int // of client and server
}

func (t test) stream() bool { return t.mode == "" }

// The rows of the performance suite: 1 streams, 2 request-response, 3 connect-request-close.
var tests = []test{
	{name: "stream1", title: "TCP stream, iperf3 -P1, client CPU 0, server CPU 1", conns: 1, cpus: twoCPUs},
	{name: "stream4", title: "TCP stream, iperf3 -P4, client CPU 0, server CPU 1", conns: 4, cpus: twoCPUs},
	{name: "rr1", title: "TCP_RR, 1 byte, 1 connection, one CPU", mode: load.RR, conns: 1, cpus: oneCPU},
	{name: "rr32", title: "TCP_RR, 1 byte, 32 connections, one CPU", mode: load.RR, conns: 32, cpus: oneCPU},
	{name: "crr1", title: "TCP_CRR, 1 byte, 1 connection at a time, one CPU", mode: load.CRR, conns: 1, cpus: oneCPU},
	{name: "crr32", title: "TCP_CRR, 1 byte, 32 connections at a time, one CPU", mode: load.CRR, conns: 32, cpus: oneCPU},
	{name: "rr1x2", title: "TCP_RR, 1 byte, 1 connection, two CPUs", mode: load.RR, conns: 1, cpus: twoCPUs},
	{name: "crr1x2", title: "TCP_CRR, 1 byte, 1 connection at a time, two CPUs", mode: load.CRR, conns: 1, cpus: twoCPUs},
}

var (
	oneCPU  = [2][]int{{0}, {0}}
	twoCPUs = [2][]int{{0}, {1}}
)

// A sample is the result of one measurement.
type sample struct {
	rate     float64       // transactions/s, or bits/s for streams
	p50, p99 time.Duration // transactions only
	cpu      float64       // CPU seconds of the whole machine per transaction, or per byte for streams
}

// congestion is the streams' congestion control, whatever the machine's own choice: BBR makes its window from the smallest
// round trip it has seen, so that with it a shorter path has the smaller window and several streams on it run slower.
const congestion = "cubic"

// measure runs a test on an arm once.
func measure(ctx context.Context, e arm.Ends, t test, d time.Duration) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, d+15*time.Second)
	defer cancel()
	if t.stream() {
		return measureStream(ctx, e, t, d)
	}
	return measureLoad(ctx, e, t, d)
}

// child is this program, called as a load process.
func child(ctx context.Context, args []string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the benchmark's own binary: %w", err)
	}
	return exec.CommandContext(ctx, exe, append([]string{"load"}, args...)...), nil
}

func measureLoad(ctx context.Context, e arm.Ends, t test, d time.Duration) (sample, error) {
	port := uint16(arm.PortRR)
	if t.mode == load.CRR {
		port = arm.PortCRR
	}
	srv, err := child(ctx, load.ServerArgs(netip.AddrPortFrom(netip.IPv4Unspecified(), port), t.mode, t.conns))
	if err != nil {
		return sample{}, err
	}
	stop, err := startServer(e.Server, srv, t.cpus[1], "ready")
	if err != nil {
		return sample{}, err
	}
	defer stop()
	cli, err := child(ctx, load.ClientArgs(netip.AddrPortFrom(e.Target, port), t.mode, t.conns, d))
	if err != nil {
		return sample{}, err
	}
	out, cpu, err := runClient(e.Client, cli, t.cpus[0])
	if err != nil {
		return sample{}, err
	}
	var r load.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return sample{}, fmt.Errorf("read the client's result: %w", err)
	}
	if r.Count == 0 {
		return sample{}, errors.New("not one transaction in the time")
	}
	return sample{rate: r.Rate(), p50: r.P50, p99: r.P99, cpu: cpu / float64(r.Count)}, nil
}

func measureStream(ctx context.Context, e arm.Ends, t test, d time.Duration) (sample, error) {
	port := strconv.Itoa(arm.PortIperf)
	srv := exec.CommandContext(ctx, "iperf3", "-s", "-1", "-p", port, "--forceflush")
	stop, err := startServer(e.Server, srv, t.cpus[1], "listening")
	if err != nil {
		return sample{}, err
	}
	defer stop()
	cli := exec.CommandContext(ctx, "iperf3", "-c", e.Target.String(), "-p", port, "-P", strconv.Itoa(t.conns), "-C", congestion,
		"-t", strconv.FormatFloat(max(1, d.Seconds()), 'f', 0, 64), "-J")
	out, cpu, err := runClient(e.Client, cli, t.cpus[0])
	if err != nil {
		return sample{}, err
	}
	var r struct {
		End struct {
			Received struct {
				Bytes float64 `json:"bytes"`
				Rate  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return sample{}, fmt.Errorf("read iperf3's result: %w", err)
	}
	if r.Error != "" || r.End.Received.Bytes == 0 {
		return sample{}, fmt.Errorf("iperf3 moved %.0f bytes: %s", r.End.Received.Bytes, r.Error)
	}
	return sample{rate: r.End.Received.Rate, cpu: cpu / r.End.Received.Bytes}, nil
}

// startServer starts a server and returns once it has printed a line with this word. stop ends it.
func startServer(ns *netns.NS, cmd *exec.Cmd, cpus []int, word string) (stop func(), err error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := ns.StartOn(cmd, cpus); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(strings.ToLower(lines.Text()), word) {
			return stop, nil
		}
	}
	stop()
	return nil, fmt.Errorf("server %s ended before it was ready", cmd.Path)
}

// runClient runs a client to its end and returns its output and the CPU seconds that the machine spent meanwhile.
func runClient(ns *netns.NS, cmd *exec.Cmd, cpus []int) (string, float64, error) {
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	before, err := busy()
	if err != nil {
		return "", 0, err
	}
	if err := ns.StartOn(cmd, cpus); err != nil {
		return "", 0, fmt.Errorf("start client: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return "", 0, fmt.Errorf("client: %w: %s %s", err, strings.TrimSpace(errOut.String()), strings.TrimSpace(out.String()))
	}
	after, err := busy()
	return out.String(), after - before, err
}

// busy is the CPU time that all CPUs of the machine have spent since boot on anything, in seconds, from /proc/stat. Time
// stolen by other machines of the host is not ours.
func busy() (float64, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal ...
	if len(f) < 8 || f[0] != "cpu" {
		return 0, errors.New("read CPU time: /proc/stat is not as expected")
	}
	var ticks float64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		ticks += n
	}
	const perSecond = 100 // USER_HZ, the same on all architectures
	return ticks / perSecond, nil
}
