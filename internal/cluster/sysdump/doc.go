// Package sysdump gathers into one zip file what somebody needs who is to find out what is wrong with a cluster, or with one node
// without a cluster: objects, logs, and what each agent says of itself. It changes nothing, and contents of secrets are left out: no
// Secret is read, and values of environment variables and options whose names speak of secrets are not written.
//
//	task       what is gathered, by a few workers; one that fails does not keep the others from theirs
//	archive    where it is gathered, and the zip file
//	object     objects of the API server
//	pod        logs of pods, and what is asked of agents
//	ask        what agents are asked, in one list
//	local      the same of the agent on this machine
//	command    `sysdump`
package sysdump
