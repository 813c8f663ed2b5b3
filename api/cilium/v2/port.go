package v2

// PortRule is a set of ports; a packet needs to match one of them.
type PortRule struct {
	Ports []PortProtocol `json:"ports,omitzero"`
}

// Protocol is the L4 protocol of a port.
type Protocol string

// The protocols of ports. ProtoAny, and no protocol at all, stand for the other three.
const (
	ProtoAny  Protocol = "ANY"
	ProtoTCP  Protocol = "TCP"
	ProtoUDP  Protocol = "UDP"
	ProtoSCTP Protocol = "SCTP"
)

// PortProtocol is one port, a range (Port..EndPort), every port of the protocol (Port "0"), or a port by its name.
type PortProtocol struct {
	Port     string   `json:"port"`
	EndPort  int32    `json:"endPort,omitempty"`
	Protocol Protocol `json:"protocol,omitempty"`
}

// ICMPRule is a set of ICMP types.
type ICMPRule struct {
	Fields []ICMPField `json:"fields,omitzero"`
}

// The families of an ICMPField.
const (
	FamilyIPv4 = "IPv4"
	FamilyIPv6 = "IPv6"
)

// ICMPField is one ICMP type of one IP version.
type ICMPField struct {
	Family string    `json:"family,omitempty"` // IPv4 when empty
	Type   *ICMPType `json:"type"`
}
