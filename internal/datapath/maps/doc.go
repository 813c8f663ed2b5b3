// Package maps owns the kernel maps of one agent: it opens or adopts them under their pins, sizes them, and reads and
// writes their rows in Go's own types. Layouts come from bpf/maps; nothing else in Go spells a row out.
//
// A caller may rely on this: a write that fails leaves nothing behind that lets more through than before; its error is
// returned, counted and shown by List. One agent is the only writer of a directory, except for the rows that the
// datapath writes itself (ct_v1, nat_v2, frag_v1, counters).
package maps
