package browser

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// TestEmptyStates opens what has nothing to show: each says why, and what to do.
func TestEmptyStates(t *testing.T) {
	c := newCluster(t)
	waiting := c.sweep("sleep 600", "x=1:9", "y=1,2")
	equal := c.sweep(`echo '{"loss": 0.5}' >>$MLF_METRICS`, "x=1,2,3")
	diverged := c.sweep(`echo '{"loss": "NaN"}' >>$MLF_METRICS`, "x=1,2,3", "y=1,2")
	b := newBrowser(t)
	b.login(c.monitor())
	c.mlfnode("cancel", waiting) // its place is for the others
	c.settled(equal)
	c.settled(diverged)
	waiting = c.sweep("sleep 600", "x=1:9", "y=1,2")
	b.allowFailures(true) // some of these places are not there
	for _, s := range []struct {
		path string
		says []string
	}{
		{"/sweeps/none-1", []string{`there is no sweep "none-1"`, "mlfnode sweeps"}},
		{"/sweeps/" + equal + "/trials/99", []string{"has no trial 99", "mlfnode trials"}},
		{"/nodes/none", []string{"There is no node none", "It may have left the cluster.", "All nodes"}},
		{"/nodes?find=nothing+like+it", []string{"No node matches", "Take it away to see all"}},
		{"/sweeps?find=nothing+like+it", []string{"No sweep matches", "Show all"}},
		{"/sweeps/" + equal + "/compare", []string{"Choose two to five trials", "Add them by their numbers here"}},
		{"/sweeps/" + waiting, []string{"No trial has ended yet; 4 running.", "Charts appear with the first result."}},
		{"/sweeps/" + waiting + "/failures", []string{"No trial has ended yet."}},
		{"/sweeps/" + waiting + "/logs",
			[]string{"No trial has printed anything yet.", "Lines appear here as they are printed."}},
		{"/sweeps/" + waiting + "/trials/0",
			[]string{"Nothing has been printed yet.", "A program reports them as JSON lines in the file $MLF_METRICS"}},
		{"/sweeps/" + waiting + "/trials/15", []string{"pending"}},
		{"/sweeps/" + equal, []string{"loss of 3 trials: the middle half from 0.5 to 0.5"}},
		{"/sweeps/" + diverged,
			[]string{"No trial has a finite value of this: it is NaN, infinite, or was not reported.",
				"Choose another value above"}},
		{"/sweeps/" + equal + "/heat",
			[]string{"x is the only parameter with more than one value: there is no pair to combine."}},
		{"/sweeps/" + equal + "?state=failed", []string{"No trial matches"}},
		{"/sweeps/" + equal + "/timeline?state=failed", []string{"Nothing matches the filter."}},
	} {
		b.open(s.path)
		for _, text := range s.says {
			b.says(text)
		}
	}
}

// answers has the API answer with a problem where the path ends so; without one it answers as it
// does.
func (b *tab) answers(path string, status int, problem string) {
	b.t.Helper()
	script := fmt.Sprintf(`(() => {
		const real = window.fetch;
		window.broken = true;
		window.fetch = (what, options) => (window.broken && new URL(what, location.href).pathname.endsWith(%q)
			? Promise.resolve(new Response(%q, {status: %d, headers: {'Content-Type': 'application/problem+json', 'Retry-After': '600'}})) : real(what, options));
	})()`, path, problem, status)
	b.before(script)
}

// before has a script run before those of each page that is opened.
func (b *tab) before(script string) {
	b.t.Helper()
	added, err := chromedp.Call(b.ctx, page.AddScriptToEvaluateOnNewDocument,
		page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_, _ = chromedp.Call(b.ctx, page.RemoveScriptToEvaluateOnNewDocument,
			page.RemoveScriptToEvaluateOnNewDocumentParams{Identifier: added.Identifier})
	})
}

