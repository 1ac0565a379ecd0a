package worker

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"os"
	"strconv"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/problem"
)

// longestObject bounds an object that spans several lines.
const longestObject = 1 << 20

// readMetricLog reads the end of a file that a project names, and also its first line, for the
// header of a table. The note says why there is nothing.
func readMetricLog(path string) (text []byte, note string) {
	f, info, problem := openMetrics(path)
	if f == nil {
		return nil, problem
	}
	defer f.Close()
	text = readEnd(f, metricsBytes)
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, "it is empty"
	}
	if info.Size() <= metricsBytes {
		return text, ""
	}
	head := make([]byte, 64<<10)
	n, _ := f.ReadAt(head, 0) // use what could be read
	header, first := bytes.IndexByte(head[:n], '\n')+1, bytes.IndexByte(text, '\n')+1
	if header == 0 || first == 0 {
		return text, ""
	}
	return append(head[:header:header], text[first:]...), "" // without the incomplete first line
}

// openMetrics opens a file of metrics. Without one it says why.
func openMetrics(path string) (f *os.File, info fs.FileInfo, why string) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // opening a fifo would block
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, "the program did not write it"
	}
	if err != nil {
		return nil, nil, "it can't be read: " + problem.WithoutPath(err).Error()
	}
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, nil, "it is not a regular file"
	}
	return f, info, ""
}

