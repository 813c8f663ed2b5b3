// Package observerpbconnect is generated: clients and handlers of the services of observer. Who serves only a part of one answers "unimplemented" for the rest.
package observerpbconnect
