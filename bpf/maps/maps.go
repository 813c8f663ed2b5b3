// Package maps declares every map that the kernel's programs share, and gives Go the layout of their rows: the types
// are generated from the object's BTF, this file only names them. The loader creates the maps from Spec, sizes them,
// and gives them to the program objects by name (ebpf.CollectionOptions.MapReplacements).
package maps

import (
	"net/netip"

	"github.com/cilium/ebpf"
)

// Rows, keys and the constants of a program object. The headers beside this file describe their fields.
type (
	Addr              = rawAddr
	Area              = rawArea
	AreaKey           = rawAreaKey
	Config            = rawConfig
	CTKey             = rawCtKey
	CTValue           = rawCtValue
	Device            = rawDevice
	Endpoint          = rawEndpoint
	Event             = rawEvent
	EventCount        = rawEventCount
	FragKey           = rawFragKey
	FragValue         = rawFragValue
	IPCacheKey        = rawIpcacheKey
	IPCacheValue      = rawIpcacheValue
	LBAffinity        = rawLbAffinity
	LBAffinityKey     = rawLbAffinityKey
	LBBackend         = rawLbBackend
	LBFrontend        = rawLbFrontend
	LBFrontendKey     = rawLbFrontendKey
	LBMaglev          = rawLbMaglev
	LBMaglevKey       = rawLbMaglevKey
	LBMember          = rawLbMember
	LBReverse         = rawLbReverse
	LBReverseKey      = rawLbReverseKey
	LBSlotKey         = rawLbSlotKey
	LBSourceKey       = rawLbSourceKey
	Metric            = rawMetric
	NATKey            = rawNatKey
	NATValue          = rawNatValue
	Peer              = rawPeer
	PolicyEntry       = rawPolicyEntry
	PolicyKey         = rawPolicyKey
	PolicyOverflowKey = rawPolicyOverflowKey
	PolicyValue       = rawPolicyValue
	PrefilterKey      = rawPrefilterKey
	PrefilterState    = rawPrefilterState
	SockEvent         = rawSockEvent
	State             = rawState
)

// Maps are the opened maps, one field each; `ebpf` tags carry their names.
type Maps = rawMaps

// Specs are the specifications of the maps, one field each.
type Specs = rawMapSpecs

// ConfigVariable is the name of the variable of type Config in every program object.
const ConfigVariable = "cfg"

// Spec is the specification of all shared maps, sized as declared in the headers.
func Spec() (*ebpf.CollectionSpec, error) { return loadRaw() }

// AddrFrom is the datapath's form of an address: 128 bits, IPv4 as v4-mapped.
func AddrFrom(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	return Addr{B: a.As16()}
}

// Netip is the address with IPv4 unmapped; the zero address (`::`) is returned as the invalid one, because no row of
// the datapath means it.
func (a rawAddr) Netip() netip.Addr {
	if a.B == [16]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom16(a.B).Unmap()
}

// Bits in front of the address in a key of a prefix, and in front of the IPv4 address in an Addr.
const (
	keyPadBits   = 32
	v4MappedBits = 96
)

// IPCacheKeyFrom is the key of a prefix in the LPM map ipcache_v1. The prefix is masked.
func IPCacheKeyFrom(p netip.Prefix) IPCacheKey {
	p = p.Masked()
	return IPCacheKey{Prefixlen: keyBits(p), Addr: AddrFrom(p.Addr())}
}

// keyBits is the length of a prefix in a key that has 32 bits in front of the address.
func keyBits(p netip.Prefix) uint32 {
	bits := keyPadBits + p.Bits()
	if p.Addr().Is4() {
		bits += v4MappedBits
	}
	return uint32(bits)
}

// Prefix is the prefix that an IPCacheKey stands for.
func (k rawIpcacheKey) Prefix() netip.Prefix {
	a := netip.AddrFrom16(k.Addr.B)
	bits := int(k.Prefixlen) - keyPadBits
	if a.Is4In6() && bits >= v4MappedBits {
		return netip.PrefixFrom(a.Unmap(), bits-v4MappedBits)
	}
	return netip.PrefixFrom(a, bits)
}

// PrefilterKeyFrom is the key of a prefix in the LPM map prefilter_v1. The prefix is masked.
func PrefilterKeyFrom(p netip.Prefix) PrefilterKey {
	p = p.Masked()
	return PrefilterKey{Prefixlen: keyBits(p), Family: familyOf(p), Addr: AddrFrom(p.Addr())}
}

// AreaKeyFrom is the key of a prefix in the LPM map area_v1. The prefix is masked.
func AreaKeyFrom(p netip.Prefix) AreaKey {
	p = p.Masked()
	return AreaKey{Prefixlen: keyBits(p), Family: familyOf(p), Addr: AddrFrom(p.Addr())}
}

func familyOf(p netip.Prefix) uint32 {
	if p.Addr().Is4() {
		return FamilyIPv4
	}
	return FamilyIPv6
}

// Prefix is the prefix that a PrefilterKey stands for.
func (k rawPrefilterKey) Prefix() netip.Prefix { return prefixOf(k.Family, k.Prefixlen, k.Addr) }

// Prefix is the prefix that an AreaKey stands for.
func (k rawAreaKey) Prefix() netip.Prefix { return prefixOf(k.Family, k.Prefixlen, k.Addr) }

func prefixOf(family, prefixlen uint32, addr Addr) netip.Prefix {
	a := netip.AddrFrom16(addr.B)
	bits := int(prefixlen) - keyPadBits
	if family == FamilyIPv4 {
		return netip.PrefixFrom(a.Unmap(), bits-v4MappedBits)
	}
	return netip.PrefixFrom(a, bits)
}

// Bits of a policy_overflow_v1 key: everything but the port, and with the whole port.
const (
	PolicyOverflowAnyPort   = 80
	PolicyOverflowExactPort = 96
)
