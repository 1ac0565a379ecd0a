package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/printable"
	"mlfnode/grid/space"
)

// sanitize makes a line from a program or another machine safe to show.
func sanitize(line []byte) string { return printable.Line(line) }

func truncate(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:max(n-1, 0)]) + "…"
}

func plural(n int64, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func bytesText(n int64) string {
	if n <= 0 {
		return ""
	}
	return humanize.IBytes(uint64(n))
}

// metricText shortens numbers for a person.
func metricText(raw json.RawMessage) string {
	if len(raw) == 0 {
		return ""
	}
	if f, err := strconv.ParseFloat(string(raw), 64); err == nil {
		return strconv.FormatFloat(f, 'g', 6, 64)
	}
	return metricCell(raw)
}

// metricCell gives a metric as it was written.
func metricCell(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

func paramText(p space.Params, key string) string { return paramValue(p, key).Text }

// exitText is empty where there is no exit code.
func exitText(code *int) string {
	if code == nil {
		return ""
	}
	return strconv.Itoa(*code)
}

func timeText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}

// timeAgo says how long ago something was that lies in the past, whatever the clocks of two
// machines, or of one that was set back, say.
func timeAgo(t time.Time) string {
	if now := time.Now(); t.After(now) {
		t = now
	}
	return humanize.Time(t)
}

// dayAndTime is a moment for people to read.
func dayAndTime(t time.Time) string { return t.Local().Format("2 January 2006 15:04") }

// oneLine joins the lines of a text, each as it would be shown.
func oneLine(s string) string { return strings.Join(shownLines(s), " · ") }

// shownLines are the lines of a text as they would be shown, without the empty ones.
func shownLines(s string) []string {
	var lines []string
	for line := range strings.SplitSeq(s, "\n") {
		if line = strings.TrimSpace(sanitize([]byte(line))); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// lastLine is the last line that has anything in it, as a terminal would show it.
func lastLine(text []byte) string {
	lines := bytes.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for _, line := range slices.Backward(lines) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return sanitize(line)
		}
	}
	return ""
}

// tqdmLine is a line as tqdm and its like draw it.
var tqdmLine = lazyregexp.New(`^(.{0,60}: *)?\d{1,3}%[|\s[]`)

// reasonLines are the lines of the reason of a failure, which has its cause in the first line and
// the last output behind it, without the progress bars among that.
func reasonLines(reason string) []string {
	lines := shownLines(reason)
	if len(lines) == 0 {
		return nil
	}
	return append(lines[:1], slices.DeleteFunc(lines[1:], tqdmLine.Get().MatchString)...)
}

// shortReason shortens the reason of a failure to its cause and the last line of output.
func shortReason(reason string) string {
	lines := reasonLines(reason)
	if len(lines) > 2 {
		lines = []string{lines[0], lines[len(lines)-1]}
	}
	return strings.Join(lines, " · ")
}
