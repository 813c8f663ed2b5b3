package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/hypha-net/hypha/internal/model"
	"github.com/hypha-net/hypha/internal/observe"
	flowserver "github.com/hypha-net/hypha/internal/observe/server"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // what is printed must not depend on the machine
	goleak.VerifyTestMain(m)
}

// pods names the addresses 10.0.0.N as podN.
type pods struct{}

func (pods) Endpoint(a netip.Addr, _ uint16) (observe.Peer, bool) {
	return observe.Peer{Identity: 300, Namespace: "default", Pod: "pod" + a.String()[len("10.0.0."):]}, true
}
func (pods) Identity(model.IdentityID) (model.Labels, bool) { return nil, false }
func (pods) Interface(uint32) string                        { return "" }
func (pods) Service(netip.Addr, uint16, uint8) (observe.Service, bool) {
	return observe.Service{}, false
}
func (pods) Rule(id model.RuleID) (model.RuleRef, bool) {
	return model.RuleRef{ID: id, Policies: []model.PolicyRef{{Name: "l3-rule"}}, Ingress: true, Deny: true, Implicit: true, Text: "l3-rule ingress default deny"}, true
}

// node serves a flow socket under a state directory.
func node(t *testing.T, dir, name string) *observe.Observer {
	t.Helper()
	obs, err := observe.New(observe.Config{Node: name, Version: "v1", Capacity: 63}, observe.Deps{Resolver: pods{}})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := flowserver.New(flowserver.Deps{Observer: obs, Nodes: func() ([]model.Node, <-chan struct{}) {
		return []model.Node{{Name: "node1", FlowAddr: "192.0.2.1:4244"}, {Name: "node2", FlowAddr: "192.0.2.2:4244"}}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, name, "hubble.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return obs
}

// flow number i: podI to pod200 at second i.
func send(o *observe.Observer, is ...int) {
	for _, i := range is {
		e := model.Event{Type: model.EventTrace, Time: noon.Add(time.Duration(i) * time.Second), Proto: 17, Flags: model.EventL4 | model.EventReplyKnown,
			SrcPort: uint16(i), DstPort: 53, Src: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Dst: netip.MustParseAddr("10.0.0.200")}
		if i%10 == 0 {
			e.Type, e.Code, e.Rule, e.Flags = model.EventDrop, 133, 1000, model.EventL4|model.EventIngress
		}
		o.Handle(e)
	}
}

// run runs one command line in the tree of hypha, as its users do.
func run(t *testing.T, stateDir, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	root := NewHubbleCommand()
	if stateDir != "" {
		args = append(args, "--state-dir", stateDir)
	}
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetIn(strings.NewReader(stdin))
	root.SetArgs(args)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err = root.ExecuteContext(ctx)
	return out.String(), errs.String(), err
}

// names are the senders of the flows in compact output, in order.
func names(out string) []string {
	got := []string{}
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, "default/"); ok {
			name, _, _ := strings.Cut(rest, ":")
			got = append(got, name)
		}
	}
	return got
}

func TestObserve(t *testing.T) {
	dir := t.TempDir()
	one, two := node(t, dir, "node1"), node(t, dir, "node2")
	send(one, 1, 3, 5, 7, 9, 10)
	send(two, 2, 4, 6, 8, 20)
	only1 := "unix://" + filepath.Join(dir, "node1", "hubble.sock")
	for _, c := range []struct {
		args string
		want []string
	}{
		{"observe", []string{"pod1", "pod2", "pod3", "pod4", "pod5", "pod6", "pod7", "pod8", "pod9", "pod10", "pod20"}},
		{"observe flows --last 3", []string{"pod9", "pod10", "pod20"}},
		{"observe --first 3", []string{"pod1", "pod2", "pod3"}},
		{"observe --last 0", []string{}},
		{"observe --all --pod pod3", []string{"pod3"}},
		{"observe --server " + only1, []string{"pod1", "pod3", "pod5", "pod7", "pod9", "pod10"}},
		{"observe --verdict DROPPED", []string{"pod10", "pod20"}},
		{"observe --not --verdict dropped --last 2", []string{"pod8", "pod9"}},
		{"observe --from-pod pod1 --from-pod default/pod2", []string{"pod1", "pod2", "pod10", "pod20"}},
		{"observe --to-pod pod1", []string{}},
		{"observe --from-ip 10.0.0.4/31 --protocol udp", []string{"pod4", "pod5"}},
		{"observe -t drop --node-name node2", []string{"pod20"}},
		{"observe -t trace:to-endpoint --port 7", []string{"pod7"}},
		{"observe --since 2026-01-02T12:00:09Z --until 2026-01-02T12:00:11Z", []string{"pod9", "pod10"}},
		{"observe --identity 300 -n other", []string{}},
		{"observe --cel-expression _flow.l4.UDP.source_port==6u", []string{"pod6"}},
		{"observe -6", []string{}},
		{`observe --allowlist {"source_port":["2"]} --denylist {"source_port":["1"]}`, []string{"pod2"}},
	} {
		out, errs, err := run(t, dir, "", strings.Fields(c.args)...)
		if err != nil || errs != "" {
			t.Errorf("%s: %v, %q", c.args, err, errs)
		}
		if d := cmp.Diff(c.want, names(out)); d != "" {
			t.Errorf("%s: (-want +got)\n%s\n%s", c.args, d, out)
		}
	}
	out, _, err := run(t, dir, "", "observe", "--verdict", "DROPPED", "--last", "1")
	if want := "Jan  2 12:00:20.123: default/pod20:20 (ID:300) <> default/pod200:53 (ID:300) Policy denied DROPPED (UDP; rule: l3-rule ingress default deny)\n"; err != nil || out != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}

// The CPUs of a node are read one beside the other, so its flows come a little out of order.
func TestOrder(t *testing.T) {
	dir := t.TempDir()
	send(node(t, dir, "node1"), 2, 1, 5, 4)
	send(node(t, dir, "node2"), 3, 7, 6)
	only1 := "unix://" + filepath.Join(dir, "node1", "hubble.sock")
	for _, c := range []struct {
		args string
		want []string
	}{
		{"observe", []string{"pod1", "pod2", "pod3", "pod4", "pod5", "pod6", "pod7"}},
		{"observe --last 2", []string{"pod6", "pod7"}},
		{"observe --first 2", []string{"pod1", "pod2"}},
		{"observe --server " + only1, []string{"pod1", "pod2", "pod4", "pod5"}},
	} {
		out, errs, err := run(t, dir, "", strings.Fields(c.args)...)
		if err != nil || errs != "" {
			t.Errorf("%s: %v, %q", c.args, err, errs)
		}
		if d := cmp.Diff(c.want, names(out)); d != "" {
			t.Errorf("%s: (-want +got)\n%s\n%s", c.args, d, out)
		}
	}
}

func TestFollowMerges(t *testing.T) {
	dir := t.TempDir()
	one, two := node(t, dir, "node1"), node(t, dir, "node2")
	send(one, 1, 4)
	send(two, 2, 3)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	root := NewHubbleCommand()
	root.SetArgs([]string{"observe", "-f", "--last", "10", "--state-dir", dir})
	root.SetOut(w)
	root.SetErr(w)
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx); w.Close() }()
	read := func(n int) (got []string) {
		buf := make([]byte, 4096)
		for len(got) < n {
			k, err := r.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, names(string(buf[:k]))...)
		}
		return got
	}
	got := read(4)
	send(two, 6)
	send(one, 5)
	got = append(got, read(2)...)
	if d := cmp.Diff([]string{"pod1", "pod2", "pod3", "pod4", "pod5", "pod6"}, got); d != "" {
		t.Error(d)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("after interrupt: %v", err)
	}
	r.Close()
}

