// Command hypha-cni is the CNI plugin: container runtimes start it to attach workloads to the network. See internal/cni.
package main

import (
	"os"

	"github.com/hypha-net/hypha/internal/cni"
	"github.com/hypha-net/hypha/internal/version"
)

func main() { os.Exit(cni.Main(os.Stdout, "CNI plugin hypha-cni "+version.String())) }
