package netns

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/hypha-net/hypha/internal/process"
)

// TempPrefix begins the names of what belongs to one process and goes with it: namespaces of Temp, and files of others
// who want to be found by TempOwner. Then come the owner, a number and the wished name.
const TempPrefix = "hypha-t-"

// tempCounter makes names unique in this process.
var tempCounter atomic.Uint32

// TempName returns a name of TempPrefix's form that no one else on this machine uses.
func TempName(name string) (string, error) {
	self, err := process.Of(os.Getpid())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%s-%d-%s", TempPrefix, self, tempCounter.Add(1), name), nil
}

// TempOwner is the process that a name of TempName belongs to.
func TempOwner(name string) (process.ID, bool) {
	rest, ok := strings.CutPrefix(name, TempPrefix)
	if !ok {
		return process.ID{}, false
	}
	owner, _, _ := strings.Cut(rest, "-")
	id, err := process.ParseID(owner)
	return id, err == nil
}

// Temp makes a namespace for this process, which Remove deletes. Left behind, it goes with the next Sweep.
func Temp(name string) (*NS, error) {
	full, err := TempName(name)
	if err != nil {
		return nil, err
	}
	return Create(full)
}

// Remove kills what runs in the namespace, this process excepted, and deletes it; nil when it is gone already.
func (n *NS) Remove() error {
	if Exists(n.name) {
		pids, err := n.Processes()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if id, err := process.Of(pid); err == nil && pid != os.Getpid() {
				if err := id.Stop(0); err != nil {
					return err
				}
			}
		}
	}
	return Delete(n.name)
}

// Sweep removes the namespaces of Temp whose process runs no more, with what still runs in them.
func Sweep() error {
	names, err := List(TempPrefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		if id, ok := TempOwner(name); ok && !id.Alive() {
			if err := (&NS{name: name}).Remove(); err != nil {
				return err
			}
		}
	}
	return nil
}
