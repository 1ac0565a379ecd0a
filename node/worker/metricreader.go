package worker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/dustin/go-humanize"

	"mlfnode/grid"
	"mlfnode/grid/lazyregexp"
)

// metricsBytes bounds how much of a file is read for metrics: of a longer one only the end counts.
const metricsBytes = 16 << 20

// maxMetrics bounds the metrics of one attempt, names and values together: an event that does not
// fit into one message could never be stored, and would hold up all reports behind it.
const maxMetrics = 64 << 10

// metricReader reads what an attempt reports, as it is written.
type metricReader struct {
	sources []metricSource
	own     *metricFile // $MLF_METRICS
}

// metricSource is a source that the task names.
type metricSource struct {
	grid.Source
	files []*metricFile // later ones win
}

func newMetricReader(a *attempt) *metricReader {
	r := &metricReader{own: newMetricFile(a.spool.metrics,
		metricFormat{points: (*metricText).objectsOrTable, merge: mergeAll})}
	for _, s := range a.task.Metrics {
		source := metricSource{Source: s}
		switch {
		case s.Log != "":
			path := filepath.Join(a.spool.work, s.Log)
			source.files = []*metricFile{
				newMetricFile(path, metricFormat{points: (*metricText).objectsOrTable,
					merge: mergeLog, lastOnly: true}),
			}
		case s.Regex != "":
			re, err := regexp.Compile(s.Regex)
			if err != nil {
				continue // checked when the project is loaded
			}
			matches := metricFormat{points: func(t *metricText, lines []byte) []byte { return t.matches(re, lines) }}
			source.files = []*metricFile{
				newMetricFile(a.spool.stdout.Name(), matches), newMetricFile(a.spool.stderr.Name(), matches),
			}
		case s.JSON != "":
			source.files = []*metricFile{
				newMetricFile(a.spool.stdout.Name(), metricFormat{points: (*metricText).objectsAtEnds, lastOnly: true}),
			}
		}
		r.sources = append(r.sources, source)
	}
	return r
}

// metricReading is what an attempt has reported so far.
type metricReading struct {
	values grid.Metric
	curves grid.Curves
	notes  []string // one for each source that the task names and that has no metrics
}

// readMetrics reads what is new, and returns the attempt's metrics from all its sources,
// $MLF_METRICS last. Later values win. Once the attempt has ended, the last line counts even if it
// is incomplete.
func (a *attempt) readMetrics(ended bool) metricReading {
	if a.report.reader == nil {
		a.report.reader = newMetricReader(a)
	}
	r := a.report.reader
	out := metricReading{values: grid.Metric{}}
	for _, s := range r.sources {
		found := grid.Metric{}
		note := ""
		for _, f := range s.files {
			changed := f.readNew(ended)
			var m grid.Metric
			m, note, _ = f.current(changed, ended)
			maps.Copy(found, m)
		}
		if len(found) > 0 {
			maps.Copy(out.values, found)
			continue
		}
		switch {
		case s.Regex != "":
			note = "metrics.regex: no line of the output matches " + s.Regex
		case s.JSON != "":
			note = "metrics.json: no JSON object is on stdout"
		case note != "":
			note = "metrics.log " + s.Log + ": " + note
		}
		if note != "" && !s.Optional {
			out.notes = append(out.notes, note)
		}
	}
	changed := r.own.readNew(ended)
	if r.own.problem == "" && r.own.size > 0 && !r.own.blank {
		m, note, understood := r.own.current(changed, ended)
		maps.Copy(out.values, m)
		switch {
		case understood:
		case r.own.size <= metricsBytes:
			note = "it contains neither a JSON object nor a CSV table with a header"
		default:
			note = fmt.Sprintf(
				"the last %s of it contain neither a JSON object nor a CSV table with a header, and no more is read",
				humanize.IBytes(metricsBytes),
			)
		}
		if len(m) == 0 && note != "" {
			out.notes = append(out.notes, "$MLF_METRICS: "+note)
		}
	}
	if n := dropLargest(out.values); n > 0 {
		out.notes = append(out.notes, fmt.Sprintf(
			"%d of the metrics were left out, the largest first: one attempt has room for %s", n,
			humanize.IBytes(maxMetrics),
		))
	}
	out.curves = r.curves(out.values)
	if len(out.values) == 0 {
		out.values = nil
	}
	return out
}

// curves returns the curves of metrics with more than one point, at most grid.MaxCurves of them.
func (r *metricReader) curves(m grid.Metric) grid.Curves {
	var files []*metricFile
	for _, s := range r.sources {
		files = append(files, s.files...)
	}
	files = append(files, r.own)
	var all grid.Curves
	for _, name := range slices.Sorted(maps.Keys(m)) {
		var points []grid.Point
		for _, f := range files {
			if b := f.text.builders[name]; b != nil {
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

// dropLargest drops what exceeds maxMetrics: values that were too long to keep, which are nil, and
// then the largest first. It returns how many it has dropped.
func dropLargest(m grid.Metric) (left int) {
	before := len(m)
	maps.DeleteFunc(m, func(_ string, v json.RawMessage) bool { return v == nil })
	left = before - len(m)
	total := metricBytes(m)
	if total <= maxMetrics {
		return left
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

// metricBytes returns the size of metrics, names and values together.
func metricBytes(m grid.Metric) (total int) {
	for name, v := range m {
		total += len(name) + len(v)
	}
	return total
}

// ansiEscapes matches the escape sequences with which programs colour what they print, and erase
// lines.
var ansiEscapes = lazyregexp.New(`\x1b\[[0-9;:?]*[A-Za-z]`)

func stripANSI(b []byte) []byte {
	if bytes.IndexByte(b, 0x1b) < 0 {
		return b
	}
	return ansiEscapes.Get().ReplaceAll(b, nil)
}

// longestLine bounds the lines that a regular expression is matched on; longer ones are skipped.
const longestLine = 1 << 20

// parseScalar returns a JSON number if the text is one, also with the punctuation behind it that
// `\S+` matches, else a string.
func parseScalar(b []byte) json.RawMessage {
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
