package v2

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// ICMPType is a type as it was written: a number (JSON number or a string of digits) or a name.
type ICMPType struct {
	Number uint8  `json:"-"` // written by the type itself
	Name   string `json:"-"` // "" when written as a number
}

// MarshalJSON writes the number, or the name as a string.
func (t ICMPType) MarshalJSON() ([]byte, error) {
	if t.Name != "" {
		return json.Marshal(t.Name)
	}
	return json.Marshal(t.Number)
}

// UnmarshalJSON reads a number or a string. Whether a name exists in the field's family is not checked here.
func (t *ICMPType) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	switch v := v.(type) {
	case float64:
		if v != float64(uint8(v)) {
			return fmt.Errorf("ICMP type %v: want 0..255", v)
		}
		*t = ICMPType{Number: uint8(v)}
		return nil
	case string:
		return t.Set(v)
	}
	return fmt.Errorf("ICMP type: want a number or a name")
}

// Set reads the written form.
func (t *ICMPType) Set(s string) error {
	if s == "" {
		return fmt.Errorf("ICMP type: want a number or a name")
	}
	if s[0] >= '0' && s[0] <= '9' || s[0] == '-' || s[0] == '+' {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil {
			return fmt.Errorf("ICMP type %q: want 0..255", s)
		}
		*t = ICMPType{Number: uint8(n)}
		return nil
	}
	*t = ICMPType{Name: s}
	return nil
}

// Resolve is the number of the type in a family ("" is IPv4); false when the name does not exist there.
func (t ICMPType) Resolve(family string) (uint8, bool) {
	if t.Name == "" {
		return t.Number, true
	}
	names := icmpv4Names
	if family == FamilyIPv6 {
		names = icmpv6Names
	}
	n, ok := names[t.Name]
	return n, ok
}

// Numbers: IANA "ICMP Parameters" and "ICMPv6 Parameters".
var icmpv4Names = map[string]uint8{
	"EchoReply": 0, "DestinationUnreachable": 3, "Redirect": 5, "Echo": 8, "EchoRequest": 8,
	"RouterAdvertisement": 9, "RouterSelection": 10, "TimeExceeded": 11, "ParameterProblem": 12,
	"Timestamp": 13, "TimestampReply": 14, "Photuris": 40, "ExtendedEchoRequest": 42, "ExtendedEchoReply": 43,
}

var icmpv6Names = map[string]uint8{
	"DestinationUnreachable": 1, "PacketTooBig": 2, "TimeExceeded": 3, "ParameterProblem": 4,
	"EchoRequest": 128, "EchoReply": 129, "MulticastListenerQuery": 130, "MulticastListenerReport": 131,
	"MulticastListenerDone": 132, "RouterSolicitation": 133, "RouterAdvertisement": 134,
	"NeighborSolicitation": 135, "NeighborAdvertisement": 136, "RedirectMessage": 137, "RouterRenumbering": 138,
	"ICMPNodeInformationQuery": 139, "ICMPNodeInformationResponse": 140,
	"InverseNeighborDiscoverySolicitation": 141, "InverseNeighborDiscoveryAdvertisement": 142,
	"HomeAgentAddressDiscoveryRequest": 144, "HomeAgentAddressDiscoveryReply": 145,
	"MobilePrefixSolicitation": 146, "MobilePrefixAdvertisement": 147,
	"DuplicateAddressRequestCodeSuffix": 157, "DuplicateAddressConfirmationCodeSuffix": 158,
	"ExtendedEchoRequest": 160, "ExtendedEchoReply": 161,
}
