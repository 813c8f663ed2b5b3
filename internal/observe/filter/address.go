package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

func addresses(b *builder) {
	f := b.f
	anyOf(b, "source_ip", f.GetSourceIp(), prefix, func(f *flowpb.Flow) string { return f.GetIP().GetSource() })
	anyOf(b, "destination_ip", f.GetDestinationIp(), prefix, func(f *flowpb.Flow) string { return f.GetIP().GetDestination() })
	anyOf(b, "source_ip_xlated", f.GetSourceIpXlated(), prefix, func(f *flowpb.Flow) string { return f.GetIP().GetSourceXlated() })
	oneOf(b, "ip_version", f.GetIpVersion(), func(f *flowpb.Flow) flowpb.IPVersion { return f.GetIP().GetIpVersion() })
	oneOf(b, "encrypted", f.GetEncrypted(), func(f *flowpb.Flow) bool { return f.GetIP().GetEncrypted() })
}

// prefix matches one address or those of a CIDR.
func prefix(s string) (func(string) bool, error) {
	if !strings.Contains(s, "/") {
		want, err := netip.ParseAddr(s)
		if err != nil {
			return nil, errors.New("want an IP address or a CIDR")
		}
		want = want.Unmap()
		return func(have string) bool { a, err := netip.ParseAddr(have); return err == nil && a.Unmap() == want }, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return nil, fmt.Errorf("want an IP address or a CIDR")
	}
	p = p.Masked()
	return func(have string) bool { a, err := netip.ParseAddr(have); return err == nil && p.Contains(a.Unmap()) }, nil
}
