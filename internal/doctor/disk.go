package doctor

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// storeRoom is what an embedded store takes at once when it is made: a segment of its log and its database.
const storeRoom = 80 << 20

// disk looks where an agent keeps its state, or will: at the nearest directory above that is there.
func disk(dir string) Check {
	c := Check{Name: "state directory", OK: true}
	var fs unix.Statfs_t
	at := dir
	err := unix.Statfs(at, &fs)
	for errors.Is(err, unix.ENOENT) && at != filepath.Dir(at) {
		at = filepath.Dir(at)
		err = unix.Statfs(at, &fs)
	}
	free := fs.Bavail * uint64(fs.Bsize)
	switch {
	case err != nil:
		c.OK, c.Detail, c.Remedy = false, fmt.Sprintf("%s: %v", at, err), "choose another one with --state-dir"
	case fs.Flags&unix.ST_RDONLY != 0:
		c.OK, c.Detail = false, at+" is read-only: an agent goes on with the policy it has and that comes, and refuses new workloads"
		c.Remedy = "look in the kernel's log (dmesg) for why, then `mount -o remount,rw` its file system, or choose another --state-dir"
	case free < storeRoom || fs.Files > 0 && fs.Ffree == 0:
		c.OK, c.Detail = false, fmt.Sprintf("%d MiB and %d files are free in %s: an embedded store needs %d MiB to start anew", free>>20, fs.Ffree, at, storeRoom>>20)
		c.Remedy = "make room, or choose another --state-dir"
	default:
		c.Detail = fmt.Sprintf("%d MiB free in %s", free>>20, at)
	}
	return c
}
