// Package agentv1connect is generated: clients and handlers of the services of hypha.agent.v1. Who serves only a part of one answers "unimplemented" for the rest.
package agentv1connect
