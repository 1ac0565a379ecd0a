package failure

import (
	"bytes"
	"strings"

	"mlfnode/grid/lazyregexp"
)

const (
	// maxLine bounds the part of a line that is examined, half of it at each end.
	maxLine = 1 << 10
	// maxEndLines is how many lines at the end may explain it, where no traceback does.
	maxEndLines = 100

	tracebackMark = "Traceback (most recent call last)"
)

var (
	// rankPrefix matches what launchers and frameworks put before the lines of one of several
	// processes.
	rankPrefix = lazyregexp.New(
		`^(\[(default|rank|Rank ?)\d+\]:? ?|(default|[Rr]ank ?)\d+: ?|\(\w+ pid=\d+[^)]*\) ?|\[\d+,\d+\]<std(out|err)>:? ?)`,
	)
	// taskPrefix matches what srun and mpirun put before the lines on request. Other programs
	// number their steps in this way, but not the lines of tracebacks.
	taskPrefix   = lazyregexp.New(`^( *\d+: ?|\[\d+\] )`)
	chainPhrases = lazyregexp.New(`During handling of the above|direct cause of the following`)
	ansiEscapes  = lazyregexp.New(`\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07\x1b\n]*\x07)`)
)

// streamEnd is what one stream says about the end of a program: lines, and the first one that
// counts.
type streamEnd struct {
	lines         []string
	from          int
	code          []bool // lines that show source code, which does not tell what happened
	exceptionLine int    // the line of the last exception; -1 if no traceback explains the end
	interleaved   bool   // the lines of several processes are mixed
	indirect      bool   // the exception only says that something else failed
	// for lines that were examined: whether they are about something after which the program went
	// on
	noise map[int]bool
}

// parseStream finds the decisive part of a stream. With one process that is the last chain of
// tracebacks and what follows: an error that the program caught does not explain a later one. With
// several processes it is everything, since each has an end of its own. Without tracebacks it is
// the last lines.
func parseStream(stream []byte, indirect func(line string) bool) *streamEnd {
	o := &streamEnd{exceptionLine: -1, noise: map[int]bool{}}
	o.splitLines(stream)
	o.from = max(0, len(o.lines)-maxEndLines)
	o.code = make([]bool, len(o.lines))
	var marks []int
	for i, line := range o.lines {
		if strings.Contains(line, tracebackMark) {
			marks = append(marks, i)
		}
	}
	ends := make([]int, len(marks))
	for i, mark := range marks {
		ends[i] = o.exceptionAfter(mark, len(o.lines))
	}
	if o.interleaved {
		o.from, o.indirect = 0, true
		return o
	}
	if len(marks) == 0 {
		return o
	}
	last := len(marks) - 1
	if o.countLines(ends[last]+1) > maxEndLines {
		return o // the program went on after it
	}
	first := last
	for first > 0 && o.isChained(ends[first-1], marks[first]) {
		first--
	}
	o.from, o.exceptionLine = marks[first], min(ends[last], len(o.lines)-1)
	for _, line := range o.lines[o.exceptionLine:min(o.exceptionLine+2, len(o.lines))] {
		o.indirect = o.indirect || indirect(line)
	}
	if o.indirect {
		o.from = max(0, o.from-maxEndLines)
	}
	return o
}

// splitLines splits a stream's end into lines, without what terminals and launchers add.
func (o *streamEnd) splitLines(stream []byte) {
	if len(stream) > MaxOutput {
		stream = stream[len(stream)-MaxOutput:]
		if i := bytes.IndexByte(stream, '\n'); i >= 0 {
			stream = stream[i+1:]
		}
	}
	text := string(stream)
	if strings.Contains(text, "\x1b") {
		text = ansiEscapes.Get().ReplaceAllString(text, "")
	}
	o.lines = strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	tasks := false
	for i, line := range o.lines {
		line = strings.TrimRight(line, " \t")
		if len(line) > maxLine {
			line = line[:maxLine/2] + " " + line[len(line)-maxLine/2:]
		}
		if line != "" && strings.IndexByte("[(drR", line[0]) >= 0 {
			if p := rankPrefix.Get().FindString(line); p != "" {
				line, o.interleaved = line[len(p):], true
			}
		}
		if at := strings.Index(line, tracebackMark); at > 0 && len(taskPrefix.Get().FindString(line)) == at {
			tasks = true
		}
		o.lines[i] = line
	}
	if tasks {
		o.interleaved = true
		for i, line := range o.lines {
			o.lines[i] = line[len(taskPrefix.Get().FindString(line)):]
		}
	}
}

// exceptionAfter returns the line after the frames of a traceback, and marks their source code.
func (o *streamEnd) exceptionAfter(mark, end int) int {
	for i := mark + 1; i < end; i++ {
		line := o.lines[i]
		switch {
		case strings.HasPrefix(line, "    "), strings.HasPrefix(line, "│"), strings.HasPrefix(line, "  File "):
			o.code[i] = true
		case line == "" || line[0] == ' ' || strings.HasPrefix(line, "╭") || strings.HasPrefix(line, "╰"):
		default:
			return i
		}
	}
	return end
}

// isChained reports whether a traceback follows from the exception before it.
func (o *streamEnd) isChained(exception, mark int) bool {
	for i := exception; i < mark; i++ {
		if chainPhrases.Get().MatchString(o.lines[i]) {
			return true
		}
	}
	return false
}

// countLines counts the lines from i on that are not empty.
func (o *streamEnd) countLines(i int) (n int) {
	for ; i < len(o.lines); i++ {
		if o.lines[i] != "" {
			n++
		}
	}
	return n
}
