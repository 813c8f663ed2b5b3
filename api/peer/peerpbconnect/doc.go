// Package peerpbconnect is generated: clients and handlers of the services of peer. Who serves only a part of one answers "unimplemented" for the rest.
package peerpbconnect
