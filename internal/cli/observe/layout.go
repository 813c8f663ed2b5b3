package observe

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	flowpb "github.com/hypha-net/hypha/api/flow"
	"github.com/hypha-net/hypha/internal/observe/filter"
)

// style is an SGR parameter.
type style string

const (
	green  style = "32"
	red    style = "31"
	yellow style = "33"
	cyan   style = "36"
)

func (p *printer) styled(s style, text string) string {
	if !p.paint || s == "" || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

func verdictStyle(v flowpb.Verdict) style {
	switch v {
	case flowpb.Verdict_FORWARDED, flowpb.Verdict_TRACED, flowpb.Verdict_TRANSLATED:
		return green
	case flowpb.Verdict_DROPPED, flowpb.Verdict_ERROR:
		return red
	case flowpb.Verdict_AUDIT, flowpb.Verdict_REDIRECTED:
		return yellow
	}
	return ""
}

func ports(f *flowpb.Flow) (source, destination int) { return filter.Ports(f) }

// write writes a line in the chosen layout.
func (p *printer) write(l line) error {
	switch p.output {
	case "dict":
		fs := []field{{"TIMESTAMP", l.time}}
		if p.node {
			fs = append(fs, field{"NODE", l.node})
		}
		return p.record(append(fs, field{"SOURCE", join(l.src, l.srcID)}, field{"DESTINATION", join(l.dst, l.dstID)},
			field{"TYPE", l.kind}, field{"VERDICT", p.styled(l.style, l.verdict)}, field{"SUMMARY", l.summary}))
	case "table":
		return p.row(l)
	}
	return p.compact(l)
}

// compact writes "TS [node]: SRC (ID) -> DST (ID) TYPE VERDICT (SUMMARY)"; a reply has its ends swapped, so that the
// initiator is on the left.
func (p *printer) compact(l line) error {
	if l.arrow == "<-" {
		l.src, l.srcID, l.dst, l.dstID = l.dst, l.dstID, l.src, l.srcID
	}
	node := ""
	if p.node {
		node = " [" + l.node + "]"
	}
	if l.summary != "" {
		l.summary = " (" + l.summary + ")"
	}
	_, err := fmt.Fprintf(p.out, "%s%s: %s %s %s %s %s %s %s%s\n", l.time, node, p.styled(cyan, l.src), l.srcID, l.arrow,
		p.styled(cyan, l.dst), l.dstID, l.kind, p.styled(l.style, l.verdict), l.summary)
	return err
}

// field is a line of a record.
type field struct{ name, text string }

const recordWidth = len("DESTINATION")

// record writes one field a line, the names right-aligned.
func (p *printer) record(fs []field) error {
	var b strings.Builder
	if p.rows > 0 {
		b.WriteString("------------\n")
	}
	p.rows++
	for _, f := range fs {
		fmt.Fprintf(&b, "%*s: %s\n", recordWidth, f.name, f.text)
	}
	_, err := fmt.Fprint(p.out, b.String())
	return err
}

// row writes a line of a table. A followed table shows each at once.
func (p *printer) row(l line) error {
	cells := []string{l.time, l.node, join(l.src, l.srcID), join(l.dst, l.dstID), l.kind, p.styled(l.style, l.verdict), l.summary}
	head := []string{"TIMESTAMP", "NODE", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"}
	if p.paint && (l.style == "" || l.verdict == "") { // the same invisible width in every row of the column, or it would not align
		cells[5] = "\x1b[39m" + cells[5] + "\x1b[0m"
	}
	if p.paint {
		head[5] = "\x1b[39m" + head[5] + "\x1b[0m"
	}
	if !p.node {
		cells, head = slices.Delete(cells, 1, 2), slices.Delete(head, 1, 2)
	}
	return p.table(head, cells)
}

func (p *printer) table(head, cells []string) error {
	if p.tab == nil {
		p.tab = tabwriter.NewWriter(p.out, 2, 0, 3, ' ', 0)
		fmt.Fprintln(p.tab, strings.Join(head, "\t"))
	}
	if _, err := fmt.Fprintln(p.tab, strings.Join(cells, "\t")); err != nil {
		return err
	}
	if p.follow {
		return p.tab.Flush()
	}
	return nil
}

func join(a, b string) string { return strings.TrimSpace(a + " " + b) }
