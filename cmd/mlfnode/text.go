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

// metricText rounds a number for people.
func metricText(raw json.RawMessage) string {
	if len(raw) == 0 {
		return ""
	}
	if f, err := strconv.ParseFloat(string(raw), 64); err == nil {
		return strconv.FormatFloat(f, 'g', 6, 64)
	}
	return metricCell(raw)
}

// metricCell returns a metric as it was reported.
func metricCell(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

func paramText(p space.Params, key string) string { return paramValue(p, key).Text }

// exitText returns an exit code, "" if there is none.
func exitText(code *int) string {
	if code == nil {
		return ""
	}
	return strconv.Itoa(*code)
}

// timeAgo says how long ago a past event was. A time in the future, from a clock that is ahead or
// was set back, counts as now.
func timeAgo(t time.Time) string {
	if now := time.Now(); t.After(now) {
		t = now
	}
	return humanize.Time(t)
}

// dayAndTime formats a time for people.
func dayAndTime(t time.Time) string { return t.Local().Format("2 January 2006 15:04") }

// oneLine joins the lines of a text, each made safe to show.
func oneLine(s string) string { return strings.Join(shownLines(s), " · ") }

// shownLines returns the lines of a text, made safe to show, without the empty ones.
func shownLines(s string) []string {
	var lines []string
	for line := range strings.SplitSeq(s, "\n") {
		if line = strings.TrimSpace(sanitize([]byte(line))); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// lastLine returns the last line that is not empty, as a terminal would show it.
func lastLine(text []byte) string {
	lines := bytes.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for _, line := range slices.Backward(lines) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return sanitize(line)
		}
	}
	return ""
}

// tqdmLine matches a progress bar of tqdm and the like.
var tqdmLine = lazyregexp.New(`^(.{0,60}: *)?\d{1,3}%[|\s[]`)

// reasonLines returns the lines of a failure's reason, which has the cause in the first line and
// the last output after it, without progress bars.
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
