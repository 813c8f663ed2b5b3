// Package observe is the command tree of `hubble`, and `hypha observe`: it asks flow servers, those of this machine by
// themselves or one by its address, and prints what they saw. It needs no agent library and no privileges but those of
// the socket. Text that comes from workloads is escaped before it is printed.
package observe
