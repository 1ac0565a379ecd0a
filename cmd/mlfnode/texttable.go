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
	// tableRows is how many rows a table shows by default.
	tableRows = 50
	// cellWidth is where a cell of a table is truncated.
	cellWidth = 40
)

// table prints rows in aligned columns.
type table struct {
	w     *tabwriter.Writer
	whole int // index of the cell that is not truncated; 0 for none
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

// newTextTable returns a table whose last column is text for people, which is not truncated.
func newTextTable(w io.Writer, head ...string) *table {
	t := newTable(w, head...)
	t.whole = len(head) - 1
	return t
}

// columnNames returns unique names for the columns of parameters and metrics, since a program can't
// read a table with two columns of one name. A parameter named like a fixed column gets a prefix,
// and so does a metric named like one or like a parameter: a program that is given --epoch may well
// report an epoch.
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
