package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// table turns the output of go test -v into a table. A group is a benchmark with its
// sub-benchmarks; its rows are printed, aligned, when it has ended.
type table struct {
	w       io.Writer
	verbose bool // print other lines, too

	group  string
	rows   []row
	log    []string // other lines of the group
	failed bool     // the group has
	any    bool     // some group has
}

// row is the outcome of one benchmark.
type row struct {
	name  string
	cells []cell // or, without any
	note  string // why there are none
}

// cell is one figure.
type cell struct{ value, unit string }

var (
	started = regexp.MustCompile(`^Benchmark\S+$`)
	ended   = regexp.MustCompile(`(Benchmark\S+) *\t *\d+\t(.*)$`) // the output of a program may precede it
	outcome = regexp.MustCompile(`^ *--- (FAIL|SKIP): (Benchmark\S+)$`)
	machine = regexp.MustCompile(`^(pkg|cpu): (.*)$`)
)

// add adds a line of the output.
func (t *table) add(line string) {
	line = strings.TrimRight(line, "\r\n")
	if started.MatchString(line) {
		if !strings.Contains(line, "/") {
			t.flush()
			t.group = line
		}
		t.rows = append(t.rows, row{name: line})
		return
	}
	if m := machine.FindStringSubmatch(line); m != nil && t.group == "" {
		fmt.Fprintf(t.w, "%s: %s\n", m[1], m[2])
		return
	}
	if m := outcome.FindStringSubmatch(line); m != nil {
		r := t.row(m[2])
		if r.note = "skipped"; m[1] == "FAIL" {
			r.note, t.failed, t.any = "failed", true, true
		}
		return
	}
	if m := ended.FindStringSubmatchIndex(line); m != nil {
		r := t.row(line[m[2]:m[3]])
		for figure := range strings.SplitSeq(line[m[4]:m[5]], "\t") {
			if value, unit, ok := strings.Cut(strings.TrimSpace(figure), " "); ok {
				r.cells = append(r.cells, readable(cell{value, unit}))
			}
		}
		if line = line[:m[0]]; line == "" {
			return
		}
	}
	t.log = append(t.log, line)
	if t.verbose {
		fmt.Fprintln(t.w, line)
	}
}

// row returns the row of a benchmark, whose name may be followed by the number of processors.
func (t *table) row(name string) *row {
	short := name
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		short = name[:i]
	}
	for _, want := range []string{name, short} {
		if i := slices.IndexFunc(t.rows, func(r row) bool { return r.name == want }); i >= 0 {
			return &t.rows[i]
		}
	}
	t.rows = append(t.rows, row{name: short})
	return &t.rows[len(t.rows)-1]
}

// readable returns a time of go test in the largest unit in which it is at least 1.
func readable(c cell) cell {
	if c.unit != "ns/op" {
		return c
	}
	v, err := strconv.ParseFloat(c.value, 64)
	if err != nil {
		return c
	}
	units := []string{"ns", "µs", "ms", "s"}
	for len(units) > 1 && v >= 1000 {
		v, units = v/1000, units[1:]
	}
	return cell{strconv.FormatFloat(v, 'g', 4, 64), units[0] + "/op"}
}

// flush prints the group, with its log if it has failed.
func (t *table) flush() {
	name := strings.TrimPrefix(t.group, "Benchmark")
	hasParts := len(t.rows) > 1
	rows := slices.DeleteFunc(t.rows, func(r row) bool {
		return len(r.cells) == 0 && (r.note == "" || hasParts && r.name == t.group)
	})
	if len(rows) != 1 || rows[0].name != t.group {
		if name != "" {
			fmt.Fprintln(t.w, name)
		}
		for i := range rows {
			rows[i].name = "  " + strings.TrimPrefix(rows[i].name, t.group+"/")
		}
	} else {
		rows[0].name = name
	}
	const narrowest = 28 // of names, so that most groups are aligned with each other
	names, values, units := narrowest, []int{}, []int{}
	for _, r := range rows {
		names = max(names, utf8.RuneCountInString(r.name))
		for i, c := range r.cells {
			if i == len(values) {
				values, units = append(values, 0), append(units, 0)
			}
			values[i] = max(values[i], utf8.RuneCountInString(c.value))
			units[i] = max(units[i], utf8.RuneCountInString(c.unit))
		}
	}
	for _, r := range rows {
		line := fmt.Sprintf("%-*s", names, r.name)
		if r.note != "" {
			line += "  " + r.note
		}
		for i, c := range r.cells {
			line += fmt.Sprintf("  %*s %-*s", values[i], c.value, units[i], c.unit)
		}
		fmt.Fprintln(t.w, strings.TrimRight(line, " "))
	}
	if t.failed && !t.verbose {
		for _, line := range t.log {
			fmt.Fprintln(t.w, "    "+line)
		}
	}
	t.group, t.rows, t.log, t.failed = "", nil, nil, false
}

// end prints the last group. If the command has failed for another reason than a failed benchmark,
// as when it panicked, what was printed last is the reason.
func (t *table) end(failed bool) {
	if failed && !t.any {
		t.failed = true
	}
	t.flush()
}
