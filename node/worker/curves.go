package worker

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
)

// curves reads the lines that an attempt reports metrics on as they come, and keeps a curve of each metric.
type curves struct {
	files []*curveFile // as metrics are merged: later ones win
}

// newCurves reads what gatherMetrics reads.
func newCurves(a *attempt) *curves {
	c := &curves{}
	for _, s := range a.task.Metrics {
		switch {
		case s.Log != "":
			c.files = append(c.files, &curveFile{path: filepath.Join(a.spool.work, s.Log), points: (*curveFile).objectsOrTable, whole: true})
		case s.Regex != "":
			re, err := regexp.Compile(s.Regex)
			if err != nil {
				continue // checked when the project is loaded
			}
			match := func(f *curveFile, text []byte) []byte { return f.matches(re, text) }
			c.files = append(c.files, &curveFile{path: a.spool.stdout.Name(), points: match}, &curveFile{path: a.spool.stderr.Name(), points: match})
		case s.JSON != "":
			c.files = append(c.files, &curveFile{path: a.spool.stdout.Name(), points: (*curveFile).objectsAtEnds})
		}
	}
	c.files = append(c.files, &curveFile{path: a.spool.metrics, points: (*curveFile).objectsOrTable, whole: true})
	return c
}

// of gives the curves of metrics of which there is more than one point, of at most grid.MaxCurves.
func (c *curves) of(m grid.Metric) grid.Curves {
	var all grid.Curves
	for _, name := range slices.Sorted(maps.Keys(m)) {
		var points []grid.Point
		for _, f := range c.files {
			if b := f.builders[name]; b != nil {
				points = b.Points()
			}
		}
		if len(points) < 2 {
			continue
		}
		if all == nil {
			all = grid.Curves{}
		}
		if all[name] = grid.PackCurve(points); len(all) == grid.MaxCurves {
			break
		}
	}
	return all
}

// curvesOf reads on and gives the curves of an attempt's metrics. Of an attempt that has ended the last line counts although it does not end.
func (a *attempt) curvesOf(m grid.Metric, ended bool) grid.Curves {
	if len(m) == 0 {
		return nil
	}
	if a.curves == nil {
		a.curves = newCurves(a)
	}
	for _, f := range a.curves.files {
		f.readOn(ended)
	}
	return a.curves.of(m)
}

// curvePiece is how much of a file is read at a time, and the most of a list that is read again while its program runs.
const curvePiece = 1 << 20

// curveFile is a file of metric lines.
type curveFile struct {
	path string
	// points takes the points out of whole lines, and gives the beginning of what may go on.
	points func(f *curveFile, lines []byte) (rest []byte)
	whole  bool // it may be a list, or UTF-16

	offset   int64
	rest     []byte // before offset, of what does not end there
	torn     bool   // offset is within a line, whose beginning was passed over
	lines    int64  // with numbers
	builders map[string]*grid.CurveBuilder

	kind  textKind
	table *table

	size  int64 // with textWhole: when it was last read
	wrote time.Time
}

// textKind is what a file of metrics holds.
type textKind uint8

const (
	textUnknown textKind = iota
	textObjects          // of JSON
	textDicts            // of Python
	textTable            // CSV
	textWhole            // a list, which is written again as a whole, or UTF-16
	textOther            // nothing of these at its beginning, though objects may come
)

