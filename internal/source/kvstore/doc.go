// Package kvstore keeps the cluster's state in etcd, embedded in the agent or external: nodes, addresses, identities,
// pod ranges, policies and services. It publishes this node's share under a lease, and follows everybody's into tables.
//
// What a caller may rely on:
//   - Open never waits for an external store. Tables start with what the last run knew (cache files in the agent's state
//     directory) and become complete once the store has answered; Ready waits for that.
//   - Publishing (nodes, addresses, use of identities) declares what should be stored and returns at once; it is written,
//     and written again after a lost lease or a restored store, until it is withdrawn. Flush waits for it.
//   - Numbers are handed out by the store alone, in transactions: two nodes never get the same identity for different
//     labels, nor overlapping pod ranges, nor two services one frontend. Without the store only what is known already can
//     be had (ErrUnreachable).
//   - Rows of other nodes stay while the store is away; only its word removes them.
package kvstore
