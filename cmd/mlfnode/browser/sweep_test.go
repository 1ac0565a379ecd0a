package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/grid/gridtest"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// formula is a program whose accuracy depends on its parameters, with a curve, and which fails for
// some of them.
const formula = `import json, math, os, sys
p = dict(a[2:].split("=", 1) for a in sys.argv[1:] if a.startswith("--"))
lr, batch, seed = float(p["lr"]), int(p["batch"]), int(p["seed"])
if batch == 256 and p["opt"] == "adam":
    sys.exit("RuntimeError: CUDA out of memory. Tried to allocate 512.00 MiB")
good = 0.95 - 0.04 * (math.log10(lr) + 2) ** 2 - 0.01 * abs(math.log2(batch / 64)) + 0.002 * seed
with open(os.environ["MLF_METRICS"], "w") as f:
    for e in range(1, 6):
        f.write(json.dumps({"epoch": e, "accuracy": good * (1 - math.exp(-e))}) + "\n")
    f.write(json.dumps({"epoch": 6, "accuracy": good}) + "\n")
`

// instrument runs a sweep of 72 trials to its end, and opens it.
func instrument(t *testing.T) (*tab, string) {
	t.Helper()
	gridtest.Program(t, "python3")
	c := newCluster(t)
	dir := filepath.Join(c.dir, "formula")
	for name, text := range map[string]string{
		"main.py":        formula,
		"parameters.yml": "lr: [1e-4, 1e-3, 1e-2, 1e-1]\nbatch: [32, 64, 256]\nopt: [adam, sgd]\nseed: [1, 2, 3]\nverbose: false\n",
		"project.yaml": "name: formula\ndefault: train\ntasks:\n  train:\n    command: [python3, -I, -S, main.py]\n    parameters: parameters.yml\n" +
			"    retries: 0\n    resources: {cpus: 0.5, memory: 64MiB}\n    objective: {metric: accuracy, goal: maximize}\n",
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	id := strings.TrimSpace(c.mlfnode("sweep", "--detach", dir))
	c.settled(id)
	b := newBrowser(t)
	b.login(c.monitor())
	b.open("/sweeps/" + id)
	b.drawn()
	return b, id
}

// drawn waits until every chart shows the newest answer.
func (b *tab) drawn() {
	b.t.Helper()
	b.wait("document.querySelector('.chart') && !document.querySelector('.chart[aria-busy=true], .chart.stale')")
}

// drag moves the mouse from a place to another one with its button down; both are shares of an
// element's width and height.
func (b *tab) drag(selector string, x0, y0, x1, y1 float64) {
	b.t.Helper()
	eval[bool](b, "(document.querySelector('"+selector+"').scrollIntoView({block: 'center'}), true)")
	r := eval[struct{ X, Y, Width, Height float64 }](b,
		"(r => ({X: r.x, Y: r.y, Width: r.width, Height: r.height}))(document.querySelector('"+selector+
			"').getBoundingClientRect())")
	send := func(kind string, x, y float64, down int64) {
		_, err := chromedp.Call(b.ctx, input.DispatchMouseEvent, input.DispatchMouseEventParams{
			Type: input.DispatchMouseEventType(kind), X: r.X + x*r.Width, Y: r.Y +
				y*r.Height, Button: "left", Buttons: down, ClickCount: 1})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	send("mouseMoved", x0, y0, 0)
	send("mousePressed", x0, y0, 1)
	for i := 1.0; i <= 4; i++ {
		send("mouseMoved", x0+(x1-x0)*i/4, y0+(y1-y0)*i/4, 1)
	}
	send("mouseReleased", x1, y1, 0)
}

// TestBrush selects on an axis of the parallel plot: every panel, the rail and the table follow,
// and the URL brings all of it back.
func TestBrush(t *testing.T) {
	b, _ := instrument(t)
	const panels = `JSON.stringify({sentences: [...document.querySelectorAll('.chart figcaption')].map(e => e.textContent), matched: document.querySelector('.matched').textContent,
		rail: [...document.querySelectorAll('.rail .axis')].map(e => e.className), trials: document.querySelector('.trials .aside span').textContent})`
	type state struct {
		Sentences       []string
		Matched, Trials string
		Rail            []string
	}
	read := func() (s state) {
		t.Helper()
		if err := json.Unmarshal([]byte(eval[string](b, panels)), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := read()
	if len(before.Sentences) != 3 || !strings.Contains(before.Matched, "72") {
		t.Fatalf("before: got %+v", before)
	}
	left := eval[float64](b, "(c => 16 / c.clientWidth)(document.querySelector('.parallel .layers'))")
	b.drag(".parallel .layers", left, 0.45, left, 0.65) // the two values in the middle of the first axis
	b.wait("location.search.includes('d%5Blr%5D=1..2')")
	b.wait("document.querySelector('.matched').textContent.startsWith('36 of 72')")
	b.drawn()
	after := read()
	for i, s := range after.Sentences {
		if s == before.Sentences[i] {
			t.Errorf("chart %d still says %q", i, s)
		}
	}
	if !strings.Contains(after.Trials, "36 match") || !strings.Contains(strings.Join(after.Rail, ","), "filtered") {
		t.Errorf("the table says %q, and axes are %q", after.Trials, after.Rail)
	}
	b.wait("[...document.querySelectorAll('.trials .row')].length > 5 && [...document.querySelectorAll('.trials .row')].every(e => /0\\.001|0\\.01|1e-/.test(e.textContent))")
	place := eval[string](b, "location.pathname + location.search")
	b.open("about:blank")
	b.open(place)
	b.drawn()
	b.wait("document.querySelector('.matched').textContent.startsWith('36 of 72')")
	if again := read(); strings.Join(again.Sentences, "|") != strings.Join(after.Sentences, "|") {
		t.Errorf("the place brings back %q, want %q", again.Sentences, after.Sentences)
	}
	b.press("\x1b") // Escape takes the filter away
	b.wait("location.search === '' && document.querySelector('.matched').textContent.includes('72')")
	b.check()
}

// TestViewsOfSweep opens each view of a sweep with a filter, groups and pins, wide and narrow,
// light and dark. Nothing is wider than the window, and axe-core finds nothing.
func TestViewsOfSweep(t *testing.T) {
	b, id := instrument(t)
	axe := axeCore(t)
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 400} {
			b.media("prefers-color-scheme", theme)
			b.size(width, 900)
			for _, view := range []string{"explore", "heat", "slices", "curves", "failures", "timeline",
				"logs", "coverage"} {
				b.open("/sweeps/" + id + "/" + view + "?d[lr]=1..3&over=seed&pins=31,32")
				if view == "logs" {
					b.see(".log .ln")
				} else {
					b.drawn()
					b.wait("[...document.querySelectorAll('.chart')].every(e => e.querySelector('figcaption, .empty, li'))")
				}
				name := fmt.Sprintf("%s %d %s", theme, width, view)
				if wide := eval[int64](b, "document.documentElement.scrollWidth"); wide > width {
					t.Errorf("%s: the page is %d px wide", name, wide)
				}
				b.shot("sweep-" + strings.ReplaceAll(name, " ", "-"))
				audit(b, axe, name)
				b.check()
			}
		}
	}
}

// TestChartAsTable shows the numbers of each chart, and says the same to those who see no picture.
func TestChartAsTable(t *testing.T) {
	b, _ := instrument(t)
	if missing := eval[[]string](b,
		"[...document.querySelectorAll('.layers canvas[role=img]')].filter(c => !(c.getAttribute('aria-label') ?? '').trim()).map(c => c.outerHTML)"); len(missing) > 0 {
		t.Errorf("charts without a sentence: %q", missing)
	}
	eval[bool](b, "([...document.querySelectorAll('.chart button')].filter(e => e.textContent === 'Table').forEach(e => e.click()), true)")
	b.wait("document.querySelectorAll('.chart .numbers table tbody tr').length > 60")
	b.click("Failures")
	b.says("a GPU ran out of memory")
	b.says("batch=256")
	b.click("Show only these")
	b.wait("location.search.includes('cause=')")
	b.says("of 72 match")
	b.check()
}

// TestSweepsWithoutValues says why there is nothing to draw, and what to do: no metrics, failures
// alone, a filter that matches nothing.
func TestSweepsWithoutValues(t *testing.T) {
	c := newCluster(t)
	plain := c.sweep("echo hello", "x=1,2,3", "y=1,2")
	broken := c.sweep("echo 'ValueError: no data' >&2; exit 1", "x=1,2,3")
	c.settled(plain)
	c.settled(broken)
	b := newBrowser(t)
	b.login(c.monitor())
	b.open("/sweeps/" + plain)
	b.says("The trials have reported no metrics.")
	b.says("MLF_METRICS")
	b.open("/sweeps/" + broken)
	b.see(".failures")
	b.says("ValueError: no data")
	b.open("/sweeps/" + plain + "/coverage?state=failed&d[x]=0..1")
	b.says("No trial matches all of the filter.")
	b.click("take it away")
	b.wait("!document.body.innerText.includes('No trial matches all of the filter.') || document.querySelectorAll('.chip').length === 1")
}
