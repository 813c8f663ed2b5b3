// Package demo holds the documents that `hypha demo up` puts in force.
package demo

import _ "embed"

// PolicyName is the value of the label "name" of the rule in Policy.
const PolicyName = "l3-rule"

// Policy lets workloads with id=app2 reach those with id=app1 on TCP port 80, and nobody else.
//
//go:embed l3-rule.json
var Policy []byte
