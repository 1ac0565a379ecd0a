package worker

import (
	"bytes"
	"hash/fnv"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"

	"mlfnode/grid"
)

// metricFile reads a file of metric lines as it grows: the values of each metric, of which the last
// one counts, and its curve.
type metricFile struct {
	path string
	// points extracts the points from whole lines, and returns the start of an object that may
	// continue.
	points func(f *metricFile, lines []byte) (rest []byte)
	// extracts the values from the whole text; nil for output of a program
	merge    func(m grid.Metric, text []byte) bool
	lastOnly bool // only the last object counts

	problem string // why it can't be read
	size    int64  // when it was last read
	modTime time.Time
	blank   bool // nothing is in it

	offset     int64
	prefixHash uint64 // a hash of what lies before offset
	incomplete []byte // read before offset, but not complete
	midLine    bool   // offset is within a line whose start was skipped
	skipped    bool   // something was skipped that may have been an object
	ambiguous  bool   // a line may be more than a row of a table: only the whole text shows what a table holds

	kind       textKind
	table      *table
	lines      int64 // with numbers
	builders   map[string]*grid.CurveBuilder
	values     grid.Metric // of all lines; with lastOnly only of a table
	bytes      int         // of values
	lastValues grid.Metric // with lastOnly: the last object, as of the last read, shortened
}

// readChunk is how much of a file is read at a time, and the size up to which a whole file is read
// again while its program runs.
const readChunk = 1 << 20

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

// readNew reads what has been written since the last time, and reports whether there is anything
// new. A file that has become shorter, or whose content has changed where it was read already, is
// read again from its start.
func (f *metricFile) readNew(ended bool) (changed bool) {
	file, info, problem := openMetrics(f.path)
	f.problem = problem
	if file == nil {
		return false
	}
	defer file.Close()
	size := info.Size()
	changed = size != f.size || !info.ModTime().Equal(f.modTime)
	if !changed && !ended {
		return false
	}
	if changed && (size < f.offset || f.offset > 0 && hashPrefix(file, f.offset) != f.prefixHash) {
		*f = metricFile{path: f.path, points: f.points, merge: f.merge, lastOnly: f.lastOnly}
	}
	f.detectFormat(file, size)
	if f.kind == textWhole {
		if changed && (ended || size <= readChunk) {
			f.size, f.modTime = size, info.ModTime()
			f.readWhole(readTail(file))
		}
		return changed
	}
	f.size, f.modTime = size, info.ModTime()
	for f.offset < size {
		n := len(f.incomplete)
		text := append(f.incomplete, make([]byte, min(readChunk, size-f.offset))...)
		read, err := file.ReadAt(text[n:], f.offset)
		f.offset += int64(read)
		f.blank = f.blank && len(bytes.TrimSpace(text[n:n+read])) == 0
		f.consume(text[:n+read], false)
		if err != nil && err != io.EOF || read == 0 {
			break // use what could be read
		}
	}
	f.prefixHash = hashPrefix(file, f.offset)
	if ended && len(f.incomplete) > 0 {
		f.consume(f.incomplete, true)
	}
	return changed
}

// detectFormat determines what the file holds, and skips what is too much of it. The first line of
// a table names its columns.
func (f *metricFile) detectFormat(file *os.File, size int64) {
	if f.offset == 0 && f.kind == textUnknown {
		f.blank = true
	}
	if f.merge != nil && f.blank && f.kind == textUnknown {
		head := make([]byte, 64)
		n, _ := file.ReadAt(head, 0) // use what could be read
		if head = bytes.TrimSpace(head[:n]); len(head) > 0 && (head[0] == '[' || head[0] >= 0xfe) {
			f.kind, f.blank = textWhole, false
			return
		}
	}
	skip := size - metricsBytes
	if skip <= f.offset {
		return
	}
	if f.merge != nil && f.kind == textUnknown {
		head := make([]byte, 64<<10)
		n, _ := file.ReadAt(head, 0)
		if line, _, ok := bytes.Cut(head[:n], []byte("\n")); ok {
			f.readHeader(line)
		}
	}
	f.offset, f.incomplete, f.midLine, f.skipped = skip, nil, true, true
}

// checkedHead and checkedEnd are how much is hashed at the start and at the end of what was read,
// to see whether it has changed.
const (
	checkedHead = 4 << 10
	checkedEnd  = 64 << 10
)

