package main

import (
	"bytes"
	"strings"
	"testing"

	"mlfnode/cluster/bootstrap"
	"mlfnode/cluster/bootstrap/shell"
)

// TestWordsOfMachinesAreSafeToShow has problems and notes of a remote machine shown that would take
// over the terminal.
func TestWordsOfMachinesAreSafeToShow(t *testing.T) {
	for _, evil := range []string{"x \x1b]52;c;cm0gLXJmIH4=\a\x1b[2J", "a\u009b2Jb", "one\ntwo\x1b[1A", "\x00\b\b"} {
		var out, errs bytes.Buffer
		ui := newConsole(&out, &errs)
		p := &shell.Problem{Cause: evil, Cure: evil}
		printNotes(ui, []bootstrap.Outcome{{Host: "evil", Problem: p, Notes: []string{evil}, Cluster: []string{evil}}})
		ui.printError(explainProblem(p))
		ui.printError(p)
		v := &clusterView{w: &errs}
		v.showEvent(bootstrap.Event{Host: "evil", Step: bootstrap.Start, Done: true, Err: p})
		v.showEvent(bootstrap.Event{Host: "evil", Step: bootstrap.Start, Done: true, Detail: evil})
		if got := out.String() + errs.String(); strings.ContainsAny(got, "\x00\b\x1b\a\u009b") {
			t.Errorf("%q reaches the terminal: %q", evil, got)
		}
	}
}
