package host

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// OpenSysctls makes the settings of the kernel writable where a container runtime has mounted them read-only over the
// container's own: that takes CAP_SYS_ADMIN and an AppArmor profile that allows mounts, but no privileged container. It changes
// this mount namespace only, and nothing where they are writable.
func OpenSysctls() error {
	var st unix.Statfs_t
	if err := unix.Statfs(sysctlRoot, &st); err != nil {
		return fmt.Errorf("look at %s: %w", sysctlRoot, err)
	}
	if st.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("", sysctlRoot, "", flags, ""); err != nil {
		return fmt.Errorf("%s is read-only here and cannot be made writable (in a container: give it CAP_SYS_ADMIN and no AppArmor profile, "+
			"or make it privileged): %w", sysctlRoot, err)
	}
	return nil
}
