// Package policy names the package whose tests are built, which a go.mod alone cannot: it is no program.
package policy

import _ "sigs.k8s.io/network-policy-api/conformance"
