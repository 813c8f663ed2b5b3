package cni

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/hypha-net/hypha/internal/testutil/mutate"
	"github.com/hypha-net/hypha/internal/testutil/score"
)

// stdins and envs are what runtimes hand over: the configuration, and CNI_ARGS.
var (
	stdins = []string{
		`{"cniVersion":"1.1.0","name":"n","type":"hypha-cni","stateDir":"/x","args":{"labels":{"a":"b"},"cni":{"labels":[{"key":"a","value":"b"}]}}}`,
		`{"cniVersion":"0.4.0","name":"n","args":{"labels":["a=b","c"]},"runtimeConfig":{"ips":["10.0.0.1/24","fd00::1"],"mac":"x"}}`,
		`{"cniVersion":"1.0.0","name":"n","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"address":"10.0.0.1/32","interface":0},{"address":"10.0.0.1/32","interface":7}]}}`,
		`{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"containerID":"a","ifname":"b"}],"ipam":{"type":"x"}}`, `{}`, `null`, `[`,
	}
	envs = []string{
		"", "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=y", "HYPHA_LABELS=id=app1,team=x,,a",
		"HYPHA_NAMED_PORTS=http:80/tcp,dns:53/udp,x:1", "HYPHA_LABEL_a=b;HYPHA_LABEL_=c", "IP=10.0.0.1;MAC=02:00:00:00:00:01", "a=1;a=1", ";", "=", "x",
	}
)

// checkError wants errors of a parser to carry one of the specification's codes.
func checkError(t testing.TB, err error) {
	var te *types.Error
	if err != nil && (!errors.As(err, &te) || te.Code == 0 || te.Msg == "") {
		t.Errorf("error without a code: %v", err)
	}
}

// call is one call of the plugin.
type call struct{ stdin, args string }

// checkCall reads a call as the plugin does, up to what it would ask the agent.
func checkCall(t testing.TB, c call) {
	conf, err := parseConf([]byte(c.stdin))
	checkError(t, err)
	if err != nil {
		return
	}
	args := &skel.CmdArgs{ContainerID: "c", Netns: "/x", IfName: "eth0", Args: c.args, StdinData: []byte(c.stdin)}
	req, _, err := addRequest(conf, args)
	checkError(t, err)
	if (req == nil) == (err == nil) {
		t.Errorf("request %v with error %v", req, err)
	}
	_, err = previous(conf, args)
	checkError(t, err)
}

func checkArgs(t testing.TB, s string) {
	a, err := parseArgs(s)
	checkError(t, err)
	if err != nil {
		return
	}
	for _, p := range a.ports {
		if p.GetPort() == 0 || p.GetPort() > 65535 || p.GetName() == "" || p.GetProtocol() == "" {
			t.Errorf("port %v", p)
		}
	}
	if slices.Contains(a.labels, "") {
		t.Error("empty label")
	}
}

// inTime fails the test when it took longer than anything may.
func inTime(t *testing.T, start time.Time) {
	if took := time.Since(start); took > mutate.Limit {
		t.Errorf("took %v", took)
	}
}

func FuzzConf(f *testing.F) {
	for _, s := range stdins {
		f.Add(s, "IgnoreUnknown=1;K8S_POD_NAME=x")
	}
	f.Fuzz(func(t *testing.T, stdin, args string) {
		defer inTime(t, time.Now())
		checkCall(t, call{stdin, args})
	})
}

func FuzzArgs(f *testing.F) {
	for _, s := range envs {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		defer inTime(t, time.Now())
		checkArgs(t, s)
	})
}

func texts(ss []string) (out [][]byte) {
	for _, s := range ss {
		out = append(out, []byte(s))
	}
	return out
}

// TestCase34CNI: no configuration on stdin, and no CNI_ARGS, crash the plugin, or keep it longer than a second.
func TestCase34CNI(t *testing.T) {
	c := score.Start(t, "34", "fuzz CNI stdin and CNI_ARGS")
	r, in, env := c.Rand(), texts(stdins), texts(envs)
	cost := mutate.Cost{}
	for name, deep := range map[string]call{
		"brackets":     {strings.Repeat("[", 1_000_000), ""},
		"objects":      {strings.Repeat(`{"args":`, 200_000), ""},
		"nested args":  {`{"args":` + strings.Repeat(`{"a":`, 9_000) + "1" + strings.Repeat("}", 9_001), ""},
		"labels":       {`{"name":"n","args":{"labels":[` + strings.Repeat(`"a=b",`, 200_000) + `"c"]}}`, ""},
		"label object": {`{"name":"n","args":{"labels":{` + strings.Repeat(`"a":"b",`, 100_000) + `"c":"d"}}}`, ""},
		"addresses":    {`{"name":"n","runtimeConfig":{"ips":[` + strings.Repeat(`"fd00::1",`, 200_000) + `"::1"]}}`, ""},
		"attachments":  {`{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[` + strings.Repeat(`{"containerID":"a"},`, 50_000) + `{}]}`, ""},
		"a number":     {`{"name":"n","mtu":` + strings.Repeat("9", 1_000_000) + "}", ""},
		"escapes":      {`{"name":"` + strings.Repeat(`\u0041`, 200_000) + `"}`, ""},
		"pairs":        {`{"name":"n"}`, "IgnoreUnknown=1" + strings.Repeat(";a=b", 200_000)},
		"label pairs":  {`{"name":"n"}`, "HYPHA_LABELS=" + strings.Repeat("a=b,", 200_000)},
		"ports":        {`{"name":"n"}`, "HYPHA_NAMED_PORTS=" + strings.Repeat("a:1/tcp,", 100_000)},
	} {
		cost.Worst = max(cost.Worst, mutate.Once(t, deep, func(x call) { checkCall(t, x); checkArgs(t, x.args) }))
		if t.Failed() {
			t.Fatal(name)
		}
	}
	n := mutate.Each(t, score.Size(20_000, 10_000_000), 2*time.Minute, func() call {
		x := call{string(mutate.Text(r, in)), envs[r.IntN(len(envs))]}
		if r.IntN(2) == 0 {
			x = call{stdins[r.IntN(len(stdins))], string(mutate.Text(r, env))}
		}
		return x
	}, func(x call) { checkCall(t, x); checkArgs(t, x.args) })
	n.Worst = max(n.Worst, cost.Worst)
	c.Count(n.Tried, "calls")
	c.Say("%v", n)
}
