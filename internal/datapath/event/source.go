package event

import "github.com/hypha-net/hypha/bpf/maps"

// SourceFiles names the datapath's source files by the number in model.Event.File.
func SourceFiles() map[uint8]string {
	out := map[uint8]string{}
	for n := range 256 {
		if name := maps.SourceFile(uint8(n)); name != "" {
			out[uint8(n)] = name
		}
	}
	return out
}
