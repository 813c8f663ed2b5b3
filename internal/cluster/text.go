package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/hypha-net/hypha/internal/escape"
)

// Text is the familiar summary. What objects say of themselves is escaped.
func Text(s State) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, p := range s.Parts {
		word := "OK"
		switch {
		case !p.Installed && !p.Needed:
			word = "disabled"
		case !p.Well():
			word = fmt.Sprintf("%d errors", len(p.Errors))
			if len(p.Errors) == 1 {
				word = "1 error"
			}
		}
		fmt.Fprintf(w, "%s:\t%s\n", p.Name, word)
	}
	fmt.Fprintln(w)
	installed := slices.DeleteFunc(slices.Clone(s.Parts), func(p Part) bool { return !p.Installed })
	for _, p := range installed {
		fmt.Fprintf(w, "%s\t%s\tDesired: %d, Ready: %d/%d, Available: %d/%d\n", p.Kind, p.Object, p.Desired, p.Ready, p.Desired, p.Available, p.Desired)
	}
	title := "Containers:"
	for _, p := range installed {
		fmt.Fprintf(w, "%s\t%s\t%s\n", title, p.Object, counts(p.Phases))
		title = ""
	}
	if s.Well() {
		fmt.Fprintf(w, "Cluster Pods:\t%d/%d managed by Cilium\n", s.Pods.Managed, s.Pods.Running)
	}
	if s.Chart != "" {
		fmt.Fprintf(w, "Helm chart version:\t%s\n", escape.Text(s.Chart))
	}
	title = "Image versions"
	for _, p := range installed {
		for _, image := range slices.Sorted(maps.Keys(p.Images)) {
			fmt.Fprintf(w, "%s\t%s\t%s: %d\n", title, p.Object, escape.Text(image), p.Images[image])
			title = ""
		}
	}
	title = "Errors:"
	for _, p := range s.Parts {
		for _, e := range p.Errors {
			fmt.Fprintf(w, "%s\t%s\t%s\n", title, p.Object, escape.Text(e))
			title = ""
		}
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}