// readOn reads what has been written since the last time. A file that has become shorter is read from its start again.
func (f *curveFile) readOn(ended bool) {
	file, err := os.OpenFile(f.path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo would block
	if err != nil {
		return // not written (yet)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	size := info.Size()
	if size < f.offset {
		*f = curveFile{path: f.path, points: f.points, whole: f.whole}
	}
	if f.whole && f.offset == 0 && f.kind == textUnknown {
		head := make([]byte, 64)
		n, _ := file.ReadAt(head, 0) // what could be read counts
		if head = bytes.TrimSpace(head[:n]); len(head) > 0 && (head[0] == '[' || head[0] >= 0xfe) {
			f.kind = textWhole
		}
	}
	if f.kind == textWhole {
		if (ended || size <= curvePiece) && (size != f.size || !info.ModTime().Equal(f.wrote)) {
			f.size, f.wrote = size, info.ModTime()
			f.readWhole(readEndOf(file))
		}
		return
	}
	if skip := size - metricsBytes; skip > f.offset {
		f.offset, f.rest, f.torn = skip, nil, true
	}
	for f.offset < size {
		n := len(f.rest)
		text := append(f.rest, make([]byte, min(curvePiece, size-f.offset))...)
		read, err := file.ReadAt(text[n:], f.offset)
		f.offset += int64(read)
		f.take(text[:n+read], false)
		if err != nil && err != io.EOF || read == 0 {
			break // what could be read counts
		}
	}
	if ended && len(f.rest) > 0 {
		f.take(f.rest, true)
	}
}

// take takes the points out of text; the last line counts when it ends, or if ended.
func (f *curveFile) take(text []byte, ended bool) {
	if f.torn {
		line := bytes.IndexAny(text, "\n\r") + 1
		if line == 0 {
			return
		}
		text, f.torn = text[line:], false
	}
	end := len(text)
	if !ended {
		end = bytes.LastIndexAny(text, "\n\r") + 1
	}
	rest := append(bytes.Clone(f.points(f, text[:end])), text[end:]...)
	if len(rest) > longestObject {
		rest = nil
	}
	f.rest = rest
}

// readWhole rebuilds the curves from the whole text. A list without an end is still being written.
func (f *curveFile) readWhole(text []byte) {
	fresh := &curveFile{}
	if text = trimMark(text); len(text) == 0 || text[0] != '[' || !eachOfList(text, fresh.add) {
		*fresh = curveFile{}
		f.points(fresh, text)
	}
	if fresh.lines > 0 {
		f.lines, f.builders = fresh.lines, fresh.builders
	}
}

// objectsOrTable reads objects that begin a line, or rows of a table.
func (f *curveFile) objectsOrTable(lines []byte) (rest []byte) {
	if f.kind == textUnknown {
		lines = bytes.TrimPrefix(lines, []byte("\xef\xbb\xbf"))
	}
	if f.kind == textTable {
		f.rows(lines)
		return nil
	}
	for _, python := range []bool{false, true} {
		if python && f.kind == textObjects || !python && f.kind == textDicts {
			continue
		}
		found := false
		rest = eachObject(lines, python, func(o grid.Metric) {
			f.add(o)
			found = true
		})
		if found && python {
			f.kind = textDicts
		} else if found {
			f.kind = textObjects
		}
		if found || len(rest) > 0 {
			return rest
		}
	}
	for f.kind == textUnknown && len(lines) > 0 {
		line, after, _ := bytes.Cut(lines, []byte("\n"))
		if f.table = tableOf(line); f.table != nil && (len(f.table.names) > 1 || plainName.Get().MatchString(f.table.names[0])) {
			f.kind = textTable
			f.rows(after)
		} else if !bytes.HasPrefix(line, []byte("#")) { // a comment above the header
			f.kind = textOther
		}
		lines = after
	}
	return nil
}

func (f *curveFile) rows(lines []byte) {
	for line := range bytes.Lines(lines) {
		if row, err := readRow(string(line), f.table.comma); err == nil {
			f.add(maps.Collect(f.table.values(row)))
		}
	}
}

// objectsAtEnds reads objects that end a line of output.
func (f *curveFile) objectsAtEnds(lines []byte) (rest []byte) {
	for line := range bytes.Lines(colourless(lines)) {
		line = bytes.TrimRight(line, " \t\r\n,")
		if len(line) == 0 || line[len(line)-1] != '}' || len(line) > longestLine {
			continue
		}
		for _, python := range []bool{false, true} {
			budget := 4*len(line) + longestObject
			if o := objectBefore(line, 0, python, &budget); o != nil {
				f.add(o)
				break
			}
		}
	}
	return nil
}

// matches reads what a regular expression finds in lines of output.
func (f *curveFile) matches(re *regexp.Regexp, lines []byte) (rest []byte) {
	for line := range outputLines(lines) {
		m := grid.Metric{}
		mergeMatches(m, re, line)
		f.add(m)
	}
	return nil
}

// stepNames are the metrics that say where a line belongs, the first one that a line has.
var stepNames = [...]string{"step", "epoch", "iteration"}

// add adds the numbers of one line, at the step that it names, else at its number among those with numbers.
func (f *curveFile) add(m grid.Metric) {
	step, counted := float64(f.lines+1), false
	for _, name := range stepNames {
		if v, ok := metricNumber(m[name]); ok {
			step = v
			break
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		v, ok := metricNumber(m[name])
		if !ok || slices.Contains(stepNames[:], name) {
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

func metricNumber(v []byte) (float64, bool) {
	if !isNumberMetric(v) {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return f, err == nil
}
