package browser

import (
	"strings"
	"testing"
)

// TestSession goes through a session: a link is good once, logging out ends it under the page that
// was shown, another link goes on there.
func TestSession(t *testing.T) {
	c := newCluster(t)
	m := c.monitor()
	b := newBrowser(t)
	link := m.link()
	origin, _, _ := strings.Cut(link, "/#")
	b.allowFailures(true)
	b.open(origin + "/nodes")
	b.says("This browser is not logged in")
	b.open(link)
	b.see(".figures")
	if eval[bool](b, "location.href.includes('k=')") {
		t.Error("the secret of the link stays in the address")
	}
	if eval[string](b, "document.cookie") != "" {
		t.Error("scripts can read the cookie")
	}
	other := newBrowser(t)
	other.allowFailures(true)
	other.open(link)
	other.says("the link has been used")
	other.says("press Enter where mlfnode monitor runs")
	if strings.Contains(other.text(), "gpu-1") {
		t.Error("a page without a session shows a node")
	}
	b.open("/nodes")
	b.says("gpu-1")
	second := b.another()
	second.allowFailures(true)
	second.open(origin + "/settings")
	second.says("This session may act")
	b.click("Log out")
	b.see(".overlay")
	b.says("gpu-1") // the page is kept under it
	b.fill(".overlay input", m.link()+"\r")
	b.wait("!document.querySelector('.overlay')")
	b.see(".line.live")
	b.says("gpu-1")
	if got := m.get(origin + "/api/v1/sweeps"); got != 401 {
		t.Errorf("the API without a session: got %d, want 401", got)
	}
}

// TestLateRefusal logs out, and in again before the refusal of an earlier request arrives: it ends
// the session before, not the new one.
func TestLateRefusal(t *testing.T) {
	c := newCluster(t)
	m := c.monitor()
	b := newBrowser(t)
	b.allowFailures(true)
	b.login(m)
	b.see(".figures")
	b.click("Log out")
	b.see(".overlay")
	eval[bool](b, `(async () => {
		const api = await import(new URL('api.js', document.querySelector('script[type=module]').src));
		const late = new Promise(resolve => { window.answer = resolve; }), ask = window.fetch;
		window.fetch = async (...request) => {
			const answer = await ask(...request);
			if (answer.status === 401) await late;
			return answer;
		};
		api.get('/sweeps').then(() => { window.refused = 200; }, refusal => { window.refused = refusal.status; });
		return true;
	})()`)
	b.fill(".overlay input", m.link()+"\r")
	b.wait("!document.querySelector('.overlay')")
	eval[bool](b, "window.answer() === undefined")
	b.wait("window.refused === 401")
	b.rest()
	if eval[bool](b, "!!document.querySelector('.overlay')") {
		t.Error("the new session is over for the page")
	}
	b.see(".line.live")
}

// TestViewer is refused what changes something, and the page does not offer it.
func TestViewer(t *testing.T) {
	c := newCluster(t)
	id := c.sweep("exit 1", "x=1,2")
	c.settled(id)
	b := newBrowser(t)
	b.login(c.monitor("--role", "viewer"))
	for _, path := range []string{"/sweeps/" + id, "/sweeps/" + id + "/trials/0", "/nodes/gpu-1"} {
		b.open(path)
		b.see("h1")
		b.rest()
		if found := eval[[]string](b,
			"[...document.querySelectorAll('main button')].map(b => b.textContent).filter(t => /^(Retry|Extend|Pause|Cancel|Drain)/.test(t))"); len(found) > 0 {
			t.Errorf("%s offers %v to a viewer", path, found)
		}
	}
	b.open("/sweeps/" + id + "/trials/0")
	b.says("a viewer does not see it")
	b.allowFailures(true)
	if got := eval[int](b, "fetch('/api/v1/sweeps/"+id+
		"/actions/retry', {method: 'POST', body: '{}', headers: {'Mlf-Session': localStorage.getItem('mlf-session')}}).then(r => r.status)"); got != 403 {
		t.Errorf("a viewer retries: got %d, want 403", got)
	}
}

// TestTabsShareOneStream opens three tabs: one of them holds the stream, the others are told, and
// one takes over when it is closed.
func TestTabsShareOneStream(t *testing.T) {
	c := newCluster(t)
	m := c.monitor()
	first := newBrowser(t)
	first.login(m)
	first.see(".line.live")
	count := "performance.getEntriesByType('resource').filter(r => r.name.includes('/api/v1/events')).length"
	others := []*tab{first.another(), first.another()}
	for _, b := range others {
		b.open(first.origin + "/")
		b.see(".line.live")
		b.see(".figures")
		b.says("1/1")
	}
	id := c.sweep("sleep 1", "x=1,2,3")
	for _, b := range append(others, first) {
		b.says(id)
	}
	for _, b := range others {
		if n := eval[int](b, count); n > 0 {
			t.Errorf("a tab that does not lead has asked for events %d times", n)
		}
	}
	first.open("about:blank")
	next := c.sweep("true", "x=1")
	for _, b := range others {
		b.says(next)
		b.see(".line.live")
	}
}
