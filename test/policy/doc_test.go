// Package policy_test holds three judges of the same policies against each other: the evaluator that knows nothing but what
// rules mean (internal/control/policy/oracle), the engine (Trace), and the kernel: plans applied through the agent's own
// appliers into real maps, packets run through the real programs. They must agree on verdict, drop reason and rule, after
// every change, for new connections and for those on record, between the writes of a plan, and after a restart.
//
//	cast_test.go    who there is, and how packets come from them
//	gen_test.go     random policies, groups, packets
//	world_test.go   the truth, and how it is told to engine and kernel
//	kernel_test.go  maps, programs, one packet and what the datapath told about it
//	judge_test.go   one question, three answers
//	model_test.go   random changes;  named_test.go  stories
//
// A larger run: HYPHA_SOAK=1 go test ./test/policy -run TestCase38
package policy_test
