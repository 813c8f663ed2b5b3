package maps

// Flags of Config.
const (
	ConfigIPv4         = uint32(rawConfigFlagsCFG_IPV4)
	ConfigIPv6         = uint32(rawConfigFlagsCFG_IPV6)
	ConfigOverlay      = uint32(rawConfigFlagsCFG_OVERLAY)
	ConfigMasq4        = uint32(rawConfigFlagsCFG_MASQ4)
	ConfigMasq6        = uint32(rawConfigFlagsCFG_MASQ6)
	ConfigEvents       = uint32(rawConfigFlagsCFG_EVENTS)
	ConfigTrace        = uint32(rawConfigFlagsCFG_TRACE)
	ConfigAccounting   = uint32(rawConfigFlagsCFG_ACCOUNTING)
	ConfigRedirectPeer = uint32(rawConfigFlagsCFG_REDIRECT_PEER)
	ConfigSockHost     = uint32(rawConfigFlagsCFG_SOCK_HOST)
	ConfigRetval       = uint32(rawConfigFlagsCFG_RETVAL)
	ConfigServices     = uint32(rawConfigFlagsCFG_SERVICES)
	ConfigReject       = uint32(rawConfigFlagsCFG_REJECT)
	ConfigDSRTCP       = uint32(rawConfigFlagsCFG_DSR_TCP)
	ConfigDSRUDP       = uint32(rawConfigFlagsCFG_DSR_UDP)
	ConfigDSRGeneve    = uint32(rawConfigFlagsCFG_DSR_GENEVE)
	ConfigDSRIPIP      = uint32(rawConfigFlagsCFG_DSR_IPIP)
)

// Rows of xdp_count_v1.
const (
	FastSent = uint32(rawFastCountFAST_SENT)
	FastLeft = uint32(rawFastCountFAST_LEFT)
)

// Flags of CTValue.
const (
	CTOrigHigh  = uint16(rawCtFlagsCT_F_ORIG_HIGH)
	CTSeenReply = uint16(rawCtFlagsCT_F_SEEN_REPLY)
	CTFinOrig   = uint16(rawCtFlagsCT_F_FIN_ORIG)
	CTFinReply  = uint16(rawCtFlagsCT_F_FIN_REPLY)
	CTRst       = uint16(rawCtFlagsCT_F_RST)
	CTAudit     = uint16(rawCtFlagsCT_F_AUDIT)
	CTNAT       = uint16(rawCtFlagsCT_F_NAT)
	CTService   = uint16(rawCtFlagsCT_F_SERVICE)
	CTHere      = uint16(rawCtFlagsCT_F_HERE)
	CTThere     = uint16(rawCtFlagsCT_F_THERE)
)

// Flags of Area, Device, Endpoint, IPCacheValue, PolicyValue and State.
const (
	AreaStrict       = uint32(rawAreaFlagsAREA_F_STRICT)
	DeviceL3         = uint32(rawDeviceFlagsDEV_F_L3)
	EndpointAudit    = uint16(rawEndpointFlagsEP_F_AUDIT)
	EndpointNoMasq   = uint16(rawEndpointFlagsEP_F_NO_MASQ)
	IPCacheNode      = uint32(rawIpcacheFlagsIPC_F_NODE)
	IPCacheNoMasq    = uint32(rawIpcacheFlagsIPC_F_NO_MASQ)
	IPCacheLocalCIDR = uint32(rawIpcacheFlagsIPC_F_LOCAL_CIDR)
	IPCacheTunnel    = uint32(rawIpcacheFlagsIPC_F_TUNNEL)
	PolicyOverflow   = uint16(rawPolicyFlagsPOLICY_F_OVERFLOW)
	StateAudit       = uint32(rawStateFlagsSTATE_F_AUDIT)
)

// Flags of PrefilterState, and numbers of the family in PrefilterKey and AreaKey.
const (
	PrefilterPrefix4 = uint32(rawPrefilterFlagsPREFILTER_F_PREFIX4)
	PrefilterPrefix6 = uint32(rawPrefilterFlagsPREFILTER_F_PREFIX6)

	FamilyIPv4 = uint32(rawFamilyFAMILY_IPV4)
	FamilyIPv6 = uint32(rawFamilyFAMILY_IPV6)
)

// Flags of a row of lb_address_v1, and of LBFrontend.
const (
	LBAddressVIP  = uint32(rawLbAddressFlagsLB_A_VIP)
	LBAddressNode = uint32(rawLbAddressFlagsLB_A_NODE)

	LBRangesDeny = uint8(rawLbFrontendFlagsLB_F_RANGES_DENY)
	LBLocal      = uint8(rawLbFrontendFlagsLB_F_LOCAL)
)

