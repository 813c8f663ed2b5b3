package sysdump

import (
	"regexp"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// secret are names whose values nobody else should read.
var secret = regexp.MustCompile(`(?i)(passw|secret|token|credential|private|api[-_]?key|access[-_]?key|auth)`)

const hidden = "(hidden)"

// redact takes out of an object what nobody else should read: values of variables that are called so, of a ConfigMap's keys likewise, and
// the copy of all that kubectl keeps.
func redact(o *unstructured.Unstructured) {
	annotations := o.GetAnnotations()
	delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
	if len(annotations) == 0 {
		annotations = nil
	}
	o.SetAnnotations(annotations)
	o.SetManagedFields(nil)
	if o.GetKind() == "ConfigMap" {
		for _, field := range []string{"data", "binaryData"} {
			values, _, _ := unstructured.NestedMap(o.Object, field)
			for k := range values {
				if secret.MatchString(k) {
					_ = unstructured.SetNestedField(o.Object, hidden, field, k)
				}
			}
		}
	}
	variables(o.Object)
}

// variables hides values of environment variables, wherever there are some.
func variables(v any) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			variables(x)
		}
	case map[string]any:
		for k, x := range v {
			if k == "env" {
				hide(x)
			}
			variables(x)
		}
	}
}

func hide(env any) {
	all, _ := env.([]any)
	for _, x := range all {
		v, ok := x.(map[string]any)
		if !ok {
			continue
		}
		name, _ := v["name"].(string)
		if _, there := v["value"]; there && secret.MatchString(name) {
			v["value"] = hidden
		}
	}
}
