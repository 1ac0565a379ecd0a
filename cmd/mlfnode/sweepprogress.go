package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node/api"
)

// plainInterval is the shortest time between two progress lines where there is no terminal.
const plainInterval = 5 * time.Second

// progress shows the progress of a sweep: on a terminal in one line at the bottom, elsewhere as a
// line now and then.
type progress struct {
	w        io.Writer
	terminal bool
	quiet    bool

	mu    sync.Mutex
	shown string // the line on the terminal
	last  time.Time
	sweep *api.Sweep // as it is now, nil before anything is known

	setup []byte // the end of what setup steps have printed; empty once a trial has started
	ended int64  // trials of the sweep that had ended when they printed it
}

// maxSetup bounds what is kept of the output of setup steps.
const maxSetup = 512

func (p *progress) update(s *api.Sweep, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep = s
	if s.Running > 0 || endedTrials(s) > p.ended {
		p.setup = nil
	}
	p.showLocked(now)
}

// showSetup shows the last line of a setup step's output until a trial runs or has ended.
func (p *progress) showSetup(data []byte, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sweep == nil || p.sweep.Running > 0 {
		return
	}
	p.setup, p.ended = append(p.setup, data...), endedTrials(p.sweep)
	p.setup = p.setup[max(0, len(p.setup)-maxSetup):]
	p.showLocked(now)
}

func (p *progress) showLocked(now time.Time) {
	text := progressLine(p.sweep, lastLine(p.setup), now)
	switch {
	case p.terminal:
		p.clearLocked()
		columns, _ := terminalSize(p.w)
		p.shown = truncate(text, columns-1)
		fmt.Fprint(p.w, p.shown)
	case !p.quiet && now.Sub(p.last) >= plainInterval:
		p.last = now
		fmt.Fprintln(p.w, text)
	}
}

// clear removes the line from the terminal, so that something else can be printed.
func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
}

func (p *progress) clearLocked() {
	if p.shown != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = ""
	}
}

// print prints a line above the progress line.
func (p *progress) print(w io.Writer, line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	shown := p.shown
	p.clearLocked()
	fmt.Fprintln(w, line)
	if shown != "" {
		p.shown = shown
		fmt.Fprint(p.w, shown)
	}
}

// endedTrials counts the trials that have ended.
func endedTrials(s *api.Sweep) int64 { return s.Succeeded + s.Failed + s.Cancelled }

// barWidth is how many characters of a progress line are its bar.
const barWidth = 20

// progressLine returns the counts, the rate and the time left. setup is the last line of a running
// setup step.
func progressLine(s *api.Sweep, setup string, now time.Time) string {
	done := endedTrials(s)
	full := 0
	if s.Count > 0 {
		full = int(float64(done) / float64(s.Count) * barWidth)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s [%s%s] %d/%d", s.Sweep, strings.Repeat("#", full), strings.Repeat("-", barWidth-full), done,
		s.Count)
	if s.Running > 0 {
		fmt.Fprintf(&b, " · %d running", s.Running)
	}
	if s.Failed > 0 {
		fmt.Fprintf(&b, " · %d failed", s.Failed)
	}
	if s.State == grid.SweepPaused {
		b.WriteString(" · paused")
	} else if setup != "" {
		b.WriteString(" · setting up: " + setup)
	}
	if s.Started != nil && done > 0 {
		if spent := now.Sub(*s.Started).Seconds(); spent > 0 && s.State == grid.SweepRunning {
			format := " · %.2g/s"
			if float64(done)/spent >= 100 {
				format = " · %.0f/s"
			}
			fmt.Fprintf(&b, format, float64(done)/spent)
		}
	}
	if s.ETA != nil && s.State == grid.SweepRunning {
		fmt.Fprintf(&b, " · %s left", printable.Seconds(*s.ETA))
	}
	if s.Problem != "" {
		b.WriteString(" · " + sanitize([]byte(s.Problem)))
	}
	return b.String()
}
