package browser

import (
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// TestMillionRows goes through the table of a sweep of a million trials, of which only what is seen is asked for and drawn.
func TestMillionRows(t *testing.T) {
	c := newCluster(t)
	id := c.sweep("sleep 300", "x=1:1001", "y=1:1001")
	b := newBrowser(t)
	b.login(c.monitor())
	b.open("/sweeps/" + id)
	grid := "[...document.querySelectorAll('[role=grid]')].find(g => g.getAttribute('aria-rowcount') === '1000001')"
	b.wait(grid)
	eval[bool](b, "("+grid+".focus(), true)")
	shows := func(index string) {
		t.Helper()
		b.wait("[..." + grid + ".querySelectorAll('[role=gridcell]')].some(c => c.textContent.replaceAll(',', '') === '" + index + "')")
	}
	b.press(kb.End)
	shows("999999")
	b.press(kb.PageUp)
	b.press(kb.ArrowUp)
	shows("999990")
	b.press(kb.Home)
	shows("0")
	eval[bool](b, "("+grid+".scrollTop = "+grid+".scrollHeight / 2, true)")
	b.wait("[..." + grid + ".querySelectorAll('[role=row]')].some(r => +r.getAttribute('aria-rowindex') > 450000)")
	eval[bool](b, "("+grid+".dispatchEvent(new WheelEvent('wheel', {deltaY: 260, cancelable: true})), true)")
	b.press("\r")
	b.wait("location.pathname.startsWith('/sweeps/" + id + "/trials/')")
	if n := eval[int](b, "performance.getEntriesByType('resource').filter(r => /trials\\?.*offset/.test(r.name)).length"); n > 40 {
		t.Errorf("the page has asked %d times for rows", n)
	}
}
