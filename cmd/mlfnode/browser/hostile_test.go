package browser

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// payloads are texts that would do something if anything read them as markup, script, address,
// template or escape sequence.
var payloads = []string{
	`<script>window.hit=1</script>`, `<img src=x onerror=window.hit=1>`, `"><svg onload=window.hit=1>`,
	`'><iframe srcdoc="<script>parent.hit=1</script>">`,
	`<svg><script>window.hit=1</script></svg>`, `<body onload=window.hit=1>`, `<a href="javascript:window.hit=1">x</a>`,
	`javascript:window.hit=1`,
	`<math><mi xlink:href="data:x,<script>window.hit=1</script>">`,
	`<style>*{background:url(//evil.example/x)}</style>`, `<link rel=stylesheet href=//evil.example/x>`,
	`<base href=//evil.example/>`, `<meta http-equiv=refresh content="0;url=//evil.example">`,
	`<form action=//evil.example><input name=q>`, `<object data=//evil.example/x>`,
	`<embed src=//evil.example/x>`, `<video src=x onerror=window.hit=1>`, `<details open ontoggle=window.hit=1>`,
	`<input autofocus onfocus=window.hit=1>`, `<marquee onstart=window.hit=1>`,
	`${window.hit=1}`, `{{window.hit=1}}`, `<%= window.hit=1 %>`, `#{window.hit=1}`, "`${window.hit=1}`",
	`';window.hit=1;//`, `";window.hit=1;//`, `\";window.hit=1;//`,
	`</title><script>window.hit=1</script>`, `</textarea><script>window.hit=1</script>`,
	`<!--<script>window.hit=1</script>-->`, `<![CDATA[<script>window.hit=1</script>]]>`,
	`&lt;script&gt;window.hit=1&lt;/script&gt;`, `\u003cscript\u003ewindow.hit=1\u003c/script\u003e`,
	`%3Cscript%3Ewindow.hit=1%3C/script%3E`, `+ADw-script+AD4-window.hit=1`,
	"\x1b]8;;javascript:window.hit=1\x07link\x1b]8;;\x07", "\x1b]0;title\x07",
	"\x1b[2J\x1b[H", "\x1b[38;2;1;2;3mrgb\x1b[0m",
	"\x1b[999999999C", "\x1b[;;;;;;;;m", "\x1b", "\u202egnp.exe", "a\u0000b",
	"../../../etc/passwd", "__proto__", "constructor", `[object Object]`, `null`, strings.Repeat("W", 3000),
}

// TestHostileTexts shows texts that want to be more as parameters, names, reasons and output. They
// are shown as they are, and do nothing.
func TestHostileTexts(t *testing.T) {
	c := newCluster(t)
	values := slices.DeleteFunc(slices.Clone(payloads), func(p string) bool { return strings.Contains(p, "\x00") })
	parameters, err := json.Marshal(map[string]any{"text": values}) // which is YAML, too
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, "hostile.yml"), parameters, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var print strings.Builder
	for _, p := range payloads {
		fmt.Fprintf(&print, "echo %s | base64 -d; echo; echo %[1]s | base64 -d >&2; echo >&2\n",
			base64.StdEncoding.EncodeToString([]byte(p)))
	}
	id := strings.TrimSpace(c.mlfnode("sweep", "--detach", "--parameters", filepath.Join(c.dir, "hostile.yml"), "--",
		"sh", "-c", print.String()+"exit 7", "run"))
	if s := c.settled(id); s.Failed != int64(len(values)) {
		t.Fatalf("%d trials of %d failed", s.Failed, len(values))
	}
	b := newBrowser(t)
	b.login(c.monitor())
	elements := "document.querySelectorAll('main script, main img, main svg:not([class]), main iframe, main object, main embed, main link, main base, main meta, main form[action], main [onload], main [onerror], main [onfocus], main video, main marquee, main style').length"
	clean := func(where string) {
		t.Helper()
		b.rest()
		if n := eval[int](b, elements); n > 0 {
			t.Errorf("%s: %d elements were made of texts", where, n)
		}
		if eval[bool](b, "window.hit === 1 || Object.prototype.hit === 1") {
			t.Fatalf("%s: a text was run", where)
		}
		if got := eval[string](b, "location.origin"); got != b.origin {
			t.Fatalf("%s: the page has gone to %s", where, got)
		}
		b.check()
	}
	b.says(id)
	clean("overview")
	for _, path := range []string{"/sweeps", "/sweeps/" + id, "/sweeps/" + id + "/compare?pins=0,1,2,3,4"} {
		b.open(path)
		b.see("h1")
		clean(path)
	}
	for i := 0; i < len(values); i += 7 {
		b.open(fmt.Sprintf("/sweeps/%s/trials/%d", id, i))
		b.see(".log .ln.stderr")
		clean(values[i])
		if want := values[i]; !strings.Contains(want, "\x1b") &&
			!eval[bool](b,
				fmt.Sprintf("[...document.querySelectorAll('table.values td')].some(e => e.textContent === %q)",
					want)) {
			t.Errorf("parameter %q is not shown as it is", want)
		}
	}
	eval[bool](b, "(document.querySelector('.log:not(.last)').scrollTop = 0, true)")
	b.wait(fmt.Sprintf("[...document.querySelectorAll('.log .ln')].some(e => e.textContent === %q)", payloads[1]))
	for _, path := range []string{"/sweeps/%3Cscript%3Ewindow.hit=1%3C%2Fscript%3E",
		"/nodes/%22%3E%3Cimg%20src=x%20onerror=window.hit=1%3E", "/sweeps?state=<img>&find=<svg/onload=window.hit=1>",
		"/sweeps/" + id + "/trials/0?p[%22]=<x>#<img>"} {
		b.allowFailures(true)
		b.open(path)
		b.see("main > *")
		clean(path)
	}
}