// Numbers of LBFrontendKey.Scope and LBAffinityKey.Kind.
const (
	LBExternal = uint8(rawLbScopeLB_EXTERNAL)
	LBInternal = uint8(rawLbScopeLB_INTERNAL)

	LBClientAddress = uint8(rawLbClientLB_CLIENT_ADDRESS)
	LBClientNetns   = uint8(rawLbClientLB_CLIENT_NETNS)
	LBClientSocket  = uint8(rawLbClientLB_CLIENT_SOCKET)
)

// LBPiece is how many indexes of a Maglev table one LBMaglev holds.
const LBPiece = len(LBMaglev{}.Index)

// Numbers of NATKey.Dir, PolicyKey.Dir and PolicyEntry.Verdict.
const (
	NATForward = uint8(rawNatDirNAT_FORWARD)
	NATReverse = uint8(rawNatDirNAT_REVERSE)

	PolicyIngress = uint32(rawPolicyDirPOLICY_INGRESS)
	PolicyEgress  = uint32(rawPolicyDirPOLICY_EGRESS)

	VerdictDeny     = uint8(rawPolicyVerdictVERDICT_DENY)
	VerdictAllow    = uint8(rawPolicyVerdictVERDICT_ALLOW)
	VerdictRedirect = uint8(rawPolicyVerdictVERDICT_REDIRECT)
	VerdictAuth     = uint8(rawPolicyVerdictVERDICT_AUTH)
	VerdictMask     = uint8(rawPolicyVerdictVERDICT_MASK)
	VerdictAudit    = uint8(rawPolicyVerdictVERDICT_F_AUDIT)
)

// PolicyListMax is the number of entries of a PolicyValue; ClassAny the class of peers that no selector names.
const (
	PolicyListMax = len(PolicyValue{}.Entry)
	ClassAny      = uint32(0)
)

// Event.Type.
const (
	EventDrop          = uint8(rawEventTypeEVENT_DROP)
	EventTrace         = uint8(rawEventTypeEVENT_TRACE)
	EventPolicyVerdict = uint8(rawEventTypeEVENT_POLICY_VERDICT)
	EventTraceSock     = uint8(rawEventTypeEVENT_TRACE_SOCK)
)

// Event.Flags.
const (
	EventReply      = uint8(rawEventFlagsEVENT_F_REPLY)
	EventReplyKnown = uint8(rawEventFlagsEVENT_F_REPLY_KNOWN)
	EventIngress    = uint8(rawEventFlagsEVENT_F_INGRESS)
	EventEgress     = uint8(rawEventFlagsEVENT_F_EGRESS)
	EventAudit      = uint8(rawEventFlagsEVENT_F_AUDIT)
	EventFragment   = uint8(rawEventFlagsEVENT_F_FRAGMENT)
	EventTunnel     = uint8(rawEventFlagsEVENT_F_TUNNEL)
	EventL4         = uint8(rawEventFlagsEVENT_F_L4)
)

// Event.Code of a trace.
const (
	TraceToEndpoint   = uint8(rawTracePointTRACE_TO_ENDPOINT)
	TraceToProxy      = uint8(rawTracePointTRACE_TO_PROXY)
	TraceToHost       = uint8(rawTracePointTRACE_TO_HOST)
	TraceToStack      = uint8(rawTracePointTRACE_TO_STACK)
	TraceToOverlay    = uint8(rawTracePointTRACE_TO_OVERLAY)
	TraceFromEndpoint = uint8(rawTracePointTRACE_FROM_ENDPOINT)
	TraceFromHost     = uint8(rawTracePointTRACE_FROM_HOST)
	TraceFromStack    = uint8(rawTracePointTRACE_FROM_STACK)
	TraceFromOverlay  = uint8(rawTracePointTRACE_FROM_OVERLAY)
	TraceFromNetwork  = uint8(rawTracePointTRACE_FROM_NETWORK)
	TraceToNetwork    = uint8(rawTracePointTRACE_TO_NETWORK)
)

// SockEvent.Code of EventTraceSock.
const (
	SockPreFwd  = uint8(rawSockPointSOCK_PRE_FWD)
	SockPostFwd = uint8(rawSockPointSOCK_POST_FWD)
	SockPreRev  = uint8(rawSockPointSOCK_PRE_REV)
	SockPostRev = uint8(rawSockPointSOCK_POST_REV)
)

// Event.Reason of a trace.
const (
	ReasonUnknown     = uint8(rawTraceReasonREASON_UNKNOWN)
	ReasonNew         = uint8(rawTraceReasonREASON_NEW)
	ReasonEstablished = uint8(rawTraceReasonREASON_ESTABLISHED)
	ReasonReply       = uint8(rawTraceReasonREASON_REPLY)
	ReasonRelated     = uint8(rawTraceReasonREASON_RELATED)
	ReasonReopened    = uint8(rawTraceReasonREASON_REOPENED)
)

