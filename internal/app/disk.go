package app

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// leastRoom is what the state directory's disk should have free: files of an agent are small.
const leastRoom = 1 << 20

// diskStatus says whether what the agent has to write down finds its way to the disk.
func (a *Agent) diskStatus(add addFunc) {
	dir := a.paths.State
	var unsaved []string
	if a.store.kv != nil {
		unsaved = a.store.kv.Status().Unsaved
	}
	var fs unix.Statfs_t
	err := unix.Statfs(dir, &fs)
	free := fs.Bavail * uint64(fs.Bsize)
	what, remedy := "", ""
	switch {
	case err != nil:
		what, remedy = fmt.Sprintf("%s: %v", dir, err), "have the state directory back"
	case fs.Flags&unix.ST_RDONLY != 0:
		what, remedy = dir+" is read-only", "look in the kernel's log (dmesg) for why, then `mount -o remount,rw` its file system"
	case free < leastRoom || fs.Files > 0 && fs.Ffree == 0:
		what = fmt.Sprintf("%s is full: %d KiB and %d files are free", dir, free>>10, fs.Ffree)
		remedy = "remove what is not needed from its file system, or enlarge it"
	case len(unsaved) > 0:
		what, remedy = "what "+dir+" should hold is not written", "make room, or the directory writable"
	default:
		add("disk", stateOK, fmt.Sprintf("%d MiB free in %s", free>>20, dir), "")
		a.damageStatus(add)
		return
	}
	for _, u := range unsaved {
		what += "\n" + u
	}
	add("disk", stateWarning, what+"\npolicy that comes is enforced all the same, new workloads are refused, a restart knows what was last written",
		remedy+"; the agent goes on by itself")
	a.damageStatus(add)
}

// damageStatus names state files that were set aside, until somebody has taken them away.
func (a *Agent) damageStatus(add addFunc) {
	var aside []string
	for _, d := range []string{a.paths.State, a.paths.Endpoints(), a.paths.PendingDel(), a.paths.PKI(), a.paths.Etcd()} {
		found, _ := filepath.Glob(filepath.Join(escapeGlob(d), "*.damaged")) // the pattern is well formed
		aside = append(aside, found...)
	}
	if len(aside) > 0 {
		add("state files", stateWarning, "found damaged, set aside and made anew as far as others knew: "+strings.Join(aside, ", "),
			"check the disk; a workload whose file it was has to be started again. Then acknowledge: rm -r "+strings.Join(aside, " "))
	} else {
		add("state files", stateOK, "none damaged", "")
	}
}

func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}
