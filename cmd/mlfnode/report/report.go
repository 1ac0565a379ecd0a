// Package report writes a sweep as one HTML file that opens anywhere, without a network and without
// scripts: the figures and charts of the API as drawings, and the answers themselves as JSON.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/grid/space"
	"mlfnode/node/api"
)

// Charts returns the names of the charts in a report. Heat comes after importance, which determines
// its parameters.
func Charts() []string {
	return []string{
		"history", "histogram", "importance", "marginals", "parallel", Heat, "curves", "timeline", "coverage",
		"failures", "suggestions",
	}
}

// Heat is the chart of two parameters.
const Heat = "heat"

// Query returns the parameters with which to request a chart from the API. ok is false for a chart
// that the sweep can't have.
func (d *Data) Query(name string) (q url.Values, ok bool) {
	if name != Heat {
		return nil, true
	}
	var c struct{ Axes []axisShare }
	if err := json.Unmarshal(d.Charts["importance"], &c); err != nil || len(c.Axes) < 2 {
		d.Missing[name] = "A heat map needs two parameters with several values each."
		return nil, false
	}
	share := func(a axisShare) float64 { // unknown shares come last
		if finite(a.Share) {
			return -float64(a.Share)
		}
		return 1
	}
	slices.SortStableFunc(c.Axes, func(a, b axisShare) int { return cmp.Compare(share(a), share(b)) })
	return url.Values{"x": {c.Axes[0].Key}, "y": {c.Axes[1].Key}}, true
}

// Data is the content of a report. The API's answers bound its size, at some 100 kB each.
type Data struct {
	Sweep   api.Sweep                  `json:"sweep"`
	Best    []api.Trial                `json:"best"` // trials, the best first; the first ones if there is no objective
	Charts  map[string]json.RawMessage `json:"charts"`
	Missing map[string]string          `json:"missing,omitempty"` // why a chart is missing
	Made    time.Time                  `json:"made"`
	Version string                     `json:"version"`
}

// Write writes the report.
func (d *Data) Write(w io.Writer) error {
	p := &page{}
	s := &d.Sweep
	p.printf(`<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>%s · mlfnode</title><style>%s</style></head><body><main>
`, string(s.Sweep), raw(style+shadesStyle))
	p.head(d)
	p.best(d)
	p.chart(d, "history", "Best so far", history)
	p.chart(d, "importance", "What matters", importance)
	p.chart(d, "marginals", "Values of each parameter", marginals)
	p.chart(d, "parallel", "All parameters", parallel)
	p.chart(d, Heat, "The two that matter most", heat)
	p.chart(d, "curves", "Curves", curves)
	p.chart(d, "histogram", "Distribution", histogram)
	p.chart(d, "timeline", "Trials over time", timeline)
	p.chart(d, "coverage", "What has run", coverage)
	p.chart(d, "failures", "Failures", failures)
	p.chart(d, "suggestions", "Where to look next", suggestions)
	p.printf("<footer>Made by mlfnode %s at %s from %s. The data is in this file, as JSON.</footer></main>\n",
		d.Version, d.Made.UTC().Format(time.RFC3339), string(s.Sweep))
	all, err := json.Marshal(d) // with <, > and & escaped, so that nothing ends the element
	if err != nil {
		return fmt.Errorf("encode the data of %s: %w", s.Sweep, err)
	}
	p.printf(`<script type="application/json" id="data">%s</script></body></html>`+"\n", raw(all))
	_, err = io.WriteString(w, p.String())
	return err
}

const style = `:root{--text:#15191e;--muted:#57606c;--ground:#fff;--panel:#f5f7f9;--border:#d5dae0;--mark:#0b57d0;--good:#1a5e3c;--bad:#c73a0a;--none:#858b93}
@media (prefers-color-scheme:dark){:root{--text:#e6eaef;--muted:#9aa5b3;--ground:#0f1317;--panel:#171c22;--border:#2b333d;--mark:#6aa8ff;--good:#3fe09a;--bad:#ff6a4d;--none:#76808c}}
body{margin:0;background:var(--ground);color:var(--text);font:13px/18px system-ui,sans-serif}main{max-width:1100px;margin:0 auto;padding:16px}
h1{font-size:20px;line-height:28px;margin:0}h2{font-size:15px;margin:24px 0 4px}p{margin:4px 0}.muted,footer{color:var(--muted)}footer{margin:24px 0}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{text-align:left;padding:3px 10px 3px 0;border-bottom:1px solid var(--border);vertical-align:top}
th{color:var(--muted);font-weight:400}td.n,th.n{text-align:right}pre{white-space:pre-wrap;margin:0}code,pre{font:12px/16px ui-monospace,monospace}
svg{display:block;max-width:100%;background:var(--panel);border:1px solid var(--border);border-radius:4px}svg text{fill:var(--muted);font:11px system-ui,sans-serif}
.mark{fill:var(--mark)}.good{fill:var(--good)}.bad{fill:var(--bad)}.none{fill:var(--none)}.line{fill:none;stroke:var(--mark);stroke-width:2}.thin{stroke:var(--muted);stroke-width:1}
.many{display:flex;flex-wrap:wrap;gap:12px}.many figure{margin:0}figcaption{color:var(--muted)}`

// raw is text that is already HTML.
type raw string

// page is HTML under construction.
type page struct{ strings.Builder }

