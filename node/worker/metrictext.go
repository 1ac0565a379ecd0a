package worker

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"mlfnode/grid"
)

// metricFormat is how a file holds metrics.
type metricFormat struct {
	// points extracts the points from whole lines, and returns the start of an object that may
	// continue.
	points func(t *metricText, lines []byte) (rest []byte)
	// merge extracts the values from the whole text; nil for output of a program
	merge    func(m grid.Metric, text []byte) bool
	lastOnly bool // only the last object counts
}

// metricText is what was found in the lines of a file: the values of each metric, of which the last
// one counts, and its curve.
type metricText struct {
	metricFormat
	kind      textKind
	table     *table
	skipped   bool // something was skipped that may have been an object
	ambiguous bool // a line may be more than a row of a table: only the whole text shows what a table holds

	lines    int64 // with numbers
	builders map[string]*grid.CurveBuilder
	values   grid.Metric // of all lines; with lastOnly only of a table
	bytes    int         // of values
}

// textKind is what a file of metrics holds.
type textKind uint8

const (
	textUnknown textKind = iota
	textObjects          // of JSON
	textDicts            // of Python
	textTable            // CSV
	textWhole            // a list, which is rewritten as a whole, or UTF-16
	textOther            // none of these at its start, though objects may follow
)

// objectsOrTable reads objects that start a line, or rows of a table. Where objects follow what
// looked like a table, that was a prologue, and where JSON follows Python's dicts, only JSON
// counts, as in the whole text.
func (t *metricText) objectsOrTable(lines []byte) (rest []byte) {
	if t.kind == textUnknown {
		lines = bytes.TrimPrefix(lines, []byte("\xef\xbb\xbf"))
	}
	t.ambiguous = t.ambiguous || bytes.ContainsAny(lines, "{\"") || bytes.HasSuffix(lines, []byte("\r"))
	for _, kind := range []textKind{textObjects, textDicts} {
		if t.kind == textObjects && kind == textDicts {
			break
		}
		found := false
		unfinished := eachObject(lines, kind == textDicts, func(o grid.Metric) {
			if found = true; t.kind != kind {
				t.switchKind(kind)
			}
			t.addLine(o)
		})
		if found {
			return unfinished
		}
		if len(unfinished) > len(rest) {
			rest = unfinished
		}
	}
	lines = lines[:len(lines)-len(rest)]
	for t.kind == textUnknown && len(lines) > 0 {
		line, after, _ := bytes.Cut(lines, []byte("\n"))
		if !t.readHeader(line) && !isComment(line) {
			t.kind = textOther
		}
		lines = after
	}
	if t.kind == textTable {
		t.readRows(lines)
	}
	return rest
}

// switchKind drops what was found before, which does not count beside text of this kind.
func (t *metricText) switchKind(kind textKind) {
	t.kind, t.table, t.values, t.bytes, t.builders, t.lines = kind, nil, nil, 0, nil, 0
}

// readHeader reports whether a line is the header of a table. The lines that follow are then read
// as its rows.
func (t *metricText) readHeader(line []byte) bool {
	header := parseHeader(line)
	if header == nil || len(header.names) == 1 && !columnName.Get().MatchString(header.names[0]) {
		return false
	}
	t.table, t.kind = header, textTable
	return true
}

func (t *metricText) readRows(lines []byte) {
	for line := range bytes.Lines(lines) {
		row, err := readRow(string(line), t.table.comma)
		if err != nil {
			continue
		}
		m := maps.Collect(t.table.values(row))
		for _, v := range m {
			if len(t.table.names) == 1 && !isNumberMetric(v) {
				t.switchKind(textOther) // any text has one column
				return
			}
		}
		t.addLine(m)
	}
}

// objectsAtEnds reads objects that end a line of output.
func (t *metricText) objectsAtEnds(lines []byte) (rest []byte) {
	for line := range bytes.Lines(stripANSI(lines)) {
		line = bytes.TrimRight(line, " \t\r\n,")
		if len(line) == 0 || line[len(line)-1] != '}' || len(line) > longestLine {
			continue
		}
		for _, python := range []bool{false, true} {
			budget := 4*len(line) + longestObject
			if o := objectBefore(line, 0, python, &budget); o != nil {
				if t.addLine(o); !python {
					t.kind = textObjects
				} else if t.kind == textUnknown {
					t.kind = textDicts
				}
				break
			}
		}
	}
	return nil
}

// matches reads what a regular expression matches in lines of output.
func (t *metricText) matches(re *regexp.Regexp, lines []byte) (rest []byte) {
	// A carriage return ends a line too, since progress bars write it.
	ends := func(c rune) bool { return c == '\n' || c == '\r' }
	for line := range bytes.FieldsFuncSeq(stripANSI(lines), ends) {
		if len(line) > longestLine {
			continue
		}
		m := grid.Metric{} // of the named groups; the last match of a name counts
		for _, match := range re.FindAllSubmatch(line, -1) {
			for i, name := range re.SubexpNames() {
				if name != "" && match[i] != nil {
					m[name] = parseScalar(match[i])
				}
			}
		}
		t.addLine(m)
	}
	return nil
}

// addLine adds the numbers of one line, at the step that it names, else at its number among the
// lines with numbers.
func (t *metricText) addLine(m grid.Metric) {
	if !t.lastOnly || t.kind == textTable {
		t.setValues(m)
	}
	step, counted := float64(t.lines+1), false
	steps := grid.StepNames()
	for _, name := range steps {
		if v, ok := parseNumber(m[name]); ok {
			step = v
			break
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		v, ok := parseNumber(m[name])
		if !ok || slices.Contains(steps[:], name) || len(name) > maxMetrics {
			continue
		}
		counted = true
		b := t.builders[name]
		if b == nil {
			if len(t.builders) >= grid.MaxCurves {
				continue
			}
			if t.builders == nil {
				t.builders = map[string]*grid.CurveBuilder{}
			}
			b = &grid.CurveBuilder{}
			t.builders[name] = b
		}
		b.Add(step, v)
	}
	if counted {
		t.lines++
	}
}

// setValues takes the values of one line; of a long value only that it was there. What is far more
// than can be reported is shortened immediately; the whole text, at the attempt's end, shows how
// much that was. Output has only the names of its pattern.
func (t *metricText) setValues(m grid.Metric) {
	if t.values == nil {
		t.values = grid.Metric{}
	}
	for name, v := range m {
		if len(v) > maxMetrics {
			v = nil
		}
		if old, known := t.values[name]; known {
			t.bytes -= len(name) + len(old)
		}
		t.bytes += len(name) + len(v)
		t.values[name] = v
	}
	if t.bytes > 2*maxMetrics && t.merge != nil {
		dropLargest(t.values)
		t.bytes, t.skipped, t.ambiguous = metricBytes(t.values), true, true
	}
}

// readWhole rebuilds the curves from the whole text. A list without an end is still being written.
func (t *metricText) readWhole(text []byte) {
	fresh := &metricText{}
	if text = decodeText(text); len(text) == 0 || text[0] != '[' || !eachListElement(text, fresh.addLine) {
		*fresh = metricText{}
		t.points(fresh, text)
	}
	if fresh.lines > 0 {
		t.lines, t.builders = fresh.lines, fresh.builders
	}
	if found := (grid.Metric{}); t.merge(found, text) {
		t.values, t.bytes = nil, 0
		t.setValues(found)
	}
}

func parseNumber(v []byte) (float64, bool) {
	if !isNumberMetric(v) {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return f, err == nil
}