// Event.Code of a drop: the numbers of the flow API.
const (
	DropSourceMAC       = uint8(rawDropReasonDROP_SOURCE_MAC)
	DropSourceIP        = uint8(rawDropReasonDROP_SOURCE_IP)
	DropPolicy          = uint8(rawDropReasonDROP_POLICY)
	DropInvalid         = uint8(rawDropReasonDROP_INVALID)
	DropTruncated       = uint8(rawDropReasonDROP_TRUNCATED)
	DropL4Protocol      = uint8(rawDropReasonDROP_L4PROTOCOL)
	DropL3Protocol      = uint8(rawDropReasonDROP_L3PROTOCOL)
	DropWrite           = uint8(rawDropReasonDROP_WRITE)
	DropTunnelKey       = uint8(rawDropReasonDROP_TUNNEL_KEY)
	DropL3Target        = uint8(rawDropReasonDROP_L3TARGET)
	DropUnroutable      = uint8(rawDropReasonDROP_UNROUTABLE)
	DropCTFull          = uint8(rawDropReasonDROP_CT_FULL)
	DropExtensionHeader = uint8(rawDropReasonDROP_EXTENSION_HEADER)
	DropFragment        = uint8(rawDropReasonDROP_FRAGMENT)
	DropNoService       = uint8(rawDropReasonDROP_NO_SERVICE)
	DropNoTunnel        = uint8(rawDropReasonDROP_NO_TUNNEL)
	DropCTState         = uint8(rawDropReasonDROP_CT_STATE)
	DropNoPolicy        = uint8(rawDropReasonDROP_NO_POLICY)
	DropNATNoMapping    = uint8(rawDropReasonDROP_NAT_NO_MAPPING)
	DropNATProtocol     = uint8(rawDropReasonDROP_NAT_PROTOCOL)
	DropFIB             = uint8(rawDropReasonDROP_FIB)
	DropEncapsulation   = uint8(rawDropReasonDROP_ENCAPSULATION)
	DropIdentity        = uint8(rawDropReasonDROP_IDENTITY)
	DropUnknownSender   = uint8(rawDropReasonDROP_UNKNOWN_SENDER)
	DropFirstFragment   = uint8(rawDropReasonDROP_FIRST_FRAGMENT)
	DropICMPv6Forbidden = uint8(rawDropReasonDROP_ICMPV6FORBIDDEN)
	DropSourceRange     = uint8(rawDropReasonDROP_SOURCE_RANGE)
	DropProxy           = uint8(rawDropReasonDROP_PROXY)
	DropPolicyDeny      = uint8(rawDropReasonDROP_POLICY_DENY)
	DropVLAN            = uint8(rawDropReasonDROP_VLAN)
	DropAuth            = uint8(rawDropReasonDROP_AUTH)
	DropTTL             = uint8(rawDropReasonDROP_TTL)
	DropMulticast       = uint8(rawDropReasonDROP_MULTICAST)
)

// SourceFile names Event.File: the header or program, under bpf/, that dropped the packet.
func SourceFile(n uint8) string {
	switch rawSourceFile(n) {
	case rawSourceFileFILE_POD:
		return "pod/pod.bpf.c"
	case rawSourceFileFILE_OVERLAY:
		return "overlay/overlay.bpf.c"
	case rawSourceFileFILE_HOST:
		return "host/host.bpf.c"
	case rawSourceFileFILE_PARSE:
		return "lib/parse.h"
	case rawSourceFileFILE_EXT:
		return "lib/ext.h"
	case rawSourceFileFILE_FRAG:
		return "lib/frag.h"
	case rawSourceFileFILE_QUOTE:
		return "lib/quote.h"
	case rawSourceFileFILE_CONN:
		return "lib/conn.h"
	case rawSourceFileFILE_POLICY:
		return "lib/policy.h"
	case rawSourceFileFILE_DELIVER:
		return "lib/deliver.h"
	case rawSourceFileFILE_NAT:
		return "lib/masq.h"
	case rawSourceFileFILE_REWRITE:
		return "lib/rewrite.h"
	case rawSourceFileFILE_NEIGH:
		return "lib/arp.h, lib/ndp.h"
	case rawSourceFileFILE_OUTSIDE:
		return "lib/outside.h"
	case rawSourceFileFILE_TUNNEL:
		return "lib/tunnel.h"
	case rawSourceFileFILE_SOCK:
		return "sock/sock.bpf.c"
	case rawSourceFileFILE_SERVICE:
		return "lib/svc.h, lib/unsvc.h"
	case rawSourceFileFILE_FORWARD:
		return "lib/forward.h"
	case rawSourceFileFILE_DSR:
		return "lib/dsr.h, lib/undsr.h"
	}
	return ""
}
