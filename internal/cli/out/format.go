package out

import (
	"fmt"
	"io"
	"strings"
)

// Format is a way to write a result. The zero value is the table.
type Format struct {
	name string // "", "json", "yaml" or "jsonpath"
	path *Path
}

// ParseFormat reads the value of -o: "" or "table", "json", "yaml", "jsonpath=TEMPLATE".
func ParseFormat(s string) (Format, error) {
	name, arg, hasArg := strings.Cut(s, "=")
	switch {
	case s == "" || s == "table":
		return Format{}, nil
	case s == "json" || s == "yaml":
		return Format{name: s}, nil
	case name == "jsonpath" && hasArg:
		p, err := ParsePath(arg)
		if err != nil {
			return Format{}, err
		}
		return Format{name: name, path: p}, nil
	case s == "jsonpath":
		return Format{}, fmt.Errorf("jsonpath needs a template: -o jsonpath='{[*].id}'")
	}
	return Format{}, fmt.Errorf("unknown output format %q: want json, yaml or jsonpath=TEMPLATE", s)
}

// Table says whether people are to read it.
func (f Format) Table() bool { return f.name == "" }

// Write writes v in a format other than the table.
func (f Format) Write(w io.Writer, v any) error {
	switch f.name {
	case "yaml":
		return WriteYAML(w, v)
	case "jsonpath":
		return f.path.Write(w, v)
	}
	return WriteJSON(w, v)
}
