package cli

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
)

// rows are rows of a kernel map, all with the same columns.
type rows struct {
	head []string
	rows [][]string
}

// dump reads a map. Rows that keep does not want are left out; nil keeps all. A limit of 0 is none.
func (e *env) dump(ctx context.Context, name string, limit int, keep func(row) bool) (*rows, error) {
	r, err := e.reader()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a stream that is not read to its end
	s, err := r.DumpMap(ctx, req(&agentv1.DumpMapRequest{Name: name}))
	if err != nil {
		return nil, notFound(err, "map "+name, "hypha map list")
	}
	defer s.Close()
	got := &rows{}
	for s.Receive() {
		r := row(s.Msg().GetColumns())
		if keep != nil && !keep(r) {
			continue
		}
		if got.add(r); limit > 0 && len(got.rows) == limit {
			return got, nil
		}
	}
	if err := s.Err(); err != nil {
		return nil, notFound(err, "map "+name, "hypha map list")
	}
	return got, nil
}

// row is one row as the agent sent it.
type row []*agentv1.Column

// get is the value of a column, "" if there is none of that name.
func (r row) get(name string) string {
	for _, c := range r {
		if strings.EqualFold(c.GetName(), name) {
			return c.GetValue()
		}
	}
	return ""
}

// add takes in a row; a column that was not there before is added at the end.
func (rs *rows) add(r row) {
	values := make([]string, len(rs.head), max(len(rs.head), len(r)))
	for _, c := range r {
		i := slices.Index(rs.head, c.GetName())
		if i < 0 {
			i = len(rs.head)
			rs.head = append(rs.head, c.GetName())
		}
		for len(values) <= i {
			values = append(values, "")
		}
		values[i] = c.GetValue()
	}
	rs.rows = append(rs.rows, values)
}

// join appends the rows of another map.
func (rs *rows) join(other *rows) {
	for _, r := range other.rows {
		cols := make(row, len(r))
		for i, v := range r {
			cols[i] = &agentv1.Column{Name: other.head[i], Value: v}
		}
		rs.add(cols)
	}
}

// sort orders the rows by their columns, the first one first: numbers and addresses by what they mean.
func (rs *rows) sort() {
	slices.SortStableFunc(rs.rows, func(a, b []string) int {
		for i := range min(len(a), len(b)) {
			if c := compareCell(a[i], b[i]); c != 0 {
				return c
			}
		}
		return len(a) - len(b)
	})
}

func compareCell(a, b string) int {
	if a == b {
		return 0
	}
	if x, err := strconv.ParseUint(a, 10, 64); err == nil {
		if y, err := strconv.ParseUint(b, 10, 64); err == nil {
			return cmp.Compare(x, y)
		}
	}
	if x, ok := cellPrefix(a); ok {
		if y, ok := cellPrefix(b); ok {
			return cmp.Or(x.Addr().Compare(y.Addr()), x.Bits()-y.Bits(), strings.Compare(a, b))
		}
	}
	return strings.Compare(a, b)
}

// cellPrefix reads an address, prefix or address with a port.
func cellPrefix(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, true
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Prefix{}, false
		}
		a = ap.Addr()
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// cell is a row's value in a column, "" if it has none.
func (rs *rows) cell(i int, column string) string {
	if c := slices.Index(rs.head, column); c >= 0 && c < len(rs.rows[i]) {
		return rs.rows[i][c]
	}
	return ""
}

// change replaces the values of a column.
func (rs *rows) change(column string, to func(string) string) {
	for i, h := range rs.head {
		if strings.EqualFold(h, column) {
			for _, r := range rs.rows {
				if i < len(r) {
					r[i] = to(r[i])
				}
			}
		}
	}
}

// json is the rows as objects with camel-case keys.
func (rs *rows) json() []out.Object {
	list := make([]out.Object, len(rs.rows))
	for i, r := range rs.rows {
		o := make(out.Object, len(r))
		for j, v := range r {
			o[j] = out.Field{Key: camel(rs.head[j]), Value: v}
		}
		list[i] = o
	}
	return list
}

// camel turns a column's head into a JSON name: "POLICY-SET" and "policy_set" are policySet.
func camel(head string) string {
	words := strings.FieldsFunc(head, func(r rune) bool { return r == '-' || r == '_' || r == ' ' })
	for i, w := range words {
		w = strings.ToLower(w)
		if i > 0 && w != "" {
			w = strings.ToUpper(w[:1]) + w[1:]
		}
		words[i] = w
	}
	return strings.Join(words, "")
}

// write shows the rows.
func (o *output) rows(rs *rows, none string) error {
	heads := make([]string, len(rs.head))
	for i, h := range rs.head {
		heads[i] = strings.ToUpper(h)
	}
	return o.list(rs.json(), none, heads, func(t *out.Table) {
		for _, r := range rs.rows {
			cells := make([]any, len(r))
			for i, v := range r {
				cells[i] = v
			}
			t.Row(cells...)
		}
	})
}
