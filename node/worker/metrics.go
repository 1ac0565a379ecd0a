package worker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
)

// metricsBytes bounds how much of a file is read for metrics: of a longer one only the end counts.
const metricsBytes = 16 << 20

// maxMetrics bounds the metrics of one attempt, names and values together: an event that does not fit one message could never
// be stored, and would hold up all reports behind it.
const maxMetrics = 64 << 10

// readMetrics gathers the attempt's metrics from all its sources, $MLF_METRICS last. Later values win.
func (a *attempt) readMetrics() grid.Metric {
	m := grid.Metric{}
	for _, s := range a.task.Metrics {
		switch {
		case s.Log != "":
			mergeLog(m, readEnd(filepath.Join(a.spool.work(), s.Log)))
		case s.Regex != "":
			mergeRegex(m, s.Regex, a.spool.stdout, a.spool.stderr)
		case s.JSON != "":
			mergeLastObject(m, readEndOf(a.spool.stdout))
		}
	}
	mergeLines(m, readEnd(a.spool.metrics()))
	shorten(m)
	if len(m) == 0 {
		return nil
	}
	return m
}

// shorten leaves out what is over maxMetrics, the largest values first.
func shorten(m grid.Metric) {
	total := 0
	for name, v := range m {
		total += len(name) + len(v)
	}
	if total <= maxMetrics {
		return
	}
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b)+len(m[b]), len(a)+len(m[a])), cmp.Compare(a, b))
	})
	for _, name := range names {
		if total <= maxMetrics {
			return
		}
		total -= len(name) + len(m[name])
		delete(m, name)
	}
}

func readEnd(path string) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo would block
	if err != nil {
		return nil // not written (yet)
	}
	defer f.Close()
	return readEndOf(f)
}

func readEndOf(f *os.File) []byte {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	from := max(0, info.Size()-metricsBytes)
	b, _ := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from)) // what could be read counts
	return b
}

// mergeLog reads a list of objects (Chainer's LogReport) or one object on each line; the last one counts.
func mergeLog(m grid.Metric, b []byte) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || b[0] != '[' {
		mergeLastObject(m, b)
		return
	}
	var list []json.RawMessage
	if json.Unmarshal(tolerant(b), &list) == nil && len(list) > 0 {
		mergeObject(m, list[len(list)-1])
	}
}

// mergeLines merges every line, so that a program may report different names at different times.
func mergeLines(m grid.Metric, b []byte) {
	for line := range bytes.Lines(b) {
		mergeObject(m, line)
	}
}

// mergeLastObject takes the last line that is a JSON object.
func mergeLastObject(m grid.Metric, b []byte) {
	for len(b) > 0 {
		i := bytes.LastIndexByte(bytes.TrimRight(b, "\n"), '\n') + 1
		if line := bytes.TrimSpace(b[i:]); len(line) > 0 && line[0] == '{' && mergeObject(m, line) {
			return
		}
		b = b[:i]
	}
}

// mergeObject takes the numbers, strings and flags of an object; nested values are left out.
func mergeObject(m grid.Metric, b []byte) bool {
	var o map[string]json.RawMessage
	if json.Unmarshal(tolerant(b), &o) != nil {
		return false
	}
	for key, v := range o {
		if len(v) > 0 && v[0] != '{' && v[0] != '[' && v[0] != 'n' {
			m[key] = bytes.ToValidUTF8(v, []byte("\uFFFD"))
		}
	}
	return true
}

// notFinite finds the words that Python writes for numbers that JSON does not have. Strings are matched first, to be skipped.
var notFinite = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b`)

// tolerant turns NaN and Infinity into strings.
func tolerant(b []byte) []byte {
	if !bytes.Contains(b, []byte("NaN")) && !bytes.Contains(b, []byte("Infinity")) {
		return b
	}
	return notFinite.ReplaceAllFunc(b, func(w []byte) []byte {
		if w[0] == '"' {
			return w
		}
		return []byte(strconv.Quote(string(w)))
	})
}

// longestLine bounds the lines that a regular expression is matched on; longer ones are passed over.
const longestLine = 1 << 20

// mergeRegex matches named groups on each line; the last match of a name counts. A carriage return ends a line too: that is how
// progress bars write.
func mergeRegex(m grid.Metric, expr string, files ...*os.File) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return // checked when the project is loaded
	}
	for _, f := range files {
		for line := range bytes.FieldsFuncSeq(readEndOf(f), func(c rune) bool { return c == '\n' || c == '\r' }) {
			if len(line) <= longestLine {
				mergeMatches(m, re, line)
			}
		}
	}
}

func mergeMatches(m grid.Metric, re *regexp.Regexp, line []byte) {
	for _, match := range re.FindAllSubmatch(line, -1) {
		for i, name := range re.SubexpNames() {
			if name != "" && match[i] != nil {
				m[name] = scalar(match[i])
			}
		}
	}
}

// scalar makes a JSON number of what is one, else a string.
func scalar(b []byte) json.RawMessage {
	if v, err := strconv.ParseFloat(string(b), 64); err == nil {
		if json.Valid(b) {
			return bytes.Clone(b)
		}
		if out, err := json.Marshal(v); err == nil {
			return out
		}
	}
	out, _ := json.Marshal(string(b)) // strings always encode
	return out
}
