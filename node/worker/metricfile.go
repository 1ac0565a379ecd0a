package worker

import (
	"bytes"
	"hash/fnv"
	"io"
	"os"
	"time"

	"mlfnode/grid"
)

// metricFile reads a file of metrics as it grows.
type metricFile struct {
	path string
	text metricText // what was read before offset

	problem string // why it can't be read
	size    int64  // when it was last read
	modTime time.Time
	blank   bool // nothing is in it

	offset     int64
	prefixHash uint64      // a hash of what lies before offset
	incomplete []byte      // read before offset, but not complete
	midLine    bool        // offset is within a line whose start was skipped
	lastValues grid.Metric // with lastOnly: the last object, as of the last read, shortened
}

func newMetricFile(path string, format metricFormat) *metricFile {
	return &metricFile{path: path, text: metricText{metricFormat: format}}
}

// readChunk is how much of a file is read at a time, and the size up to which a whole file is read
// again while its program runs.
const readChunk = 1 << 20

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
		*f = *newMetricFile(f.path, f.text.metricFormat)
	}
	f.detectFormat(file, size)
	if f.text.kind == textWhole {
		if changed && (ended || size <= readChunk) {
			f.size, f.modTime = size, info.ModTime()
			f.text.readWhole(readEnd(file, metricsBytes))
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
	if f.offset == 0 && f.text.kind == textUnknown {
		f.blank = true
	}
	if f.text.merge != nil && f.blank && f.text.kind == textUnknown {
		head := make([]byte, 64)
		n, _ := file.ReadAt(head, 0) // use what could be read
		if head = bytes.TrimSpace(head[:n]); len(head) > 0 && (head[0] == '[' || head[0] >= 0xfe) {
			f.text.kind, f.blank = textWhole, false
			return
		}
	}
	skip := size - metricsBytes
	if skip <= f.offset {
		return
	}
	if f.text.merge != nil && f.text.kind == textUnknown {
		head := make([]byte, 64<<10)
		n, _ := file.ReadAt(head, 0)
		if line, _, ok := bytes.Cut(head[:n], []byte("\n")); ok {
			f.text.readHeader(line)
		}
	}
	f.offset, f.incomplete, f.midLine, f.text.skipped = skip, nil, true, true
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
	rest := append(bytes.Clone(f.text.points(&f.text, text[:end])), text[end:]...)
	if len(rest) > longestObject {
		rest, f.text.skipped, f.text.ambiguous = nil, true, true
	}
	f.incomplete = rest
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
	case f.text.lastOnly && f.text.kind != textWhole && (f.text.kind != textTable || f.text.ambiguous):
		if m = f.lastValues; changed || ended || m == nil {
			m = f.lastObject()
		}
		if !ended {
			dropLargest(m)
			f.lastValues = m
		}
	}
	if len(m) == 0 {
		m = f.text.values
	}
	there := len(m) > 0
	switch f.text.kind {
	case textTable:
		there = there && !f.text.ambiguous
	case textDicts: // JSON may end a line
		there = there && !f.text.skipped && !f.text.lastOnly
	default:
		there = there && !f.text.skipped
	}
	if f.text.merge == nil || there || !ended && f.size > readChunk {
		return m, "", true
	}
	text, note := readMetricLog(f.path)
	all := grid.Metric{}
	understood = note == "" && f.text.merge(all, text)
	switch {
	case len(all) > 0:
		return all, "", true
	case note != "" || len(m) > 0 && f.text.skipped:
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
			if o := objectBefore(line, begin, f.text.kind == textDicts, &budget); o != nil {
				return o
			}
			break // more of the file shows whether there is an object
		}
	}
	m := grid.Metric{}
	mergeLastObject(m, stripANSI(readEnd(file, metricsBytes)))
	return m
}