// decodeText removes the byte order mark and the white space around the text, and decodes UTF-16,
// which some programs write on request.
func decodeText(b []byte) []byte {
	if len(b) > 1 && (b[0] == 0xff && b[1] == 0xfe || b[0] == 0xfe && b[1] == 0xff) {
		low := 0 // position of the low byte in a pair
		if b[0] == 0xfe {
			low = 1
		}
		units := make([]uint16, 0, len(b)/2)
		for i := 2; i+1 < len(b); i += 2 {
			units = append(units, uint16(b[i+low])|uint16(b[i+1-low])<<8)
		}
		b = []byte(string(utf16.Decode(units)))
	}
	return bytes.TrimSpace(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
}

// mergeLog reads a list of objects (Chainer's LogReport), objects (on lines of their own, or over
// several) or a CSV table; the last object counts, of a table the last value of each column. It
// reports whether there was anything.
func mergeLog(m grid.Metric, b []byte) bool {
	b = decodeText(b)
	if len(b) > 0 && b[0] == '[' {
		var last grid.Metric
		if eachListElement(b, func(o grid.Metric) { last = o }) && last != nil {
			maps.Copy(m, last)
			return true
		}
	}
	return mergeLastObject(m, b) || mergeTable(m, b)
}

// mergeAll merges every object of $MLF_METRICS, so that a program may report different names at
// different times.
func mergeAll(m grid.Metric, text []byte) bool {
	text = decodeText(text)
	for _, python := range []bool{false, true} {
		found := false
		eachObject(text, python, func(o grid.Metric) {
			maps.Copy(m, o)
			found = true
		})
		if found {
			return true
		}
	}
	return mergeTable(m, text)
}

// eachObject calls fn with every object that starts a line, also behind a progress bar or another
// object. It returns the start of one that does not end in b.
func eachObject(b []byte, python bool, fn func(grid.Metric)) (unfinished []byte) {
	// Text that starts like an object and never ends must not be read to the end again and again.
	for budget := 4*len(b) + longestObject; len(b) > 0 && budget > 0; {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		begin := line
		if i := bytes.LastIndexByte(bytes.TrimRight(line, "\r"), '\r'); i >= 0 { // behind a progress bar
			begin = line[i+1:]
		}
		if begin = bytes.TrimLeft(begin, " \t["); len(begin) == 0 || begin[0] != '{' {
			b = rest
			continue
		}
		start := b[len(line)-len(begin):]
		o, n, ok := parseOneObject(start[:min(len(start), longestObject+len(begin))], python)
		budget -= n
		if !ok {
			if n == len(start) && unfinished == nil {
				unfinished = start
			}
			b = rest
			continue
		}
		fn(o)
		unfinished = nil
		b = bytes.TrimLeft(start[n:], " \t,;]")
	}
	return unfinished
}

// parseOneObject reads one object off the front of b, and returns its length; ok is false where b
// does not start with one.
func parseOneObject(b []byte, python bool) (o grid.Metric, n int, ok bool) {
	r := lenientParser{b: b, python: python, values: grid.Metric{}}
	ok = r.parseObject("", 0)
	return r.values, r.pos, ok
}

// eachListElement calls fn with every element of a list, nil for one that is not an object; it
// returns false where the list does not end.
func eachListElement(b []byte, fn func(grid.Metric)) bool {
	rest := bytes.TrimSpace(b[1:])
	for len(rest) > 0 {
		switch {
		case rest[0] == ']':
			return true
		case rest[0] == '{':
			o, n, ok := parseOneObject(rest, false)
			if !ok {
				return false
			}
			fn(o)
			rest = rest[n:]
		default: // an element of another kind
			r := lenientParser{b: rest}
			for r.pos < len(rest) && rest[r.pos] != ',' && rest[r.pos] != ']' {
				r.pos++
			}
			fn(nil)
			rest = rest[r.pos:]
		}
		rest = bytes.TrimSpace(rest)
		if len(rest) > 0 && rest[0] == ',' {
			rest = bytes.TrimSpace(rest[1:])
		}
	}
	return false
}

// mergeLastObject takes the last JSON object that ends a line, also one over several lines or
// behind a progress bar. Where there is none it takes the last dict that Python printed.
func mergeLastObject(m grid.Metric, b []byte) bool {
	b = decodeText(b)
	for _, python := range []bool{false, true} {
		budget := 4*len(b) + longestObject
		for line, begin := range linesLikeObjects(b) {
			if o := objectBefore(line, begin, python, &budget); o != nil {
				maps.Copy(m, o)
				return true
			}
			if budget <= 0 {
				break
			}
		}
	}
	return false
}

// linesLikeObjects yields the text up to the end of each line that ends like an object, the last
// one first, and where the line begins.
func linesLikeObjects(b []byte) iter.Seq2[[]byte, int] {
	return func(yield func([]byte, int) bool) {
		for end := len(b); end > 0; {
			begin := bytes.LastIndexByte(b[:end], '\n') + 1
			line := bytes.TrimRight(b[begin:end], " \t\r\n,")
			if len(line) > 0 && line[len(line)-1] == '}' && !yield(b[:begin+len(line)], begin) {
				return
			}
			end = max(begin-1, 0)
		}
	}
}

// Bounds on the search for the start of an object.
const (
	braceTries = 16   // braces of one line
	lineTries  = 4096 // lines
)

// objectBefore finds the object that ends with b: it starts in the last line, from begin on, or at
// the start of a line before.
func objectBefore(b []byte, begin int, python bool, budget *int) grid.Metric {
	try := func(at int) grid.Metric {
		o, n, ok := parseOneObject(b[at:], python)
		*budget -= n
		if !ok || at+n != len(b) {
			return nil
		}
		return o
	}
	at := begin
	for range braceTries {
		i := bytes.IndexByte(b[at:], '{')
		if i < 0 {
			break
		}
		if o := try(at + i); o != nil {
			return o
		}
		at += i + 1
	}
	tried := 0
	for end := begin; end > 0 && len(b)-end < longestObject && tried < lineTries && *budget > 0; {
		end--
		start := bytes.LastIndexByte(b[:end], '\n') + 1
		line := b[start:end]
		*budget -= len(line) + 1
		first := bytes.TrimLeft(line, " \t")
		if i := bytes.LastIndexByte(bytes.TrimRight(line, "\r"), '\r'); i >= 0 {
			first = line[i+1:]
		}
		if open := bytes.TrimRight(first, " \t\r"); len(open) > 0 &&
			(open[0] == '{' || open[len(open)-1] == '{' && bytes.IndexByte(open, ':') < 0) {
			tried++
			if o := try(end - len(first) + bytes.IndexByte(first, '{')); o != nil {
				return o
			}
		}
		end = start
	}
	return nil
}

// columnName matches the name of the only column of a table.
var columnName = lazyregexp.New(`^[A-Za-z_][\w./-]*$`)

// decimalComma matches a number of a table whose delimiter is a semicolon or a tab: there a comma
// may stand for the decimal point.
var decimalComma = lazyregexp.New(`^[+-]?\d+,\d+([eE][+-]?\d+)?$`)

// mergeTable reads a CSV table whose first line has the names. Of each column the last value that
// is not empty counts, since some programs write training and validation into separate rows.
func mergeTable(m grid.Metric, b []byte) bool {
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		if t := parseHeader(line); t != nil && t.merge(m, rest) {
			return true
		}
		if !isComment(line) {
			return false
		}
		b = rest
	}
	return false
}

