// Package lbipam decides which addresses of which pools services of type LoadBalancer have. It is pure: Decide takes all pools and all
// services with what they have, and says what they shall have. What a service has it keeps for as long as it may; then those that
// ask for certain addresses are served, then the others, older ones first. Nothing depends on time or chance, so the same question
// has the same answer after a restart.
//
// What a caller may rely on: two services have one address only when both said so (sharing key) and no port is both's; an
// address is always one of a pool that selects the service; a new one is never of a pool that is disabled or in conflict.
package lbipam
