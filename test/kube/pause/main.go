// Command pause is what holds a pod's namespaces: it waits, and ends when it is told to. Processes whose parents have ended become its
// children in pods that share their processes; it takes note of their ends.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			fmt.Println("pause: ends by", s)
			return
		}
		for { // one signal may stand for several
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && err != syscall.EINTR {
				break
			}
		}
	}
}
