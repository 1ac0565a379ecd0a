package browser

import (
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// TestMasterRestarts kills the master under an open page: the page says since when it shows old
// values, and goes on by itself.
func TestMasterRestarts(t *testing.T) {
	c := newCluster(t)
	id := c.sweep("sleep 2", "x=1:41")
	b := newBrowser(t)
	b.login(c.monitor())
	b.says(id)
	b.see(".line.live")
	eval[bool](b, "window.kept = true")
	b.allowFailures(true)
	c.kill()
	b.see(".line.lost")
	b.says("Not reached since")
	b.says(id) // what was known is still shown
	c.start()
	b.see(".line.live")
	b.wait("!document.querySelector('.banner')")
	b.allowFailures(false)
	next := c.sweep("true", "x=1")
	b.says(next)
	if !eval[bool](b, "window.kept === true") {
		t.Error("the page has been loaded again")
	}
}

// TestMasterOfAnotherVersion starts the master again as another version under an open page: the
// page says so. It reloads by itself when nobody sees it, unless that would lose what somebody has
// typed or a dialog.
func TestMasterOfAnotherVersion(t *testing.T) {
	newer := build(t, "-ldflags", "-X main.release=9.9.9")
	c := newCluster(t)
	b := newBrowser(t)
	b.login(c.monitor())
	b.see(".line.live")
	b.wait("performance.getEntriesByType('resource').some(r => r.name.endsWith('/api/v1/node') && r.responseEnd > 0)")
	eval[bool](b, "window.kept = true")
	b.allowFailures(true)
	c.kill()
	b.see(".line.lost")
	c.program = newer
	c.start()
	b.says("The node now runs mlfnode 9.9.9; this page came with")
	b.shot("another-version")
	b.see(".line.live")
	b.allowFailures(false)
	hide := func() {
		eval[bool](b, `(setTimeout(() => {
			Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});
			document.dispatchEvent(new Event('visibilitychange'));
			delete document.hidden;
			document.dispatchEvent(new Event('visibilitychange'));
		}), true)`)
	}
	b.press(":")
	b.see("dialog[open]")
	hide()
	b.rest()
	b.press(kb.Escape)
	b.wait("!document.querySelector('dialog[open]')")
	typed := "document.body.append(Object.assign(document.createElement('input'), {id: 'note', value: 'half a sentence'}))"
	eval[bool](b, "("+typed+", true)")
	hide()
	b.rest()
	if !eval[bool](b, "window.kept === true && document.querySelector('.banner') !== null") {
		t.Error("the page has been loaded again over a dialog, or over what somebody had typed")
	}
	eval[bool](b, "(document.getElementById('note').remove(), true)")
	b.see(".line.live")
	hide()
	b.wait("!window.kept && document.querySelector('.line.live') && !document.querySelector('.banner')")
}
