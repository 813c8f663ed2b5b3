// Package connectivity is `hypha connectivity test`: it tries in a running cluster whether everybody reaches whom they should, and
// nobody else, under one set of policies after the other.
//
//	Place      where that happens: deploys workloads, runs commands in them, puts policies in force, tells what was dropped
//	Site       what a place has deployed: clients, echo servers, services, the nodes, somebody outside
//	Scenario   who tries to reach whom: a list of Actions for a Site
//	Test       policies, Scenarios, and what is to come of each Action
//	Run        one Test after the other; tells a Report
//
// Names and meanings of tests and scenarios are those of the field. A refusal counts only where it is one: nobody answered, and the
// node that dropped the packets says that policy was why, in the direction and for the reason that the test is about.
//
// Nothing here knows Kubernetes: places are packages of their own (kube, standalone).
package connectivity
