package maps

import "fmt"

// Quiesce returns once every program that was running when it was called has ended. What such a program may have looked up
// before it was taken out of use (the number of a policy set, a class) can be deleted after it: nobody comes too late to find it.
//
// The kernel gives this promise to whoever changes a map of maps, since 5.0 (maybe_wait_bpf_programs in kernel/bpf/syscall.c):
// so an event ring is put where it is already.
func (m *Maps) Quiesce() error {
	const cpu = uint32(0)
	if err := m.events.Put(cpu, m.rings[cpu]); err != nil {
		return fmt.Errorf("wait for running programs: %w", err)
	}
	return nil
}