// printf appends HTML. Arguments are escaped, except numbers and raw text.
func (p *page) printf(format string, v ...any) {
	for i := range v {
		switch text := v[i].(type) {
		case string:
			v[i] = html.EscapeString(text)
		case grid.State:
			v[i] = html.EscapeString(string(text))
		}
	}
	fmt.Fprintf(p, format, v...)
}

func (p *page) head(d *Data) {
	s := &d.Sweep
	name := ""
	if s.Name != "" {
		name = " · " + s.Name
	}
	p.printf("<h1>%s%s</h1><p class=muted>%s · task %s · %s · submitted %s</p>\n", string(s.Sweep), name, s.Project,
		s.Task, string(s.State), s.Submitted.UTC().Format("2006-01-02 15:04 MST"))
	p.printf("<div class=scroll><table><tr>")
	columns := []struct {
		name string
		n    int64
	}{{"trials", s.Count}, {"succeeded", s.Succeeded}, {"failed", s.Failed}, {"running", s.Running},
		{"pending", s.Pending}, {"stopped early", s.Stopped}, {"cancelled", s.OnlyCancelled()}}
	for _, c := range columns {
		p.printf("<th class=n>%s</th>", c.name)
	}
	p.printf("<th class=n>CPU time</th></tr><tr>")
	for _, c := range columns {
		p.printf("<td class=n>%d</td>", c.n)
	}
	p.printf("<td class=n>%s</td></tr></table></div>\n", printable.Seconds(s.CPU))
	if s.Problem != "" {
		p.printf("<p>%s</p>", s.Problem)
	}
}

// best adds the table of the best trials.
func (p *page) best(d *Data) {
	if len(d.Best) == 0 {
		return
	}
	title := "Trials"
	if o := d.Sweep.Objective; o != nil {
		title = fmt.Sprintf("Best trials by %s (%s)", o.Metric, o.Goal)
	}
	metrics := d.Sweep.Metrics[:min(len(d.Sweep.Metrics), 8)]
	p.printf("<h2>%s</h2><div class=scroll><table><tr><th class=n>trial</th><th>state</th>", title)
	for _, key := range d.Sweep.Keys {
		p.printf("<th>%s</th>", key)
	}
	for _, name := range metrics {
		p.printf("<th class=n>%s</th>", name)
	}
	p.printf("<th class=n>wall</th><th>node</th></tr>\n")
	for i := range d.Best {
		t := &d.Best[i]
		p.printf("<tr><td class=n>%d</td><td>%s</td>", t.Index, t.State)
		for _, key := range d.Sweep.Keys {
			p.printf("<td>%s</td>", param(t.Params, key))
		}
		for _, name := range metrics {
			p.printf("<td class=n>%s</td>", strings.Trim(string(t.Metrics[name]), `"`))
		}
		p.printf("<td class=n>%s</td><td>%s</td></tr>\n", printable.Seconds(t.Usage.Wall), string(t.Node))
	}
	p.printf("</table></div>\n")
}

func param(params space.Params, key string) string {
	for _, p := range params {
		if p.Key == key {
			return p.Value.Text
		}
	}
	return ""
}

// chart adds a chart with its sentence, or the reason why it is missing.
func (p *page) chart(d *Data, name, title string, draw func(*page, json.RawMessage) error) {
	p.printf("<section><h2>%s</h2>", title)
	defer p.printf("</section>\n")
	body, ok := d.Charts[name]
	if !ok {
		p.printf("<p class=muted>%s</p>", d.Missing[name])
		return
	}
	var head struct{ Sentence string }
	if err := json.Unmarshal(body, &head); err == nil && head.Sentence != "" {
		p.printf("<p>%s</p>", head.Sentence)
	}
	if err := draw(p, body); err != nil {
		p.printf("<p class=muted>This can't be drawn: %s</p>", err.Error())
	}
}

// failures adds the table of the causes.
func failures(p *page, body json.RawMessage) error {
	var c struct {
		Groups []struct {
			Class, Signature, Text, Hint string
			Count                        int64
			Trial                        int64
			Lifts                        []struct {
				Key, Label  string
				Share, Base *float64
			}
		}
	}
	if err := json.Unmarshal(body, &c); err != nil || len(c.Groups) == 0 {
		return err
	}
	p.printf("<div class=scroll><table><tr><th class=n>trials</th><th>class</th><th>what</th><th>more often with</th><th class=n>newest</th></tr>")
	for _, g := range c.Groups {
		p.printf("<tr><td class=n>%d</td><td>%s</td><td>%s<pre>%s</pre><span class=muted>%s</span></td><td>", g.Count,
			g.Class, g.Text, g.Signature, g.Hint)
		for _, l := range g.Lifts {
			if l.Share != nil && l.Base != nil {
				p.printf("%s=%s: %.0f %% of these, %.0f %% of all<br>", l.Key, l.Label, 100**l.Share, 100**l.Base)
			}
		}
		p.printf("</td><td class=n>%d</td></tr>\n", g.Trial)
	}
	p.printf("</table></div>")
	return nil
}

func suggestions(p *page, body json.RawMessage) error {
	var c struct {
		Sentence string
		List     []struct{ Text string }
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return err
	}
	for _, s := range c.List {
		if s.Text != c.Sentence {
			p.printf("<p>%s</p>", s.Text)
		}
	}
	return nil
}
