package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// conf is the network configuration as the runtime hands it over. Keys it does not know are other people's.
type conf struct {
	types.PluginConf

	StateDir string `json:"stateDir"` // of the agent
	NodeName string `json:"nodeName"` // of the agent
	Socket   string `json:"socket"`   // instead of both: the agent's admin socket
	MTU      int    `json:"mtu"`      // of the workload's device, bytes
	LogFile  string `json:"logFile"`

	Args struct {
		Labels labels `json:"labels"`
		CNI    struct {
			Labels labels   `json:"labels"`
			IPs    []string `json:"ips"`
		} `json:"cni"`
	} `json:"args"`

	// RuntimeConfig is what the runtime says for the capabilities ips and mac; others are left to other plugins.
	RuntimeConfig struct {
		IPs []string `json:"ips"`
		MAC string   `json:"mac"`
	} `json:"runtimeConfig"`
}

// labels are written as an object, as a list of {key, value}, or as a list of "key=value".
type labels []string

// UnmarshalJSON implements json.Unmarshaler.
func (l *labels) UnmarshalJSON(data []byte) error {
	*l = nil
	switch data = bytes.TrimSpace(data); {
	case bytes.Equal(data, []byte("null")):
		return nil
	case bytes.HasPrefix(data, []byte("{")):
		var m map[string]string
		if err := json.Unmarshal(data, &m); err != nil {
			return fmt.Errorf("labels: %w", err)
		}
		for k, v := range m {
			*l = append(*l, label(k, v))
		}
		slices.Sort(*l)
		return nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("labels: %w", err)
	}
	for _, raw := range list {
		var s string
		if json.Unmarshal(raw, &s) == nil {
			*l = append(*l, s)
			continue
		}
		var kv struct{ Key, Value string }
		if err := json.Unmarshal(raw, &kv); err != nil || kv.Key == "" {
			return fmt.Errorf("labels: %s is neither \"key=value\" nor {\"key\": ..., \"value\": ...}", raw)
		}
		*l = append(*l, label(kv.Key, kv.Value))
	}
	return nil
}

func label(key, value string) string {
	if value == "" {
		return key
	}
	return key + "=" + value
}

// parseConf reads the configuration. Errors are *types.Error.
func parseConf(data []byte) (*conf, error) {
	c := &conf{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "read network configuration: "+err.Error(), "")
	}
	bad := func(format string, a ...any) error {
		return types.NewError(types.ErrInvalidNetworkConfig, "network configuration: "+fmt.Sprintf(format, a...), "")
	}
	for key, path := range map[string]string{"stateDir": c.StateDir, "socket": c.Socket, "logFile": c.LogFile} {
		if path != "" && (!filepath.IsAbs(path) || strings.ContainsRune(path, 0)) {
			return nil, bad("%s: %q is not an absolute path", key, path)
		}
	}
	switch {
	case c.NodeName != "" && (strings.ContainsAny(c.NodeName, "/\x00") || c.NodeName == "." || c.NodeName == ".."):
		return nil, bad("nodeName: %q is not a node's name", c.NodeName)
	case c.MTU != 0 && (c.MTU < 1280 || c.MTU > 65535):
		return nil, bad("mtu: %d is not from 1280 to 65535", c.MTU)
	case c.IPAM.Type != "":
		return nil, types.NewError(types.ErrUnsupportedField, fmt.Sprintf(
			"network configuration: ipam: hypha-cni gives out addresses itself, %q cannot be used; remove the section", c.IPAM.Type), "")
	}
	return c, nil
}

// wishes are the addresses that the configuration asks for, at most one of each version. A prefix length is cut off.
func (c *conf) wishes(fromArgs string) (v4, v6 string, err error) {
	list := slices.Concat(c.RuntimeConfig.IPs, c.Args.CNI.IPs)
	if fromArgs != "" {
		list = append(list, strings.Split(fromArgs, ",")...)
	}
	for _, s := range list {
		bare, _, _ := strings.Cut(strings.TrimSpace(s), "/")
		a, perr := netip.ParseAddr(bare)
		if perr != nil || a.Zone() != "" {
			return "", "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("%q is not an address", s), "")
		}
		p := &v6
		if a = a.Unmap(); a.Is4() {
			p = &v4
		}
		if *p != "" && *p != a.String() {
			return "", "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("two addresses of one version: %s, %s", *p, a), "")
		}
		*p = a.String()
	}
	return v4, v6, nil
}
