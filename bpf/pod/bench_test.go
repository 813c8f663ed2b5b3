package pod_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hypha-net/hypha/bpf/maps"
	"github.com/hypha-net/hypha/bpf/pod"
	"github.com/hypha-net/hypha/internal/testutil/bpftest"
)

// BenchmarkFromPod measures the program alone, on a packet to a workload of the same node. All MACs are equal, so that a
// frame that was delivered can be sent again.
func BenchmarkFromPod(b *testing.B) {
	for name, flags := range map[string]uint32{"events": bpftest.AllOn &^ maps.ConfigAccounting, "quiet": bpftest.AllOff | maps.ConfigRedirectPeer} {
		cfg := bpftest.Defaults()
		cfg.Flags = flags
		w := bpftest.NewWorld(b, bpftest.Config{Config: cfg})
		for _, p := range []*bpftest.Pod{&w.Pod1, &w.Pod2} {
			p.HostMAC, p.MAC = w.Pod1.MAC, w.Pod1.MAC
			w.PutPod(*p)
		}
		for v, version := range versions {
			f := w.Pod1.Flow(w.Pod2.Addr(v), 40000, 80)
			run := func(b *testing.B, frame []byte) {
				const repeat = 200000
				var total time.Duration
				for range b.N {
					took, err := w.Bench(pod.FromPod, w.Pod1.Dev, frame, repeat)
					if err != nil {
						b.Fatal(err)
					}
					total += took
				}
				b.ReportMetric(float64(total.Nanoseconds())/float64(b.N), "ns/packet")
				b.ReportMetric(0, "ns/op")
			}
			b.Run(name+"/"+version+"/established", func(b *testing.B) {
				w.MustRun(pod.FromPod, w.Pod1.Dev, f.TCP("S"))
				w.MustRun(pod.FromPod, w.Pod2.Dev, w.Pod2.Flow(w.Pod1.Addr(v), 80, 40000).TCP("SA"))
				w.MustRun(pod.FromPod, w.Pod1.Dev, f.TCP("A"))
				run(b, f.TCP("A"))
			})
			// Not on record, judged by both policies, denied: all of a new connection's way but the writing of its row.
			b.Run(name+"/"+version+"/judged", func(b *testing.B) {
				w.PutPolicy(2, maps.ClassAny, maps.PolicyIngress, maps.PolicyValue{DefaultVerdict: maps.VerdictAllow},
					maps.PolicyEntry{Proto: 17, PortLo: 81, PortHi: 81})
				run(b, w.Pod1.Flow(w.Pod2.Addr(v), 40000, 81).UDP())
			})
			// The same where policies have blocks of addresses: elsewhere, and around both workloads. Each side is asked once.
			b.Run(name+"/"+version+"/judged beside blocks", func(b *testing.B) {
				for i := range 400 {
					a := netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
					if v == 1 {
						a = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 14: byte(i >> 8), 15: byte(i)})
					}
					w.Put(w.Maps.AreaV1, maps.AreaKeyFrom(netip.PrefixFrom(a, a.BitLen())), maps.Area{Id: uint32(10 + i)})
				}
				run(b, w.Pod1.Flow(w.Pod2.Addr(v), 40000, 81).UDP())
			})
			b.Run(name+"/"+version+"/judged in a block", func(b *testing.B) {
				for i, p := range []bpftest.Pod{w.Pod1, w.Pod2} {
					w.Put(w.Maps.AreaV1, maps.AreaKeyFrom(netip.PrefixFrom(p.Addr(v), 8).Masked()), maps.Area{Id: 1})
					w.Put(w.Maps.ClassAtV1, maps.Peer{Identity: p.Identity, Area: 1}, uint32(11+i))
				}
				run(b, w.Pod1.Flow(w.Pod2.Addr(v), 40000, 81).UDP())
			})
			b.Run(name+"/"+version+"/refused", func(b *testing.B) {
				run(b, w.Pod2.Flow(w.Pod1.Addr(v), 1, 2).UDP()) // source address of another device
			})
		}
	}
}
