package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mlfnode/node/api"
)

// TestLongBarIsShownWhole has a progress bar come that goes on for longer than the longest line, in
// pieces of any length: what is shown are whole states of it, the last one too.
func TestLongBarIsShownWhole(t *testing.T) {
	states := map[string]bool{}
	var bar strings.Builder
	for i := range 1000 {
		state := fmt.Sprintf("%3d%%|%-50s| %d/1000", i/10, strings.Repeat("#", i/20), i)
		states[state] = true
		bar.WriteString("\r" + state)
	}
	for _, size := range []int{1, 777, 4096, longestLine, 3 * longestLine, bar.Len()} {
		var shown []string
		l := newLineWriter("t-1", false, func(line string) {
			shown = append(shown, strings.TrimPrefix(line, "t-1/0 ! "))
		})
		for text := bar.String(); text != ""; {
			n := min(size, len(text))
			l.write(&api.Output{Run: "r", Stream: "stderr", Data: []byte(text[:n])}, time.Now())
			text = text[n:]
		}
		l.flush()
		for _, line := range shown {
			if !states[line] {
				t.Errorf("in pieces of %d: got %q, which the bar never was", size, line)
			}
		}
		if last := shown[len(shown)-1]; !strings.HasSuffix(last, "999/1000") || len(shown) > 2+bar.Len()/longestLine*2 {
			t.Errorf("in pieces of %d: got %d lines, the last one %q", size, len(shown), last)
		}
	}
}
