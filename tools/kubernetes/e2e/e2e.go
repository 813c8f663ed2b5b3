// Package e2e names the packages whose tests are built: those that a go.mod alone cannot name, since they are no programs.
package e2e

import _ "k8s.io/kubernetes/test/e2e"
