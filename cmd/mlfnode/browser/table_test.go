package browser

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// TestMillionRows goes through the table of a sweep of a million trials, of which only what is seen
// is asked for and drawn.
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
		b.wait("[..." + grid +
			".querySelectorAll('[role=gridcell]')].some(c => c.textContent.replaceAll(',', '') === '" + index + "')")
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
	if n := eval[int](b,
		"performance.getEntriesByType('resource').filter(r => /trials\\?.*offset/.test(r.name)).length"); n > 40 {
		t.Errorf("the page has asked %d times for rows", n)
	}
}

// TestTableWaitsForItsReader has trials end while somebody reads a sorted table: no row moves, the
// new results are announced, and a click shows them.
func TestTableWaitsForItsReader(t *testing.T) {
	c := newCluster(t)
	id := c.sweep("while [ ! -e "+c.dir+"/end-${1#--x=} ]; do sleep 0.1; done", "x=1:9")
	end := func(trials ...int) {
		t.Helper()
		for _, x := range trials {
			if err := os.WriteFile(filepath.Join(c.dir, fmt.Sprintf("end-%d", x)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	end(1, 2)
	b := newBrowser(t)
	b.login(c.monitor())
	b.open("/sweeps/" + id + "?sort=wall&desc=")
	const order = "[...document.querySelectorAll('.trials .row')].map(r => r.querySelector('[role=gridcell]:nth-child(2)').textContent + r.querySelector('.state')?.textContent.slice(1)).join()"
	b.wait(order + ".includes('0 succeeded') && " + order + ".includes('1 succeeded')")
	b.rest()
	eval[bool](b, "(document.querySelector('.trials .table').focus(), true)")
	before := eval[string](b, order)
	end(3, 4)
	b.wait("document.querySelector('.trials .fresh')?.textContent === '2 new'")
	if after := eval[string](b, order); after != before {
		t.Errorf("rows move under a reader: got %s, want %s", after, before)
	}
	b.shot("new-results")
	b.click("2 new")
	b.wait(order + ".includes('2 succeeded') && " + order +
		".includes('3 succeeded') && !document.querySelector('.trials .fresh')")
	end(5)
	b.wait("document.querySelector('.trials .fresh')?.textContent === '1 new'")
	b.press("R")
	b.wait(order + ".includes('4 succeeded') && !document.querySelector('.trials .fresh')")
	eval[bool](b, "(document.activeElement.blur(), true)")
	end(6)
	b.wait(order + ".includes('5 succeeded') && !document.querySelector('.trials .fresh')") // nobody reads
}
