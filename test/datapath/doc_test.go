// Package datapath_test holds the datapath's programs, run packet by packet in the kernel, against a model of what
// docs/architecture.md says they do: verdict, drop reason, the rule behind it, and every byte of what goes on. The model
// shares no code with the C: it works on slices and addresses, and keeps its own tables of connections, fragments and
// masqueraded ports.
//
//	town_test.go     who lives where, told to the model and to the kernel's maps alike
//	law_test.go      random policies
//	view_test.go     a frame, read from the standards
//	quote_test.go    the packet that an ICMP error is about
//	conn_test.go     connections, fragments, judging
//	nat_test.go      masquerade, both ways
//	pod_test.go, neighbour_test.go, overlay_test.go, netdev_test.go   what each program must do
//	answer_test.go   ICMP errors that the datapath itself sends
//	gen_test.go, spoilttest.go   random packets, and how they are broken
//	drive_test.go    one packet through both, compared
//	case_test.go     the cases
package datapath_test
