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
)

// Flags of Device, Endpoint, IPCacheValue, PolicyValue and State.
const (
	DeviceL3         = uint32(rawDeviceFlagsDEV_F_L3)
	EndpointAudit    = uint16(rawEndpointFlagsEP_F_AUDIT)
	IPCacheNode      = uint32(rawIpcacheFlagsIPC_F_NODE)
	IPCacheNoMasq    = uint32(rawIpcacheFlagsIPC_F_NO_MASQ)
	IPCacheLocalCIDR = uint32(rawIpcacheFlagsIPC_F_LOCAL_CIDR)
	IPCacheTunnel    = uint32(rawIpcacheFlagsIPC_F_TUNNEL)
	PolicyOverflow   = uint16(rawPolicyFlagsPOLICY_F_OVERFLOW)
	StateAudit       = uint32(rawStateFlagsSTATE_F_AUDIT)
)

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

// Event.Reason of a trace.
const (
	ReasonUnknown     = uint8(rawTraceReasonREASON_UNKNOWN)
	ReasonNew         = uint8(rawTraceReasonREASON_NEW)
	ReasonEstablished = uint8(rawTraceReasonREASON_ESTABLISHED)
	ReasonReply       = uint8(rawTraceReasonREASON_REPLY)
	ReasonRelated     = uint8(rawTraceReasonREASON_RELATED)
	ReasonReopened    = uint8(rawTraceReasonREASON_REOPENED)
)
