package v2

// PortRule is a set of ports; a packet needs to match one of them.
//
// +kubebuilder:pruning:PreserveUnknownFields
type PortRule struct {
	// +kubebuilder:validation:MaxItems=40
	Ports []PortProtocol `json:"ports,omitzero"`
}

// Protocol is the L4 protocol of a port.
//
// +kubebuilder:validation:Enum=TCP;UDP;SCTP;ANY
type Protocol string

// The protocols of ports. ProtoAny, and no protocol at all, stand for the other three.
const (
	ProtoAny  Protocol = "ANY"
	ProtoTCP  Protocol = "TCP"
	ProtoUDP  Protocol = "UDP"
	ProtoSCTP Protocol = "SCTP"
)

// PortProtocol is one port, a range (Port..EndPort), every port of the protocol (Port "0"), or a port by its name.
//
// +kubebuilder:pruning:PreserveUnknownFields
type PortProtocol struct {
	Port     string   `json:"port"`
	EndPort  int32    `json:"endPort,omitempty"`
	Protocol Protocol `json:"protocol,omitempty"`
}

// ICMPRule is a set of ICMP types.
//
// +kubebuilder:pruning:PreserveUnknownFields
type ICMPRule struct {
	// +kubebuilder:validation:MaxItems=40
	Fields []ICMPField `json:"fields,omitzero"`
}

// The families of an ICMPField.
const (
	FamilyIPv4 = "IPv4"
	FamilyIPv6 = "IPv6"
)

// ICMPField is one ICMP type of one IP version.
//
// +kubebuilder:pruning:PreserveUnknownFields
type ICMPField struct {
	// +kubebuilder:validation:Enum=IPv4;IPv6
	Family string `json:"family,omitempty"` // IPv4 when empty
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	Type *ICMPType `json:"type"`
}
