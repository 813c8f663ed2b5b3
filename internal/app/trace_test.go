package app

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hypha-net/hypha/internal/control/policy"
	"github.com/hypha-net/hypha/internal/model"
)

func TestWorkloadLabels(t *testing.T) {
	for in, want := range map[string][]string{
		"id=a":                                  {"k8s:id=a", "k8s:io.cilium.k8s.policy.cluster=c", "k8s:io.kubernetes.pod.namespace=default"},
		"k8s:io.kubernetes.pod.namespace=other": {"k8s:io.cilium.k8s.policy.cluster=c", "k8s:io.kubernetes.pod.namespace=other"},
		"reserved:world":                        {"reserved:world"},
		"cidr:10.0.0.0/8":                       {"cidr:10.0.0.0/8"},
	} {
		ls, err := model.ParseLabels([]string{in}, model.SourceK8s)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, workloadLabels(ls, "c").Strings()); d != "" {
			t.Error(d)
		}
	}
}

func TestAuditNode(t *testing.T) {
	const allow, deny, audit = model.VerdictAllow, model.VerdictDeny, model.VerdictDeny | model.VerdictAudit
	for _, c := range []struct {
		egress, ingress  uint8
		srcAway, dstAway bool
		want             uint8
	}{
		{allow, allow, false, false, allow},
		{deny, allow, false, false, audit},
		{allow, deny, false, false, audit},
		{deny, deny, true, false, deny},
		{deny, deny, false, true, deny},
		{audit, allow, true, false, audit},
	} {
		res := policy.TraceResult{Egress: &policy.Judgement{Verdict: c.egress}, Ingress: &policy.Judgement{Verdict: c.ingress}}
		if auditNode(&res, c.srcAway, c.dstAway); res.Verdict != c.want {
			t.Errorf("%+v: %d", c, res.Verdict)
		}
	}
	res := policy.TraceResult{Ingress: &policy.Judgement{Verdict: deny}}
	if auditNode(&res, false, false); res.Verdict != audit {
		t.Errorf("without egress: %d", res.Verdict)
	}
}