func TestDeadSockets(t *testing.T) {
	dir := t.TempDir()
	send(node(t, dir, "node1"), 1)
	for _, name := range []string{"dead", "file"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "dead", "hubble.sock")})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	out, errs, err := run(t, dir, "", "observe")
	if err != nil || len(names(out)) != 1 || !strings.Contains(errs, "dead/hubble.sock: no agent answers there") {
		t.Errorf("out %q, err %q, %v", out, errs, err)
	}
	if _, errs, err = run(t, dir, "", "observe", "-s"); err != nil || errs != "" {
		t.Errorf("-s: %q, %v", errs, err)
	}
	if out, _, err = run(t, dir, "", "status"); err != nil || !strings.Contains(out, "Connected Nodes: 1/1") {
		t.Errorf("status: %q, %v", out, err)
	}
	for _, args := range [][]string{{"observe"}, {"status"}, {"list", "nodes"}, {"watch", "peers"}} {
		_, _, err = run(t, dir, "", append(args, "--server", "unix://"+filepath.Join(dir, "dead", "hubble.sock"))...)
		var u *UsageError
		if err == nil || errors.As(err, &u) || !strings.Contains(err.Error(), "is hypha-agent running?") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestNobodyHere(t *testing.T) {
	if c, err := net.Dial("tcp", defaultServer); err == nil {
		c.Close()
		t.Skip("something answers at " + defaultServer)
	}
	dir := t.TempDir()
	_, _, err := run(t, dir, "", "status", "--timeout", "1s")
	if err == nil || !strings.Contains(err.Error(), "no agent runs here (no socket under "+dir) {
		t.Errorf("got %v", err)
	}
}

func TestServerErrorIsNoUsageError(t *testing.T) {
	dir := t.TempDir()
	node(t, dir, "node1")
	_, _, err := run(t, dir, "", "observe", "--field-mask", "nope", "-o", "jsonpb")
	var u *UsageError
	if err == nil || errors.As(err, &u) || !strings.Contains(err.Error(), `no field "nope"`) {
		t.Errorf("got %v", err)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"observe --last x", "want a number of events"},
		{"observe --first 1 --last 1", "exclude each other"},
		{"observe --first 1 -f", "exclude each other"},
		{"observe --ip 10.0.0", "want an IP address or a CIDR"},
		{"observe --port http", "want a port"},
		{"observe --verdict MAYBE", "known are FORWARDED"},
		{"observe --type x", "no kind of event"},
		{"observe -t trace:x", "no trace point"},
		{"observe --protocol quic", "known are dns"},
		{"observe --tcp-flags XX", "no TCP flag"},
		{"observe --identity me", "reserved identity"},
		{"observe --label a(", "label selector"},
		{"observe --since yesterday", "want a duration"},
		{"observe --since 1m --until 2m", "before --since"},
		{"observe -o xml", "want one of"},
		{"observe --color red", "want one of"},
		{"observe --time-format x", "want one of"},
		{"observe --not", "none follows"},
		{"observe -A -n a --pod b", "exclude each other"},
		{"observe -n a --pod b/c", "not in namespace"},
		{"observe --pod a/b/c", "NAMESPACE"},
		{"observe --cel-expression (", "cel-expression"},
		{"observe --allowlist {", "allowlist"},
		{"observe --server nowhere", "want HOST:PORT"},
		{"observe -P", "--port-forward"},
		{"observe --field-mask time", "jsonpb"},
		{"observe --nope", "nope"},
		{"observe flows extra", "extra"},
		{"observe nonsense", "nonsense"},
		{"nonsense", "unknown command"},
		{"list", ""},
		{"list x", "there are namespaces, nodes"},
		{"completion tcsh", "tcsh"},
		{"config get nope", "no setting"},
		{"config set last 3", "no setting"},
		{"config set timeout x", "timeout"},
		{"status --tls-client-cert-file x --tls --server a:1", "belong together"},
		{"status --tls-ca-cert-files /nonexistent --tls --server a:1", "no such file"},
		{"observe --config /nonexistent", "read configuration"},
	} {
		_, _, err := run(t, t.TempDir(), "", strings.Fields(c.args)...)
		var u *UsageError
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.args, err)
		case c.want == "":
		case !errors.As(err, &u) || u.ExitCode() != 2:
			t.Errorf("%s: %v, want a usage error", c.args, err)
		case !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %q does not say %q", c.args, err, c.want)
		}
	}
}

