// Package out writes what a command found: an aligned table for people; JSON, YAML or a JSONPath for programs. Names
// and order of the fields are those of the agent API's JSON mapping and stay. Nothing it writes can steer a terminal:
// tables and paths are escaped as package escape does, JSON and YAML with their own \u escapes, so their meaning stays.
package out
