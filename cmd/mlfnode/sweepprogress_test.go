package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestSettingUp follows a sweep whose setup step prints before the first trial, and that of another
// node while trials run.
func TestSettingUp(t *testing.T) {
	var out bytes.Buffer
	p := &progress{w: &out, terminal: true}
	now := time.Now()
	v := api.Sweep{SweepCounts: api.SweepCounts{Sweep: "p-1", State: grid.SweepRunning, Count: 4}}
	update := func(running, succeeded int64) {
		next := v
		next.Running, next.Succeeded = running, succeeded
		p.update(&next, now)
	}
	shows := func(when, want string) {
		t.Helper()
		if got := p.shown; want != "" && !strings.Contains(got, " · setting up: "+want) || want == "" &&
			strings.Contains(got, "setting up") {
			t.Errorf("%s: got %q, want %q", when, got, want)
		}
	}
	update(0, 0)
	shows("nothing has been printed", "")
	p.showSetup([]byte("Collecting num"), now)
	shows("half a line", "Collecting num")
	p.showSetup([]byte("py\n  10 %\r  20 %\r\n\n"), now)
	shows("a progress bar", "20 %")
	p.showSetup([]byte(strings.Repeat("x", 1000)+"\n\x1b[31minstalled\x1b[0m\n"), now)
	shows("colours", "installed")
	update(2, 0)
	shows("trials run", "")
	p.showSetup([]byte("another node\n"), now)
	shows("another node is set up meanwhile", "")
	update(0, 2)
	p.showSetup([]byte("again\n"), now)
	shows("the next files", "again")
	update(0, 3)
	shows("a short trial has ended", "")
}