func TestEnvironmentAndConfig(t *testing.T) {
	dir := t.TempDir()
	send(node(t, dir, "node1"), 1, 2, 3, 4)
	conf := filepath.Join(t.TempDir(), "hubble.yaml")
	do := func(args ...string) (string, error) {
		out, _, err := run(t, dir, "", append(args, "--config", conf)...)
		return out, err
	}
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := do("config", "set", "output", "jsonpb"); err != nil {
		t.Fatal(err)
	}
	if out, err := do("config", "get", "output"); err != nil || out != "jsonpb\n" {
		t.Errorf("get: %q, %v", out, err)
	}
	if out, err := do("config", "view"); err != nil || !strings.Contains(out, "output: jsonpb") || !strings.Contains(out, "timeout: 5s") {
		t.Errorf("view: %q, %v", out, err)
	}
	if out, err := do("observe"); err != nil || !strings.HasPrefix(out, "{") {
		t.Errorf("observe with a file: %q, %v", out, err)
	}
	t.Setenv("HUBBLE_OUTPUT", "compact")
	t.Setenv("HUBBLE_LAST", "2")
	if out, err := do("observe"); err != nil || cmp.Diff([]string{"pod3", "pod4"}, names(out)) != "" {
		t.Errorf("the environment does not beat the file: %q, %v", out, err)
	}
	if out, err := do("observe", "--last", "1"); err != nil || cmp.Diff([]string{"pod4"}, names(out)) != "" {
		t.Errorf("the flag does not beat the environment: %q, %v", out, err)
	}
	t.Setenv("HUBBLE_LAST", "many")
	var u *UsageError
	if _, err := do("observe"); !errors.As(err, &u) || !strings.Contains(err.Error(), `HUBBLE_LAST="many"`) {
		t.Errorf("bad environment: %v", err)
	}
	t.Setenv("HUBBLE_LAST", "1")
	if _, err := do("config", "reset"); err != nil {
		t.Fatal(err)
	}
	if out, err := do("config", "get"); err != nil || out != "" {
		t.Errorf("after reset: %q, %v", out, err)
	}
}

