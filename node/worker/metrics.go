package worker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/grid/lazyregexp"
)

// metricsBytes bounds how much of a file is read for metrics: of a longer one only the end counts.
const metricsBytes = 16 << 20

// maxMetrics bounds the metrics of one attempt, names and values together: an event that does not fit one message could never
// be stored, and would hold up all reports behind it.
const maxMetrics = 64 << 10

// readMetrics gathers the attempt's metrics from all its sources, $MLF_METRICS last. Later values win.
func (a *attempt) readMetrics() grid.Metric {
	m, _ := a.gatherMetrics()
	return m
}

// gatherMetrics is readMetrics with a note for each source that the task names and that gave nothing.
func (a *attempt) gatherMetrics() (m grid.Metric, notes []string) {
	m = grid.Metric{}
	for _, s := range a.task.Metrics {
		before := len(m)
		found := grid.Metric{}
		note := ""
		switch {
		case s.Log != "":
			var text []byte
			if text, note = readLog(filepath.Join(a.spool.work, s.Log)); note == "" && !mergeLog(found, text) {
				note = "it contains neither JSON objects nor a CSV table with a header"
			}
			if note == "" && len(found) == 0 {
				note = "it contains no number or text under a name (lists are left out)"
			}
			note = prefixed("metrics.log "+s.Log+": ", note)
		case s.Regex != "":
			if mergeRegex(found, s.Regex, a.spool.stdout, a.spool.stderr); len(found) == 0 {
				note = "metrics.regex: no line of the output matches " + s.Regex
			}
		case s.JSON != "":
			if mergeLastObject(found, colourless(readEndOf(a.spool.stdout))); len(found) == 0 {
				note = "metrics.json: no JSON object is on stdout"
			}
		}
		maps.Copy(m, found)
		if len(found) == 0 && len(m) == before && note != "" {
			notes = append(notes, note)
		}
	}
	if text := readEnd(a.spool.metrics); len(bytes.TrimSpace(text)) > 0 {
		found := grid.Metric{}
		switch ok := mergeAll(found, text); {
		case !ok && len(text) == metricsBytes:
			notes = append(notes, fmt.Sprintf("$MLF_METRICS: the last %s of it contain neither a JSON object nor a CSV table with a header, and no more is read", humanize.IBytes(metricsBytes)))
		case !ok:
			notes = append(notes, "$MLF_METRICS: it contains neither a JSON object nor a CSV table with a header")
		case len(found) == 0:
			notes = append(notes, "$MLF_METRICS: it contains no number or text under a name (lists are left out)")
		}
		maps.Copy(m, found)
	}
	if n := shorten(m); n > 0 {
		notes = append(notes, fmt.Sprintf("%d of the metrics were left out, the largest first: one attempt has room for %s", n, humanize.IBytes(maxMetrics)))
	}
	if len(m) == 0 {
		m = nil
	}
	return m, notes
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// shorten leaves out what is over maxMetrics, the largest values first, and reports how many those are.
func shorten(m grid.Metric) (left int) {
	total := 0
	for name, v := range m {
		total += len(name) + len(v)
	}
	if total <= maxMetrics {
		return 0
	}
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b)+len(m[b]), len(a)+len(m[a])), cmp.Compare(a, b))
	})
	for _, name := range names {
		if total <= maxMetrics {
			break
		}
		total -= len(name) + len(m[name])
		delete(m, name)
		left++
	}
	return left
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

// colours are the escape sequences by which programs colour what they print, and erase lines.
var colours = lazyregexp.New(`\x1b\[[0-9;:?]*[A-Za-z]`)

func colourless(b []byte) []byte {
	if bytes.IndexByte(b, 0x1b) < 0 {
		return b
	}
	return colours.Get().ReplaceAll(b, nil)
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
		for line := range outputLines(readEndOf(f)) {
			mergeMatches(m, re, line)
		}
	}
}

// outputLines yields the lines of output that are not too long, without colours.
func outputLines(text []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for line := range bytes.FieldsFuncSeq(colourless(text), func(c rune) bool { return c == '\n' || c == '\r' }) {
			if len(line) <= longestLine && !yield(line) {
				return
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

// scalar makes a JSON number of what is one, also with the punctuation behind it that `\S+` takes along, else a string.
func scalar(b []byte) json.RawMessage {
	if t := bytes.TrimRight(b, " \t,;:)]}|"); len(t) < len(b) {
		_, special := grid.Special(string(t))
		if _, err := strconv.ParseFloat(string(t), 64); err == nil || special {
			b = t
		}
	}
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
