package lb

import (
	"context"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ciliumv2 "github.com/hypha-net/hypha/api/k8s/cilium.io/v2"
	"github.com/hypha-net/hypha/internal/control/lbipam"
)

// Conditions of services and pools.
const (
	conditionSatisfied = "cilium.io/IPAMRequestSatisfied"
	conditionConflict  = "cilium.io/PoolConflict"
	conditionTotal     = "cilium.io/IPsTotal"
	conditionAvailable = "cilium.io/IPsAvailable"
	conditionUsed      = "cilium.io/IPsUsed"
	reasonNone         = "noreason" // a number has none
)

// served says whether a service was served from here.
func served(s *corev1.Service) bool {
	return meta.FindStatusCondition(s.Status.Conditions, conditionSatisfied) != nil
}

// addresses are those that a service's status has.
func addresses(s *corev1.Service) (out []netip.Addr) {
	for _, in := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// write makes the service's status say what it has.
func (b *balancer) write(ctx context.Context, s *corev1.Service, a lbipam.Answer) error {
	if s.DeletionTimestamp != nil {
		return nil
	}
	old := s.DeepCopy()
	if !slices.Equal(addresses(s), a.IPs) || len(s.Status.LoadBalancer.Ingress) != len(a.IPs) {
		s.Status.LoadBalancer.Ingress = nil
		for _, ip := range a.IPs {
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip.String()})
		}
	}
	c := metav1.Condition{Type: conditionSatisfied, Status: metav1.ConditionTrue, Reason: a.Reason, Message: a.Message, ObservedGeneration: s.Generation}
	if !a.Satisfied() {
		c.Status = metav1.ConditionFalse
	}
	meta.SetStatusCondition(&s.Status.Conditions, c)
	return b.patch(ctx, s, old)
}

// leave takes back what a service has from here that is served by somebody else now, or by nobody.
func (b *balancer) leave(ctx context.Context, s *corev1.Service) error {
	if !served(s) || s.DeletionTimestamp != nil {
		return nil
	}
	old := s.DeepCopy()
	meta.RemoveStatusCondition(&s.Status.Conditions, conditionSatisfied)
	if given, ok := b.given[client.ObjectKeyFromObject(s)]; ok && slices.Equal(addresses(s), given) {
		s.Status.LoadBalancer.Ingress = nil
	}
	return b.patch(ctx, s, old)
}

func (b *balancer) patch(ctx context.Context, s, old *corev1.Service) error {
	if equality.Semantic.DeepEqual(s.Status, old.Status) {
		return nil
	}
	return client.IgnoreNotFound(b.c.Status().Patch(ctx, s, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{})))
}

// writePool makes the pool's status say how it fares.
func (b *balancer) writePool(ctx context.Context, p *ciliumv2.CiliumLoadBalancerIPPool, st lbipam.PoolState) error {
	old := p.DeepCopy()
	set := func(kind string, status metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: p.Generation})
	}
	status := metav1.ConditionFalse
	if st.Conflict() {
		status = metav1.ConditionTrue
	}
	set(conditionConflict, status, st.Reason, st.Message)
	set(conditionTotal, metav1.ConditionUnknown, reasonNone, st.Total.String())
	set(conditionAvailable, metav1.ConditionUnknown, reasonNone, st.Available.String())
	set(conditionUsed, metav1.ConditionUnknown, reasonNone, st.Used.String())
	if equality.Semantic.DeepEqual(p.Status, old.Status) {
		return nil
	}
	return client.IgnoreNotFound(b.c.Status().Patch(ctx, p, client.MergeFrom(old)))
}