func TestInputFile(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "jsonpb.golden"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "compact.golden"))
	if err != nil {
		t.Fatal(err)
	}
	out, errs, err := run(t, "", string(raw), "observe", "--input-file", "-", "--all")
	if err != nil || out != string(want) || !strings.Contains(errs, "NODE_UNAVAILABLE") {
		t.Errorf("%v %q %s", err, errs, cmp.Diff(string(want), out))
	}
	out, _, err = run(t, "", string(raw), "observe", "--input-file", "-", "--verdict", "AUDIT", "-s")
	if err != nil || strings.Count(out, "AUDITED") != 1 || strings.Contains(out, "FORWARDED") {
		t.Errorf("filtered: %q, %v", out, err)
	}
	// A bare flow, as older files have it.
	var first struct{ Flow json.RawMessage }
	if err := json.Unmarshal(raw[:bytes.IndexByte(raw, '\n')], &first); err != nil {
		t.Fatal(err)
	}
	out, _, err = run(t, "", string(first.Flow), "observe", "--input-file", "-")
	if head, _, _ := strings.Cut(string(want), "\n"); err != nil || out != head+"\n" {
		t.Errorf("bare flow: %q, %v", out, err)
	}
	if _, _, err = run(t, "", "{}\n{bad", "observe", "--input-file", "-"); err == nil || !strings.Contains(err.Error(), "-:2") {
		t.Errorf("bad line: %v", err)
	}
}

func TestRawFilters(t *testing.T) {
	out, _, err := run(t, "", "", strings.Fields("observe --print-raw-filters --pod a --pod b/c -n b --to-port 80 --not --verdict DROPPED --not --ip 10.0.0.1")...)
	var u *UsageError
	if err != nil || errors.As(err, &u) {
		t.Fatal(err)
	}
	want := `allowlist:
    - '{"source_pod":["b/a","b/c"],"destination_port":["80"]}'
    - '{"destination_pod":["b/a","b/c"],"destination_port":["80"]}'
denylist:
    - '{"verdict":["DROPPED"]}'
    - '{"source_ip":["10.0.0.1"]}'
    - '{"destination_ip":["10.0.0.1"]}'
`
	if d := cmp.Diff(want, out); d != "" {
		t.Error(d)
	}
}

