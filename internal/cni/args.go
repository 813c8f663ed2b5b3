package cni

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
)

// cniArgs are the KEY=VALUE pairs of CNI_ARGS, separated by ";". Kubernetes' runtimes set the K8S_ ones. Standalone there are
//
//	HYPHA_LABELS=id=app1,team=x        labels, separated by ","
//	HYPHA_LABEL_<key>=<value>          one label, for runtimes that allow no "=" in a value
//	HYPHA_NAME, HYPHA_NAMESPACE        of the workload, instead of Kubernetes'
//	HYPHA_NAMED_PORTS=http:80/tcp,...  ports that policies may name
type cniArgs struct {
	name, namespace string
	labels          []string
	ports           []*agentv1.NamedPort
	ip, mac         string
}

const labelPrefix = "HYPHA_LABEL_"

// parseArgs reads CNI_ARGS. Errors are *types.Error.
func parseArgs(s string) (*cniArgs, error) {
	out := &cniArgs{}
	seen := map[string]bool{}
	var unknown []string
	ignore := false
	if s == "" {
		return out, nil
	}
	for pair := range strings.SplitSeq(s, ";") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, badArgs("%q is not KEY=VALUE", pair)
		}
		if seen[key] {
			return nil, badArgs("%s is there twice", key)
		}
		seen[key] = true
		switch key {
		case "IgnoreUnknown":
			var b types.UnmarshallableBool
			if err := b.UnmarshalText([]byte(value)); err != nil {
				return nil, badArgs("%s: %v", key, err)
			}
			ignore = bool(b)
		case "K8S_POD_NAME", "HYPHA_NAME":
			out.name = value
		case "K8S_POD_NAMESPACE", "HYPHA_NAMESPACE":
			out.namespace = value
		case "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID": // CNI_CONTAINERID says it
		case "IP":
			out.ip = value
		case "MAC":
			out.mac = value
		case "HYPHA_LABELS":
			for l := range strings.SplitSeq(value, ",") {
				if l = strings.TrimSpace(l); l != "" {
					out.labels = append(out.labels, l)
				}
			}
		case "HYPHA_NAMED_PORTS":
			ports, err := parsePorts(value)
			if err != nil {
				return nil, badArgs("%s: %v", key, err)
			}
			out.ports = ports
		default:
			if k, ok := strings.CutPrefix(key, labelPrefix); ok && k != "" {
				out.labels = append(out.labels, label(k, value))
			} else {
				unknown = append(unknown, key)
			}
		}
	}
	if len(unknown) > 0 && !ignore {
		return nil, badArgs("unknown: %s (IgnoreUnknown=1 passes over them)", strings.Join(unknown, ", "))
	}
	return out, nil
}

func badArgs(format string, a ...any) error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: "+fmt.Sprintf(format, a...), "")
}

// parsePorts reads "name:number[/protocol],...".
func parsePorts(s string) ([]*agentv1.NamedPort, error) {
	var out []*agentv1.NamedPort
	for one := range strings.SplitSeq(s, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		name, rest, _ := strings.Cut(one, ":")
		number, proto, found := strings.Cut(rest, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		if !found {
			proto = "TCP"
		}
		if name == "" || err != nil || n == 0 || proto == "" {
			return nil, fmt.Errorf("%q is not name:number/protocol", one)
		}
		out = append(out, &agentv1.NamedPort{Name: name, Port: uint32(n), Protocol: strings.ToUpper(proto)})
	}
	return out, nil
}