func hashPrefix(file *os.File, offset int64) uint64 {
	head, end := make([]byte, min(offset, checkedHead)), make([]byte, min(offset, checkedEnd))
	n, _ := file.ReadAt(head, 0) // use what could be read
	m, _ := file.ReadAt(end, offset-int64(len(end)))
	h := fnv.New64a()
	h.Write(head[:n])
	h.Write(end[:m])
	return h.Sum64()
}

// consume extracts the points from text. An incomplete last line counts only if the program has
// ended.
func (f *metricFile) consume(text []byte, ended bool) {
	if f.midLine {
		line := bytes.IndexAny(text, "\n\r") + 1
		if line == 0 {
			return
		}
		text, f.midLine = text[line:], false
	}
	end := len(text)
	if !ended {
		end = bytes.LastIndexAny(text, "\n\r") + 1
	}
	rest := append(bytes.Clone(f.points(f, text[:end])), text[end:]...)
	if len(rest) > longestObject {
		rest, f.skipped, f.ambiguous = nil, true, true
	}
	f.incomplete = rest
}

// readWhole rebuilds the curves from the whole text. A list without an end is still being written.
func (f *metricFile) readWhole(text []byte) {
	fresh := &metricFile{}
	if text = decodeText(text); len(text) == 0 || text[0] != '[' || !eachListElement(text, fresh.addLine) {
		*fresh = metricFile{}
		f.points(fresh, text)
	}
	if fresh.lines > 0 {
		f.lines, f.builders = fresh.lines, fresh.builders
	}
	if found := (grid.Metric{}); f.merge(found, text) {
		f.values, f.bytes = nil, 0
		f.setValues(found)
	}
}

// objectsOrTable reads objects that start a line, or rows of a table. Where objects follow what
// looked like a table, that was a prologue, and where JSON follows Python's dicts, only JSON
// counts, as in the whole text.
func (f *metricFile) objectsOrTable(lines []byte) (rest []byte) {
	if f.kind == textUnknown {
		lines = bytes.TrimPrefix(lines, []byte("\xef\xbb\xbf"))
	}
	f.ambiguous = f.ambiguous || bytes.ContainsAny(lines, "{\"") || bytes.HasSuffix(lines, []byte("\r"))
	for _, kind := range []textKind{textObjects, textDicts} {
		if f.kind == textObjects && kind == textDicts {
			break
		}
		found := false
		unfinished := eachObject(lines, kind == textDicts, func(o grid.Metric) {
			if found = true; f.kind != kind {
				f.switchKind(kind)
			}
			f.addLine(o)
		})
		if found {
			return unfinished
		}
		if len(unfinished) > len(rest) {
			rest = unfinished
		}
	}
	lines = lines[:len(lines)-len(rest)]
	for f.kind == textUnknown && len(lines) > 0 {
		line, after, _ := bytes.Cut(lines, []byte("\n"))
		if !f.readHeader(line) && !isComment(line) {
			f.kind = textOther
		}
		lines = after
	}
	if f.kind == textTable {
		f.readRows(lines)
	}
	return rest
}

// switchKind drops what was found before, which does not count beside text of this kind.
func (f *metricFile) switchKind(kind textKind) {
	f.kind, f.table, f.values, f.bytes, f.builders, f.lines = kind, nil, nil, 0, nil, 0
}

// readHeader reports whether a line is the header of a table. The lines that follow are then read
// as its rows.
func (f *metricFile) readHeader(line []byte) bool {
	t := parseHeader(line)
	if t == nil || len(t.names) == 1 && !columnName.Get().MatchString(t.names[0]) {
		return false
	}
	f.table, f.kind = t, textTable
	return true
}

func (f *metricFile) readRows(lines []byte) {
	for line := range bytes.Lines(lines) {
		row, err := readRow(string(line), f.table.comma)
		if err != nil {
			continue
		}
		m := maps.Collect(f.table.values(row))
		for _, v := range m {
			if len(f.table.names) == 1 && !isNumberMetric(v) {
				f.switchKind(textOther) // any text has one column
				return
			}
		}
		f.addLine(m)
	}
}

// objectsAtEnds reads objects that end a line of output.
func (f *metricFile) objectsAtEnds(lines []byte) (rest []byte) {
	for line := range bytes.Lines(stripANSI(lines)) {
		line = bytes.TrimRight(line, " \t\r\n,")
		if len(line) == 0 || line[len(line)-1] != '}' || len(line) > longestLine {
			continue
		}
		for _, python := range []bool{false, true} {
			budget := 4*len(line) + longestObject
			if o := objectBefore(line, 0, python, &budget); o != nil {
				if f.addLine(o); !python {
					f.kind = textObjects
				} else if f.kind == textUnknown {
					f.kind = textDicts
				}
				break
			}
		}
	}
	return nil
}

