package browser

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLog follows output with colours and progress bars while it grows, searches it, and stops following at a wish.
func TestLog(t *testing.T) {
	c := newCluster(t)
	id := c.sweep(`printf '\033[31mred\033[0m plain\n'; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "line $i"; done; echo needle
		j=0; while [ ! -e `+c.dir+`/stop ]; do j=$((j+1)); printf '\rbar %d' $j; sleep 0.05; done; echo; echo the last line; echo to stderr >&2`, "x=1")
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
	if !eval[bool](b, "document.querySelector('.logbar button[title=f]').ariaPressed === 'true'") { // a hit at the end makes it follow again
		b.press("f")
	}
	b.wait("[...document.querySelectorAll('.log .ln')].some(l => l.textContent === 'the last line')")
	b.see(".log .ln.stderr")
	if eval[bool](b, "document.querySelector('.log').textContent.includes('\\x1b')") {
		t.Error("the log shows escape sequences")
	}
}
