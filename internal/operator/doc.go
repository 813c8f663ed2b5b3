// Package operator does what has to be done once for a whole cluster on Kubernetes: the definitions of the resources of cilium.io, pod
// ranges of nodes, addresses of LoadBalancer services, the taint of nodes that wait for their agent, and what nobody uses any more.
//
// Several may run; one of them, that holds the lease, works. What a new leader finds it adopts before it gives anything. What is
// decided is decided in internal/control (lbipam, ipam, garbage, slicing); the packages below ask it and write what it says:
//
//	crd           definitions, before anything else
//	clusterpool   CiliumNode.spec.ipam.podCIDRs
//	multipool     CiliumNode.spec.ipam.pools, out of CiliumPodIPPools
//	lb            Service.status.loadBalancer, and the status of CiliumLoadBalancerIPPools
//	identity      CiliumIdentities that no workload has
//	endpoint      CiliumEndpoints whose pod is gone
//	endpointslice CiliumEndpointSlices, made of CiliumEndpoints
//	policystatus  whether policies are understood, in their status
//	node          CiliumNodes whose Node is gone
//	unmanaged     restarts pods of the cluster's DNS that have no endpoint
//	taint         node.cilium.io/agent-not-ready, and the condition NetworkUnavailable
package operator