// matches reads what a regular expression matches in lines of output.
func (f *metricFile) matches(re *regexp.Regexp, lines []byte) (rest []byte) {
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
		f.addLine(m)
	}
	return nil
}

// addLine adds the numbers of one line, at the step that it names, else at its number among the
// lines with numbers.
func (f *metricFile) addLine(m grid.Metric) {
	if !f.lastOnly || f.kind == textTable {
		f.setValues(m)
	}
	step, counted := float64(f.lines+1), false
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
		b := f.builders[name]
		if b == nil {
			if len(f.builders) >= grid.MaxCurves {
				continue
			}
			if f.builders == nil {
				f.builders = map[string]*grid.CurveBuilder{}
			}
			b = &grid.CurveBuilder{}
			f.builders[name] = b
		}
		b.Add(step, v)
	}
	if counted {
		f.lines++
	}
}

// setValues takes the values of one line; of a long value only that it was there. What is far more
// than can be reported is shortened at once; the whole text, at the attempt's end, shows how much
// that was. Output has only the names of its pattern.
func (f *metricFile) setValues(m grid.Metric) {
	if f.values == nil {
		f.values = grid.Metric{}
	}
	for name, v := range m {
		if len(v) > maxMetrics {
			v = nil
		}
		if old, known := f.values[name]; known {
			f.bytes -= len(name) + len(old)
		}
		f.bytes += len(name) + len(v)
		f.values[name] = v
	}
	if f.bytes > 2*maxMetrics && f.merge != nil {
		dropLargest(f.values)
		f.bytes, f.skipped, f.ambiguous = metricBytes(f.values), true, true
	}
}

// current returns the values that count, or why there are none, and whether the text could be
// understood. It reads the whole text for them only where there are none, or where others may
// count. A nil value stands for one that is too long.
func (f *metricFile) current(changed, ended bool) (m grid.Metric, note string, understood bool) {
	switch {
	case f.problem != "":
		return nil, f.problem, false
	case f.blank:
		return nil, "it is empty", false
	case f.lastOnly && f.kind != textWhole && (f.kind != textTable || f.ambiguous):
		if m = f.lastValues; changed || ended || m == nil {
			m = f.lastObject()
		}
		if !ended {
			dropLargest(m)
			f.lastValues = m
		}
	}
	if len(m) == 0 {
		m = f.values
	}
	there := len(m) > 0
	switch f.kind {
	case textTable:
		there = there && !f.ambiguous
	case textDicts: // JSON may end a line
		there = there && !f.skipped && !f.lastOnly
	default:
		there = there && !f.skipped
	}
	if f.merge == nil || there || !ended && f.size > readChunk {
		return m, "", true
	}
	text, note := readMetricLog(f.path)
	all := grid.Metric{}
	understood = note == "" && f.merge(all, text)
	switch {
	case len(all) > 0:
		return all, "", true
	case note != "" || len(m) > 0 && f.skipped:
		return m, note, understood
	case understood:
		return nil, "it contains no number or text under a name (lists are left out)", true
	}
	return nil, "it contains neither JSON objects nor a CSV table with a header", false
}

// endBytes is how much of the end of a file is read for the last object.
const endBytes = 64 << 10

// lastObject returns the last object that ends a line. It reads no more than the end of the file if
// the last line that ends like an object has one.
func (f *metricFile) lastObject() grid.Metric {
	file, _, _ := openMetrics(f.path)
	if file == nil {
		return nil
	}
	defer file.Close()
	for length := int64(endBytes); length < min(f.size, metricsBytes); length *= 8 {
		b := make([]byte, length)
		n, _ := file.ReadAt(b, f.size-length) // use what could be read
		text := stripANSI(b[:n])
		for line, begin := range linesLikeObjects(text) {
			budget := 4*len(text) + longestObject
			if o := objectBefore(line, begin, f.kind == textDicts, &budget); o != nil {
				return o
			}
			break // more of the file shows whether there is an object
		}
	}
	m := grid.Metric{}
	mergeLastObject(m, stripANSI(readTail(file)))
	return m
}

func parseNumber(v []byte) (float64, bool) {
	if !isNumberMetric(v) {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return f, err == nil
}
