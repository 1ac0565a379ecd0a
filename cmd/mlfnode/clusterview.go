package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"mlfnode/cluster/bootstrap"
)

// clusterView shows what happens on the machines: on a terminal a table that changes, elsewhere a
// line for each step that has ended.
type clusterView struct {
	w        io.Writer
	terminal bool

	mu     sync.Mutex
	rows   []*machineRow
	drawn  int // lines on the terminal
	pauses int // how many callers of pause have not resumed
}

// showEvent shows an event; it is bootstrap.Options.OnEvent.
func (v *clusterView) showEvent(e bootstrap.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := slices.IndexFunc(v.rows, func(r *machineRow) bool { return r.host == e.Host })
	if i < 0 {
		i = len(v.rows)
		v.rows = append(v.rows, &machineRow{host: e.Host})
	}
	r := v.rows[i]
	r.step, r.busy, r.failed, r.text = e.Step, !e.Done, e.Err != nil, string(e.Step)+" …"
	if e.Done {
		r.text = fmt.Sprintf("%-8s%s", e.Step, outcomeOf(&e))
	}
	switch {
	case v.terminal && v.pauses > 0: // shown with what comes next
	case v.terminal:
		v.draw(terminalSize(v.w))
	case e.Done:
		fmt.Fprintf(v.w, "%-12s %s  (%.1f s)\n", e.Host, oneLine(r.text), e.Took.Seconds())
	}
}

func outcomeOf(e *bootstrap.Event) string {
	switch {
	case errors.Is(e.Err, context.Canceled):
		return "interrupted"
	case e.Err != nil:
		return "FAILED: " + strings.ReplaceAll(e.Err.Error(), "\n", " ")
	case e.Detail != "":
		return e.Detail
	}
	return "ok"
}

// draw draws the table over the last one.
func (v *clusterView) draw(columns, lines int) {
	var b strings.Builder
	b.WriteString(v.eraseSequence())
	shown := v.lines(max(lines-1, 2)) // the cursor is on the last line
	for _, line := range shown {
		b.WriteString(truncate(line, columns-1) + "\n")
	}
	v.drawn = len(shown)
	_, _ = io.WriteString(v.w, b.String()) // a terminal that is gone is noticed by its signal
}

// eraseSequence returns what erases the last table from the terminal.
func (v *clusterView) eraseSequence() string {
	if v.drawn == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\r\x1b[J", v.drawn)
}

// lines returns the lines of the table. Nothing can be redrawn above the first line of a terminal,
// so a terminal with too few lines for all machines shows how many are at which step, then those
// that have failed and those that are busy.
func (v *clusterView) lines(most int) []string {
	chosen, lines := v.rows, []string(nil)
	if len(v.rows) > most {
		chosen, lines = v.mostUrgent(most-1), []string{v.summary()}
	}
	for _, r := range chosen {
		lines = append(lines, fmt.Sprintf("%-12s %s", r.host, oneLine(r.text)))
	}
	return lines
}

// mostUrgent returns at most limit rows, those that need attention first.
func (v *clusterView) mostUrgent(limit int) []*machineRow {
	var failed, busy []*machineRow
	for _, r := range v.rows {
		if r.failed {
			failed = append(failed, r)
		} else if r.busy {
			busy = append(busy, r)
		}
	}
	all := append(failed[:min(len(failed), limit/2)], busy...)
	return all[:min(len(all), limit)]
}

// summary counts the machines at each step.
func (v *clusterView) summary() string {
	var steps []bootstrap.Step
	at, failed := map[bootstrap.Step]int{}, 0
	for _, r := range v.rows {
		if r.failed {
			failed++
			continue
		}
		if at[r.step]++; at[r.step] == 1 {
			steps = append(steps, r.step)
		}
	}
	parts := []string{fmt.Sprintf("%d failed", failed)}
	for _, s := range steps {
		parts = append(parts, fmt.Sprintf("%s %d", s, at[s]))
	}
	return fmt.Sprintf("%d hosts: %s", len(v.rows), strings.Join(parts, ", "))
}

// pause erases the table, so that something can be printed or asked; the table returns below that
// with the first event after resume.
func (v *clusterView) pause() (resume func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, _ = io.WriteString(v.w, v.eraseSequence()) // as in draw
	v.drawn = 0
	v.pauses++
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.pauses--
	}
}

// machineRow is what is known about one machine.
type machineRow struct {
	host   string
	step   bootstrap.Step
	busy   bool // the step is running
	failed bool
	text   string
}