// TestFailedStates has calls of the API refused: the page says why and what to do, in the node's
// words, keeps the rest, and goes on when it is asked to try again.
func TestFailedStates(t *testing.T) {
	c := newCluster(t)
	id := c.sweep("echo hello", "x=1,2,3")
	c.settled(id)
	m := c.monitor()
	for _, s := range []struct {
		path, call  string
		status      int
		says, comes string
	}{
		{"/", "/api/v1/sweeps", 503, "Sweeps", id},
		{"/", "/api/v1/rate", 500, "Trials per minute", "3 trials ended"},
		{"/nodes", "/api/v1/nodes/gpu-1/samples", 503, "Load of nodes and GPUs", "CPU"},
		{"/sweeps", "/api/v1/sweeps", 421, "Sweeps", id},
		{"/sweeps/" + id, "/api/v1/sweeps/" + id, 503, "", "succeeded"},
		{"/sweeps/" + id, "/charts/marginals", 500, "succeeded", "Explore"},
		{"/sweeps/" + id, "/trials", 503, "Trials", "gpu-1"},
		{"/sweeps/" + id + "/logs", "/api/v1/sweeps/" + id + "/log", 403, "Logs", ""},
		{"/sweeps/" + id + "/trials/1", "/trials/1/log", 404, "Log", ""},
		{"/settings", "/api/v1/node", 503, "Node that answers", "keeps"},
	} {
		b := newBrowser(t)
		b.allowFailures(true)
		b.login(m)
		b.answers(s.call, s.status,
			`{"title": "refused", "detail": "the reason of the test", "hint": "what to do about it"}`)
		b.open(s.path)
		b.says("the reason of the test")
		b.says("what to do about it")
		text := b.text()
		if !strings.Contains(text, s.says) {
			t.Errorf("%s without %s does not say %q:\n%s", s.path, s.call, s.says, text)
		}
		if s.status == 403 && !strings.Contains(text, "Not allowed: ") {
			t.Errorf("%s: the page does not say that it is not allowed", s.path)
		}
		if s.comes == "" {
			continue
		}
		eval[bool](b, "(window.broken = false, true)")
		b.click("Try again")
		b.says(s.comes)
		b.wait("!document.body.innerText.includes('the reason of the test')")
	}
}

// TestPartOfALargeSweep has charts answer as for a sweep of more trials than they look at: each
// says of how many it is.
func TestPartOfALargeSweep(t *testing.T) {
	c := newCluster(t)
	id := c.sweep(`echo "{\"loss\": 0.1$(date +%N)}" >>$MLF_METRICS`, "x=1,2,3", "y=1,2")
	c.settled(id)
	b := newBrowser(t)
	b.login(c.monitor())
	b.before(`(() => {
		const real = window.fetch;
		window.fetch = async (what, options) => {
			const r = await real(what, options);
			if (!r.ok || !new URL(what, location.href).pathname.includes('/charts/')) return r;
			return new Response(JSON.stringify({...await r.json(), stride: 3, known: 2097152}), {headers: r.headers});
		};
	})()`)
	for _, path := range []string{"", "/heat", "/timeline"} {
		b.open("/sweeps/" + id + path)
		b.wait(`/Computed from 2.097.152 trials: one block in 3\./.test(document.body.innerText)`)
	}
}

// TestWithoutJavaScript opens the page in a browser that runs no scripts: it says what does the
// same.
func TestWithoutJavaScript(t *testing.T) {
	c := newCluster(t)
	b := newBrowser(t)
	m := c.monitor()
	b.login(m)
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	b.open("/sweeps")
	for _, text := range []string{"This page needs JavaScript.", "mlfnode top", "mlfnode results SWEEP --csv"} {
		b.says(text)
	}
	if links := eval[int](b, "document.querySelectorAll('.noscript a').length"); links > 0 {
		t.Errorf("%d links, which need the key of a session that only a script has", links)
	}
}