// merge reads the rows of the table. It reports whether there was a value.
func (t *table) merge(m grid.Metric, lines []byte) bool {
	rows := csv.NewReader(bytes.NewReader(lines))
	rows.Comma, rows.FieldsPerRecord, rows.LazyQuotes, rows.ReuseRecord = t.comma, -1, true, true
	found := grid.Metric{}
	words := false
	for {
		row, err := rows.Read()
		if row == nil || (err != nil && !errors.Is(err, csv.ErrFieldCount)) {
			break
		}
		for name, v := range t.values(row) {
			found[name] = v
			words = words || !isNumberMetric(v)
		}
	}
	if len(t.names) == 1 && (words || !columnName.Get().MatchString(t.names[0])) {
		return false // any text has one column
	}
	maps.Copy(m, found)
	return len(found) > 0
}

// isComment reports whether a line may stand above the header of a table: a comment, or an empty
// line.
func isComment(line []byte) bool {
	line = bytes.TrimSpace(line)
	return len(line) == 0 || line[0] == '#'
}

// table is the header of a CSV table.
type table struct {
	names []string
	comma rune
}

// parseHeader reads a header: names that are not numbers, each once. The first of several may be
// empty. It returns nil for a line that is not a header.
func parseHeader(line []byte) *table {
	header := strings.TrimRight(strings.TrimLeft(string(line), "# "), "\r")
	comma := ',' // or the delimiter that occurs more often
	for _, c := range ";\t" {
		if strings.Count(header, string(c)) > strings.Count(header, string(comma)) {
			comma = c
		}
	}
	names, err := readRow(header, comma)
	if err != nil || len(names) == 0 {
		return nil
	}
	seen := map[string]bool{}
	for i, n := range names {
		if n == "" && i == 0 && len(names) > 1 {
			continue
		}
		if _, err := strconv.ParseFloat(n, 64); err == nil || n == "" || seen[n] || len(n) > 200 {
			return nil
		}
		seen[n] = true
	}
	return &table{names: names, comma: comma}
}

// values yields the values of a row by name; nothing for a row that is incomplete, or does not
// belong to this table.
func (t *table) values(row []string) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		if len(row) != len(t.names) && !(len(row) == len(t.names)+1 && strings.TrimSpace(row[len(t.names)]) == "") {
			return
		}
		for i, name := range t.names {
			if name == "" {
				continue // row names, as pandas and R write them
			}
			if v := parseField(row[i], t.comma); v != nil && !yield(name, v) {
				return
			}
		}
	}
}

func readRow(line string, comma rune) ([]string, error) {
	r := csv.NewReader(strings.NewReader(line))
	r.Comma, r.LazyQuotes = comma, true
	names, err := r.Read()
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	return names, err
}

func parseField(text string, comma rune) json.RawMessage {
	text = strings.TrimSpace(strings.ToValidUTF8(text, "\uFFFD"))
	if text == "" {
		return nil
	}
	if comma != ',' && decimalComma.Get().MatchString(text) {
		text = strings.Replace(text, ",", ".", 1)
	}
	if v := parseBareWord(text, false); v != nil && text != "true" && text != "false" {
		return v
	}
	return parseText(text)
}

func isNumberMetric(v json.RawMessage) bool {
	return len(v) > 0 && (v[0] == '-' || v[0] >= '0' && v[0] <= '9')
}
