package cni

import (
	"errors"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// checkError wants errors of a parser to carry one of the specification's codes.
func checkError(t *testing.T, start time.Time, err error) {
	t.Helper()
	var te *types.Error
	if err != nil && (!errors.As(err, &te) || te.Code == 0 || te.Msg == "") {
		t.Errorf("error without a code: %v", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func FuzzConf(f *testing.F) {
	for _, s := range []string{
		`{"cniVersion":"1.1.0","name":"n","type":"hypha-cni","stateDir":"/x","args":{"labels":{"a":"b"},"cni":{"labels":[{"key":"a","value":"b"}]}}}`,
		`{"cniVersion":"0.4.0","name":"n","args":{"labels":["a=b","c"]},"runtimeConfig":{"ips":["10.0.0.1/24","fd00::1"],"mac":"x"}}`,
		`{"cniVersion":"1.0.0","name":"n","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"address":"10.0.0.1/32","interface":0},{"address":"10.0.0.1/32","interface":7}]}}`,
		`{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"containerID":"a","ifname":"b"}],"ipam":{"type":"x"}}`, `{}`, `null`, `[`,
	} {
		f.Add([]byte(s), "IgnoreUnknown=1;K8S_POD_NAME=x")
	}
	f.Fuzz(func(t *testing.T, data []byte, args string) {
		start := time.Now()
		c, err := parseConf(data)
		checkError(t, start, err)
		if err != nil {
			return
		}
		call := &skel.CmdArgs{ContainerID: "c", Netns: "/x", IfName: "eth0", Args: args, StdinData: data}
		req, _, err := addRequest(c, call)
		checkError(t, start, err)
		if (req == nil) == (err == nil) {
			t.Errorf("request %v with error %v", req, err)
		}
		_, err = previous(c, call)
		checkError(t, start, err)
	})
}

func FuzzArgs(f *testing.F) {
	for _, s := range []string{
		"", "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=y", "HYPHA_LABELS=id=app1,team=x,,a",
		"HYPHA_NAMED_PORTS=http:80/tcp,dns:53/udp,x:1", "HYPHA_LABEL_a=b;HYPHA_LABEL_=c", "IP=10.0.0.1;MAC=02:00:00:00:00:01", "a=1;a=1", ";", "=", "x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		start := time.Now()
		a, err := parseArgs(s)
		checkError(t, start, err)
		if err != nil {
			return
		}
		for _, p := range a.ports {
			if p.GetPort() == 0 || p.GetPort() > 65535 || p.GetName() == "" || p.GetProtocol() == "" {
				t.Errorf("port %v", p)
			}
		}
		for _, l := range a.labels {
			if l == "" {
				t.Error("empty label")
			}
		}
	})
}
