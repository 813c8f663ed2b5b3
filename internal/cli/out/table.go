package out

import (
	"io"
	"strings"
	"unicode/utf8"

	"github.com/hypha-net/hypha/internal/escape"
)

// gap stands between two columns.
const gap = "   "

// Table is aligned text. A cell may have several lines ("\n"); all its text is escaped.
type Table struct {
	head  []string
	rows  [][]cell
	color Color
}

type cell struct {
	lines []string
	style Style
}

// NewTable makes a table with these column heads; a head may have several lines.
func NewTable(c Color, head ...string) *Table { return &Table{head: head, color: c} }

// Row adds a row: strings, []string (a line each) or Styled. Missing cells are empty.
func (t *Table) Row(cells ...any) {
	row := make([]cell, len(cells))
	for i, v := range cells {
		switch v := v.(type) {
		case string:
			row[i] = cell{lines: []string{escape.Text(v)}}
		case []string:
			row[i] = cell{lines: escape.Texts(v)}
		case Styled:
			row[i] = cell{lines: []string{escape.Text(v.Text)}, style: v.Style}
		}
	}
	t.rows = append(t.rows, row)
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// WriteTo writes the table, without spaces at line ends.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	rows := t.rows
	if len(t.head) > 0 {
		head := make([]cell, len(t.head))
		for i, h := range t.head {
			head[i] = cell{lines: strings.Split(h, "\n"), style: Bold}
		}
		rows = append([][]cell{head}, rows...)
	}
	var width []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			for _, l := range c.lines {
				width[i] = max(width[i], utf8.RuneCountInString(l))
			}
		}
	}
	var b strings.Builder
	for _, r := range rows {
		t.row(&b, r, width)
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func (t *Table) row(b *strings.Builder, r []cell, width []int) {
	height := 1
	for _, c := range r {
		height = max(height, len(c.lines))
	}
	for line := range height {
		pending := 0 // spaces owed before the next text
		for i, c := range r {
			text := ""
			if line < len(c.lines) {
				text = c.lines[line]
			}
			if text != "" {
				b.WriteString(strings.Repeat(" ", pending))
				b.WriteString(t.color.Paint(c.style, text))
				pending = 0
			}
			pending += width[i] - utf8.RuneCountInString(text) + len(gap)
		}
		b.WriteByte('\n')
	}
}
