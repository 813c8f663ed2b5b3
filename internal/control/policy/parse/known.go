package parse

// unsupported are fields of the published language that are refused for now, by Go type and field, with what they are.
var unsupported = map[string]map[string]string{
	"Rule": {"nodeSelector": "policy of the host itself"},
	"IngressRule": {
		"fromGroups": "peers from a cloud provider", "authentication": "mutual authentication",
	},
	"EgressRule": {
		"toFQDNs": "peers by DNS name", "toServices": "peers by service", "toGroups": "peers from a cloud provider",
		"authentication": "mutual authentication",
	},
	"PortRule": {
		"rules": "L7 policy", "serverNames": "policy by TLS server name", "terminatingTLS": "TLS termination",
		"originatingTLS": "TLS origination", "listener": "redirection to an Envoy listener",
	},
	"EgressPeer": {"domainNames": "peers by DNS name"},
}

// ignored are fields that carry no intent: what an API server adds to an object.
var ignored = map[string]map[string]bool{
	"ObjectMeta": {
		"generateName": true, "selfLink": true, "resourceVersion": true, "generation": true, "creationTimestamp": true,
		"deletionTimestamp": true, "deletionGracePeriodSeconds": true, "ownerReferences": true, "finalizers": true,
		"managedFields": true,
	},
	"CiliumNetworkPolicy":            {"status": true},
	"CiliumClusterwideNetworkPolicy": {"status": true},
	"CiliumCIDRGroup":                {"status": true},
	"ClusterNetworkPolicy":           {"status": true},
}
