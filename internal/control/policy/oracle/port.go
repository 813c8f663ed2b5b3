package oracle

import (
	"strconv"
	"strings"

	v2 "github.com/hypha-net/hypha/api/cilium/v2"
	"github.com/hypha-net/hypha/internal/model"
)

// onPort says whether a port of toPorts means the packet's.
func onPort(p v2.PortProtocol, named []model.NamedPort, pkt Packet) bool {
	proto := map[uint8]string{6: "TCP", 17: "UDP", 132: "SCTP"}[pkt.Proto]
	want := strings.ToUpper(string(p.Protocol))
	if proto == "" || want != "" && want != "ANY" && want != proto {
		return false
	}
	n, err := strconv.Atoi(p.Port)
	if err != nil {
		for _, q := range named {
			if strings.EqualFold(q.Name, p.Port) && q.Proto == pkt.Proto && q.Port == pkt.Port {
				return true
			}
		}
		return false
	}
	return n == 0 || n == int(pkt.Port) || p.EndPort > 0 && n <= int(pkt.Port) && int(pkt.Port) <= int(p.EndPort)
}

// onType says whether an ICMP field means the packet's type.
func onType(f v2.ICMPField, pkt Packet) bool {
	names, proto := icmpNames, uint8(1)
	if f.Family == "IPv6" {
		names, proto = icmpv6Names, 58
	}
	typ := f.Type.Number
	if f.Type.Name != "" {
		var ok bool
		if typ, ok = names[f.Type.Name]; !ok {
			return false
		}
	}
	return pkt.Proto == proto && pkt.Port == uint16(typ)
}

// What the packets of the tests can be, as IANA numbers them.
var (
	icmpNames   = map[string]uint8{"EchoReply": 0, "Echo": 8, "EchoRequest": 8, "Timestamp": 13}
	icmpv6Names = map[string]uint8{"EchoRequest": 128, "EchoReply": 129, "ICMPNodeInformationQuery": 139}
)
