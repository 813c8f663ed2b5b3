// Package state holds the rows in which the cluster's state is told to an agent, whatever keeps it: etcd (source/kvstore) or an API
// server (source/k8s). It is values only, besides those of internal/model: what goes with where they come from.
package state
