package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"mlfnode/node/api"
)

const (
	// tableRows is how many rows a table shows unless told.
	tableRows = 50
	// cellWidth is where a cell of a table is cut.
	cellWidth = 40
)

// table prints rows in aligned columns.
type table struct {
	w     *tabwriter.Writer
	whole int // cell that is not cut, the last one; 0 for none
}

func (t *table) row(cells ...string) {
	clean := make([]string, len(cells))
	for i, c := range cells {
		clean[i] = strings.ReplaceAll(sanitize([]byte(c)), "\t", " ")
		if i == 0 || i != t.whole {
			clean[i] = truncate(clean[i], cellWidth)
		}
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(clean, "\t"), "\t "))
}

func (t *table) flush() error { return t.w.Flush() }

func newTable(w io.Writer, head ...string) *table {
	t := &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row(head...)
	return t
}

// newTextTable has text for people in its last column, which is not cut.
func newTextTable(w io.Writer, head ...string) *table {
	t := newTable(w, head...)
	t.whole = len(head) - 1
	return t
}

// columnNames gives the columns of parameters and metrics names that no other column has: a table
// with two columns of one name can't be read by a program. A parameter that has the name of a fixed
// column gets a prefix, and so does a metric that has the name of one or of a parameter: a program
// that is given --epoch may well report an epoch.
func columnNames(v *api.Sweep, fixed ...[]string) (keys, metrics []string) {
	taken := map[string]bool{}
	for _, name := range slices.Concat(fixed...) {
		taken[name] = true
	}
	unique := func(names []string, prefix string) []string {
		heads := make([]string, len(names))
		for i, name := range names {
			if !taken[name] {
				heads[i] = name
			}
		}
		for _, name := range heads {
			taken[name] = taken[name] || name != ""
		}
		for i, name := range names {
			for ; heads[i] == "" && name != ""; name = prefix + name {
				if !taken[name] {
					heads[i], taken[name] = name, true
				}
			}
		}
		return heads
	}
	return unique(v.Keys, "parameter:"), unique(v.Metrics, "metric:")
}
