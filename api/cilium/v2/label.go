package v2

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Label marks a rule, so that it can be found and deleted: {"key": ..., "value": ..., "source": ...}, or the string
// "[source:]key[=value]".
//
// +kubebuilder:pruning:PreserveUnknownFields
type Label struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Source string `json:"source,omitempty"` // "unspec" when empty
}

// UnmarshalJSON reads both forms. Unknown members of the object are refused.
func (l *Label) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		return l.Set(s)
	}
	type plain Label
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode((*plain)(l)); err != nil {
		return err
	}
	if l.Key == "" {
		return fmt.Errorf("label without a key")
	}
	return nil
}

// Set reads the string form.
func (l *Label) Set(s string) error {
	key, value, _ := strings.Cut(s, "=")
	source := ""
	if src, rest, ok := strings.Cut(key, ":"); ok {
		source, key = src, rest
	}
	if key == "" {
		return fmt.Errorf("label %q: want [source:]key[=value]", s)
	}
	*l = Label{Key: key, Value: value, Source: source}
	return nil
}
