package browser

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// pages are the places of the page, with what each shows.
func pages(sweep string) [][2]string {
	return [][2]string{
		{"/", ".sweeprow"}, {"/sweeps", "table.plain tbody tr"}, {"/sweeps/" + sweep, "main"},
		{"/sweeps/" + sweep + "/trials/0", ".log .ln"},
		{"/sweeps/" + sweep + "/trials/1", ".notice.failed"}, {"/sweeps/" + sweep + "/compare?pins=0,1", "table.plain"},
		{"/nodes", "table.plain tbody tr"}, {"/nodes/gpu-1", ".figures"},
		{"/settings", ".form"}, {"/nowhere", ""},
	}
}

// TestPages opens every page, wide and narrow, light and dark, while a sweep runs. Nothing is wider
// than the window, and axe-core finds nothing.
func TestPages(t *testing.T) {
	c := newCluster(t)
	ended := c.sweep(training, "lr=0.01,0.1", "steps=2")
	c.settled(ended)
	running := c.sweep(training, "lr=0.01", "steps=600", "seed=1,2,3,4,5,6,7,8")
	b := newBrowser(t)
	b.login(c.monitor())
	axe := axeCore(t)
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 400} {
			b.media("prefers-color-scheme", theme, "prefers-reduced-motion", "reduce")
			b.size(width, 800)
			for _, p := range append(pages(ended), [2]string{"/sweeps/" + running, "main"},
				[2]string{"/sweeps/" + running + "/trials/0", ".log"}) {
				name := fmt.Sprintf("%s %d %s", theme, width, p[0])
				if p[1] == "" {
					continue // it is not a place of the page
				}
				b.fits(p, width, name)
				if dark := eval[bool](b,
					"getComputedStyle(document.body).backgroundColor === 'rgb(15, 19, 23)'"); dark != (theme == "dark") {
					t.Errorf("%s: dark is %v", name, dark)
				}
				b.shot(strings.NewReplacer("/", "_", " ", "-", "?", "_").Replace(name))
				audit(b, axe, name)
				b.check()
			}
		}
	}
	b.media("forced-colors", "active")
	b.open("/")
	b.see(".sweeprow")
	audit(b, axe, "forced colours")
}

// TestZoom opens every page at 200 %, as a window of half the size with pixels twice as large:
// nothing is wider than the window, what is shown is there, and axe-core finds nothing.
func TestZoom(t *testing.T) {
	c := newCluster(t)
	id := c.sweep(training, "lr=0.01,0.1", "steps=2")
	c.settled(id)
	b := newBrowser(t)
	b.login(c.monitor())
	if err := chromedp.Do(b.ctx, chromedp.EmulateViewport(640, 400, chromedp.EmulateScale(2))); err != nil {
		t.Fatal(err)
	}
	axe := axeCore(t)
	for _, p := range append(pages(id), [2]string{"/sweeps/" + id + "/logs", ".log .ln"}) {
		if p[1] == "" {
			continue // it is not a place of the page
		}
		b.fits(p, 640, p[0])
		b.shot("zoom" + strings.NewReplacer("/", "_", "?", "_").Replace(p[0]))
		audit(b, axe, "200 % "+p[0])
		b.check()
	}
}

// fits opens a page, waits until it shows what it is about, and sees that it is no wider than the
// window.
func (b *tab) fits(page [2]string, width int64, name string) {
	b.t.Helper()
	b.open(page[0])
	b.see(page[1])
	b.see(".line.live")
	b.rest()
	if wide := eval[int64](b, "document.documentElement.scrollWidth"); wide > width {
		b.t.Errorf("%s: the page is %d px wide", name, wide)
	}
}

// axeCore gives the source of axe-core, which .ci/install fetches where there is npm; empty without
// it.
func axeCore(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	if err == nil {
		return string(source)
	}
	if _, missing := exec.LookPath("npm"); missing == nil && os.Getenv("CI") == "true" {
		t.Fatalf("axe-core is not installed although there is npm: %v", err)
	}
	t.Log("axe-core is left out: it comes with npm, by sh .ci/install")
	return ""
}

// audit has axe-core look at the page. It is put into a world of its own script, which the page's
// policy does not concern.
func audit(b *tab, axe, name string) {
	b.t.Helper()
	if axe == "" {
		return
	}
	if !eval[bool](b, "!!window.axe") {
		eval[bool](b, axe+"\n;true")
	}
	found := eval[[]string](b, `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], resultTypes: ["violations"]}).then(r =>
		r.violations.map(v => v.id + ": " + v.help + " at " + v.nodes.slice(0, 3).map(n => n.target + " " + n.html.slice(0, 160) + " " + (n.any[0]?.message ?? "")).join(" | ")))`)
	for _, f := range found {
		b.t.Errorf("%s: %s", name, f)
	}
}
