package browser

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestLog follows output with colours and progress bars while it grows, searches it, and stops
// following on request.
func TestLog(t *testing.T) {
	c := newCluster(t)
	id := c.sweep(`printf '\033[31mred\033[0m plain\n'; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "line $i"; done; echo needle
		j=0; while [ ! -e `+c.dir+
		`/stop ]; do j=$((j+1)); printf '\rbar %d' $j; sleep 0.05; done; echo; echo the last line; echo to stderr >&2`,
		"x=1")
	b := newBrowser(t)
	b.login(c.monitor())
	b.open("/sweeps/" + id + "/trials/0")
	b.wait("[...document.querySelectorAll('.log .ln')].some(l => /^bar [0-9]+$/.test(l.textContent) && +l.textContent.slice(4) > 5)")
	if n := eval[int](b, "document.querySelectorAll('.log .ln').length"); n > 300 {
		t.Errorf("%d lines are drawn, want those that are seen alone", n)
	}
	b.press("f") // stop following
	eval[bool](b, "(document.querySelector('.log').scrollTop = 0, true)")
	b.wait("document.querySelector('.log .ln .fc1')?.textContent === 'red'")
	b.fill("input[data-search]", "needle\r")
	b.wait("document.querySelector('.log .ln.current')?.textContent === 'needle'")
	b.says("1 of 1 hits")
	if err := os.WriteFile(filepath.Join(c.dir, "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.wait("document.querySelector('h1').parentNode.textContent.includes('succeeded')")
	eval[bool](b, "(document.activeElement.blur(), true)")
	// a hit at the end makes it follow again
	if !eval[bool](b, "document.querySelector('.logbar button[title=f]').ariaPressed === 'true'") {
		b.press("f")
	}
	b.wait("[...document.querySelectorAll('.log .ln')].some(l => l.textContent === 'the last line')")
	b.see(".log .ln.stderr")
	if eval[bool](b, "document.querySelector('.log').textContent.includes('\\x1b')") {
		t.Error("the log shows escape sequences")
	}
}

// TestSweepLog follows what all trials of a sweep print, each line with its trial, then those of
// some trials and streams alone, searches it, and goes back to the first line.
func TestSweepLog(t *testing.T) {
	c := newCluster(t)
	id := c.sweep(`echo "begin $1"; i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo "line $i of $1"; done; echo "needle $1"; echo "warning $1" >&2
		while [ ! -e `+c.dir+`/stop ]; do sleep 0.1; done; echo "end $1"`, "x=1,2,3")
	b := newBrowser(t)
	b.login(c.monitor())
	b.open("/sweeps/" + id + "/logs")
	has := func(text string, index int) string {
		return fmt.Sprintf(
			"[...document.querySelectorAll('.log .ln')].some(l => l.textContent.includes(%q) && l.querySelector('a.of').textContent === '%d')",
			text, index)
	}
	// what is seen alone is drawn
	b.wait(has("warning --x=1", 0) + "||" + has("warning --x=2", 1) + "||" + has("warning --x=3", 2))
	b.shot("logs")
	if err := os.WriteFile(filepath.Join(c.dir, "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		b.wait(has(fmt.Sprintf("end --x=%d", i+1), i))
	}
	c.settled(id)
	b.press("f")
	// whose output came first is chance
	first := "(" + has("begin --x=1", 0) + "||" + has("begin --x=2", 1) + "||" + has("begin --x=3", 2) + ")"
	// which loads what was before, several times
	b.wait("(document.querySelector('.log').scrollTop = 0, " + first + ")")
	b.fill("input[data-search]", "needle --x=2\r")
	b.wait("document.querySelector('.log .ln.current')?.textContent.endsWith('needle --x=2')")
	b.says("1 of 1 hits")
	eval[bool](b, "(document.activeElement.blur(), true)")
	b.wait("(document.querySelector('select[aria-label=Stream]').value = 'stderr', document.querySelector('select[aria-label=Stream]').dispatchEvent(new Event('change', {bubbles: true})), true)")
	b.wait(
		"document.querySelectorAll('.log .ln').length === 3 && document.querySelectorAll('.log .ln.stderr').length === 3")
	b.open("/sweeps/" + id + "/logs?p[x]=3&state=succeeded")
	b.wait(has("end --x=3", 2))
	if eval[bool](b, "[...document.querySelectorAll('.log a.of')].some(a => a.textContent !== '2')") {
		t.Error("lines of trials that are not selected are shown")
	}
	b.click("2") // a label leads to the trial
	b.wait("location.pathname === '/sweeps/" + id + "/trials/2'")
	b.click("Show the command")
	b.says("env \\\n  MLF_SWEEP=" + id)
	b.says("--x=3")
	audit(b, axeCore(t), "by hand")
	b.shot("by-hand")
	b.open("/sweeps/" + id + "/logs?p[x]=3&state=failed")
	b.says("None of the selected trials has printed anything that is still stored.")
}
