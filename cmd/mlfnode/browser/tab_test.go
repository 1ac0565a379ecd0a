package browser

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mlfnode/grid/gridtest"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	logs "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// tab is one tab of a browser. It collects what must never happen on any page.
type tab struct {
	t      testing.TB
	ctx    context.Context
	origin string

	mu     sync.Mutex
	fails  bool // answers may be failures now
	faults []string
}

// newBrowser starts a Chromium of its own with one tab.
func newBrowser(t testing.TB) *tab {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(gridtest.Program(t, "chromium")), chromedp.NoSandbox,
		chromedp.Flag("font-render-hinting",
			"none"), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(testTimeout))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	return newTab(t, ctx)
}

// another opens a tab of the same browser, which shares its session.
func (b *tab) another() *tab {
	b.t.Helper()
	return newTab(b.t, b.ctx)
}

// stranger opens a tab of the same browser that shares nothing with the others, as somebody else
// has it.
func (b *tab) stranger() *tab {
	b.t.Helper()
	return newTab(b.t, b.ctx, chromedp.WithNewBrowserContext())
}

func newTab(t testing.TB, parent context.Context, options ...chromedp.ContextOption) *tab {
	t.Helper()
	ctx, _ := chromedp.NewContext(parent, options...)
	b := &tab{t: t, ctx: ctx}
	err := chromedp.Listen(ctx, b.listen)
	if err == nil {
		_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	}
	if err == nil {
		err = chromedp.Do(ctx, chromedp.EmulateViewport(1280, 800))
	}
	if err != nil {
		t.Fatalf("start a browser: %v", err)
	}
	t.Cleanup(func() {
		b.check()
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("close a tab: %v", err)
		}
	})
	return b
}

// listen collects errors, violations of the policy and requests to others.
func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fault := func(format string, args ...any) {
		if len(b.faults) < 20 {
			b.faults = append(b.faults, fmt.Sprintf(format, args...))
		}
	}
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		fault("exception: %s %v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception)
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" || e.Type == "assert" {
			var text []string
			for _, a := range e.Args {
				text = append(text, string(a.Value)+a.Description)
			}
			fault("console %s: %s", e.Type, strings.Join(text, " "))
		}
	case *logs.EventEntryAdded:
		if e.Entry.Source == "network" && b.fails {
			return
		}
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			fault("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		u := e.Request.URL
		if b.origin != "" && !strings.HasPrefix(u, b.origin+"/") && !strings.HasPrefix(u, "blob:"+b.origin+"/") &&
			!strings.HasPrefix(u, "data:") && u != "about:blank" {
			fault("a request to another origin: %s", u)
		}
	}
}

// allowFailures says whether answers may be failures: while the node is away, or where something is
// refused.
func (b *tab) allowFailures(may bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fails = may
}

// check reports what has gone wrong so far.
func (b *tab) check() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		b.t.Errorf("the browser says: %s", f)
	}
	b.faults = nil
}

// open goes to a link or a path.
func (b *tab) open(target string) {
	b.t.Helper()
	switch u, err := url.Parse(target); {
	case err == nil && u.Host != "":
		b.origin = u.Scheme + "://" + u.Host
	case !strings.HasPrefix(target, "about:"):
		target = b.origin + target
	}
	if err := chromedp.Do(b.ctx, chromedp.Navigate(target)); err != nil {
		b.t.Fatalf("open %s: %v", target, err)
	}
}

// login opens a new link of m, and waits for the overview.
func (b *tab) login(m *monitor) {
	b.t.Helper()
	b.open(m.link())
	b.see(".figures")
	b.t.Cleanup(func() { // before the monitor ends, which cuts the stream
		b.check()
		b.allowFailures(true)
	})
}

// eval gives the value of a JavaScript expression.
func eval[T any](b *tab, js string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](js, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", js, err)
	}
	return v
}

// wait waits until an expression is true.
func (b *tab) wait(js string) {
	b.t.Helper()
	if !eventually(b.t.Context(), func() bool { return eval[bool](b, "!!("+js+")") }) {
		b.t.Fatalf("waited in vain for %s; the page says:\n%s", js, b.text())
	}
}

// text is what the page says.
func (b *tab) text() string { return eval[string](b, "document.body.innerText") }

// see waits for an element.
func (b *tab) see(selector string) {
	b.t.Helper()
	b.wait(fmt.Sprintf("document.querySelector(%q)", selector))
}

// says waits for a text on the page.
func (b *tab) says(text string) {
	b.t.Helper()
	b.wait(fmt.Sprintf("document.body.innerText.includes(%q)", text))
}

// click clicks the button or link that begins with a text.
func (b *tab) click(text string) {
	b.t.Helper()
	find := fmt.Sprintf(
		"[...document.querySelectorAll('dialog[open] button, dialog[open] a, button, a, summary')].find(e => e.textContent.trim().startsWith(%q) && !e.disabled)",
		text)
	b.wait(find)
	eval[bool](b, "("+find+".click(), true)")
}

// confirm confirms what a dialog asks, and waits until it is closed: while a dialog is open, no key
// works, and the page may show what was done before the dialog is closed.
func (b *tab) confirm() {
	b.t.Helper()
	b.see("dialog .primary")
	eval[bool](b, "(document.querySelector('dialog .primary').click(), true)")
	b.wait("!document.querySelector('dialog .primary')")
}

// fill types into the field that a selector finds.
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.see(selector)
	if err := chromedp.Do(b.ctx, chromedp.Focus(chromedp.CSS(selector), chromedp.NodeVisible)); err != nil {
		b.t.Fatalf("focus %s: %v", selector, err)
	}
	b.press(text)
}

// press presses keys, one after another. The text of a key goes with its keydown event, as that of
// a keyboard does: a page that handles the event does not get the text as well. chromedp.KeyEvent
// sends the text separately, to whatever has the focus by then.
func (b *tab) press(keys string) {
	b.t.Helper()
	for _, r := range keys {
		events := kb.Encode(r)
		down, up := *events[0], *events[len(events)-1]
		if len(events) == 3 {
			down.Text, down.UnmodifiedText = events[1].Text, events[1].UnmodifiedText
		}
		for _, e := range []input.DispatchKeyEventParams{down, up} {
			if _, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, e); err != nil {
				b.t.Fatalf("press %q: %v", r, err)
			}
		}
	}
}

// size sets the size of the window.
func (b *tab) size(width, height int64) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.EmulateViewport(width, height)); err != nil {
		b.t.Fatal(err)
	}
}

// media sets what the page is told about its user's wishes, as pairs of a name and a value.
func (b *tab) media(features ...string) {
	b.t.Helper()
	p := emulation.SetEmulatedMediaParams{}
	for i := 0; i < len(features); i += 2 {
		p.Features = append(p.Features, &emulation.MediaFeature{Name: features[i], Value: features[i+1]})
	}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, p); err != nil {
		b.t.Fatal(err)
	}
}

// shot keeps a picture of the page where a person asks for it with PAGE_SHOTS=FOLDER.
func (b *tab) shot(name string) {
	b.t.Helper()
	folder := os.Getenv("PAGE_SHOTS")
	if folder == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Errorf("picture %s: %v", name, err)
	}
}

// rest waits until the page has drawn what it knows.
func (b *tab) rest() {
	b.t.Helper()
	quiet := time.Now().Add(testTimeout)
	for last := ""; time.Now().Before(quiet); {
		now := eval[string](b, "new Promise(done => setTimeout(() => done(document.querySelector('.loading[role=status]') ? '' : String(document.querySelectorAll('*').length)), 200))")
		if now != "" && now == last {
			return
		}
		last = now
	}
}
