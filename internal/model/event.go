package model

import (
	"net/netip"
	"time"
)

// Event is one record of the datapath, decoded but not yet named: what `bpf/maps/event.h` holds, in Go's types.
type Event struct {
	Time        time.Time
	Type        uint8 // 1 drop, 4 trace, 5 policy verdict, 7 translation at a socket
	Code        uint8 // drop reason, trace point, policy verdict or SockPoint
	Reason      uint8 // trace reason or policy match type
	Flags       EventFlags
	Proto       uint8
	TCPFlags    uint8
	EthProto    uint16
	SrcPort     uint16 // ICMP: type
	DstPort     uint16 // ICMP: code
	SrcEndpoint uint16
	DstEndpoint uint16
	SrcIdentity IdentityID
	DstIdentity IdentityID
	Rule        RuleID
	IfIndex     uint32
	Len         uint32
	VNI         uint32
	Src, Dst    netip.Addr     // unmapped
	Xlated      netip.Addr     // the source that it leaves under, if another
	Front       netip.AddrPort // the service that the initiator speaks to, if one
	Tunnel      netip.Addr
	SrcMAC      [6]byte
	DstMAC      [6]byte
	File        uint8
	Line        uint16
	CPU         int

	// Of a socket, where there is no packet yet: its own end has no address. Socket is 0 in events of packets.
	Socket uint64 // cookie
	Cgroup uint64 // control group of the process that asked
	Netns  uint64 // cookie of its network namespace
}

// EventFlags are the bits of `enum event_flags`.
type EventFlags uint8

// The bits of EventFlags, as in bpf/maps/event.h.
const (
	EventReply EventFlags = 1 << iota
	EventReplyKnown
	EventIngress
	EventEgress
	EventAudit
	EventFragment
	EventTunnel
	EventL4
)

// Event types, trace points and verdicts as the datapath numbers them.
const (
	EventDrop          = 1
	EventTrace         = 4
	EventPolicyVerdict = 5
	EventSock          = 7

	SockPreFwd  = 1 // towards the service,
	SockPostFwd = 2 // which is a backend
	SockPreRev  = 3 // from the backend,
	SockPostRev = 4 // which the socket knows as the service

	VerdictDeny     = 0
	VerdictAllow    = 1
	VerdictRedirect = 2
	VerdictAuth     = 3
	VerdictAudit    = 0x80 // flag, with VerdictDeny
)