func TestStatusListWatch(t *testing.T) {
	dir := t.TempDir()
	send(node(t, dir, "node1"), 1, 2)
	send(node(t, dir, "node2"), 3)
	out, _, err := run(t, dir, "", "status")
	if err != nil || !strings.Contains(out, "hubble.sock): Ok\nCurrent/Max Flows: 3/126 (2.38%)\nFlows/s: ") || !strings.Contains(out, "Connected Nodes: 2/2\n") {
		t.Errorf("status: %q, %v", out, err)
	}
	if out, _, err = run(t, dir, "", "status", "-o", "json"); err != nil || !strings.Contains(out, `"num_flows":"3"`) {
		t.Errorf("status json: %q, %v", out, err)
	}
	if out, _, err = run(t, dir, "", "list", "nodes"); err != nil || strings.Count(out, "Connected") != 2 || !strings.Contains(out, "2/63 (  3.17%)") {
		t.Errorf("nodes: %q, %v", out, err)
	}
	if out, _, err = run(t, dir, "", "list", "nodes", "-o", "wide"); err != nil || !strings.Contains(out, "192.0.2.2:4244") {
		t.Errorf("nodes wide: %q, %v", out, err)
	}
	if out, _, err = run(t, dir, "", "list", "namespaces"); err != nil {
		t.Errorf("namespaces: %q, %v", out, err)
	}
	if out, _, err = run(t, dir, "", "version"); err != nil || !strings.HasPrefix(out, "hubble ") {
		t.Errorf("version: %q, %v", out, err)
	}
	if out, _, err = run(t, dir, "", "completion", "bash"); err != nil || !strings.Contains(out, "hubble") {
		t.Errorf("completion: %v", err)
	}
	if out, _, err = run(t, dir, "", "observe", "agent-events"); err != nil || out != "" {
		t.Errorf("agent-events: %q, %v", out, err)
	}
}

// TestInsideHypha: the flags of the surrounding tree do not collide.
func TestInsideHypha(t *testing.T) {
	dir := t.TempDir()
	send(node(t, dir, "node1"), 1)
	root := &cobra.Command{Use: "hypha"}
	root.PersistentFlags().StringP("socket", "H", "", "")
	root.PersistentFlags().String("state-dir", "", "")
	root.PersistentFlags().String("node-name", "", "")
	root.AddCommand(NewObserveCommand())
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs([]string{"observe", "--state-dir", dir, "--node-name", "node*"})
	if err := root.ExecuteContext(t.Context()); err != nil || len(names(out.String())) != 1 {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// TestTLS: off the node there is TLS, and the client checks who the server is unless told otherwise.
func TestTLS(t *testing.T) {
	obs, err := observe.New(observe.Config{Node: "node1"}, observe.Deps{Resolver: pods{}})
	if err != nil {
		t.Fatal(err)
	}
	send(obs, 1)
	srv, err := flowserver.New(flowserver.Deps{Observer: obs, TLS: true, Nodes: func() ([]model.Node, <-chan struct{}) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	pki := t.TempDir()
	conf, err := flowserver.TLSConfig(flowserver.TLSFiles{}, pki, []string{flowserver.ServerName("", "node1")})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l, conf) }()
	defer func() { cancel(); <-done }()
	ca := filepath.Join(pki, flowserver.CertFile)
	for _, c := range []struct {
		args string
		fail string // what its error says
	}{
		{"--server tls://ADDR --tls-ca-cert-files " + ca + " --tls-server-name node1.default.hubble-grpc.cilium.io", ""},
		{"--server ADDR --tls --tls-allow-insecure", ""},
		{"--server tls://ADDR --tls-ca-cert-files " + ca, "certificate"},
		{"--server tls://ADDR --tls-server-name node1.default.hubble-grpc.cilium.io", "--tls-ca-cert-files"},
		{"--server ADDR", "tls://"},
	} {
		out, _, err := run(t, t.TempDir(), "", strings.Fields("observe "+strings.ReplaceAll(c.args, "ADDR", l.Addr().String()))...)
		if (err == nil) != (c.fail == "") || err == nil && len(names(out)) != 1 || err != nil && !strings.Contains(err.Error(), c.fail) {
			t.Errorf("%s: %q, %v", c.args, out, err)
		}
	}
}
