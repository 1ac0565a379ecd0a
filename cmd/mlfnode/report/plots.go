package report

import (
	"encoding/json"
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
)

// shades is the number of colours for values, from the worst to the best: viridis, which also reads
// well in grey and for the colour-blind.
const shades = 10

// shadesStyle defines the colours of values, for lines and for areas, on light and on dark
// backgrounds.
const shadesStyle = `.r0{--r:#440154}.r1{--r:#482878}.r2{--r:#3e4a89}.r3{--r:#31688e}.r4{--r:#26828e}.r5{--r:#1f9e89}.r6{--r:#35b779}.r7{--r:#6ece58}.r8{--r:#b5de2b}.r9{--r:#fde725}
.band,.trial{stroke:var(--r);fill:none}.band{opacity:.5}.trial{stroke-width:1}.cell{fill:var(--r)}.gap{fill:var(--ground);stroke:var(--border)}.range{fill:var(--mark);opacity:.2}
svg text{paint-order:stroke;stroke:var(--panel);stroke-width:3px}svg text.on0{fill:#fff;stroke:none}svg text.on1{fill:#000;stroke:none}.k0{--k:#0072b2}.k1{--k:#e69f00}.k2{--k:#009e73}.k3{--k:#cc79a7}.k4{--k:#56b4e9}.curve{fill:none;stroke:var(--k);stroke-width:1.5}
.curve.d1{stroke-dasharray:6 3}`

// shade returns the colour of a rank from 0, the best, to 1.
func shade(rank float64) string {
	if math.IsNaN(rank) {
		rank = 1
	}
	return "r" + strconv.Itoa(min(shades-1, max(0, int((1-rank)*shades))))
}

// finite reports whether a chart has a value for a number.
func finite(n figure) bool { return !math.IsNaN(float64(n)) && !math.IsInf(float64(n), 0) }

// span returns the smallest and the largest of the finite numbers.
func span(all ...[]figure) (low, high float64, ok bool) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, numbers := range all {
		for _, n := range numbers {
			if finite(n) {
				low, high = min(low, float64(n)), max(high, float64(n))
			}
		}
	}
	return low, high, low <= high
}

// bestDrawn is the number of trials drawn as lines over the bands.
const bestDrawn = 30

// parallel draws bands between neighbouring parameters, and the best trials as lines.
func parallel(p *page, body json.RawMessage) error {
	var c parallelAnswer
	if err := json.Unmarshal(body, &c); err != nil {
		return err
	}
	low, top, ok := span(c.Edges)
	if !ok || len(c.Axes) == 0 || len(c.Bands) != len(c.Axes) || len(c.Lines.Levels) != len(c.Axes) {
		return nil
	}
	const height, over = 320, 40
	p.begin(wide, height, "Trials along all parameters and "+c.Value)
	x := func(axis int) float64 { return left + float64(axis)*(wide-2*left)/float64(len(c.Axes)) }
	sizes := make([]int, len(c.Axes)+1)
	for a := range c.Axes {
		sizes[a] = len(c.Axes[a].Levels)
	}
	sizes[len(c.Axes)] = len(c.Edges) - 1
	y := func(axis, level int) float64 {
		return height - under - (float64(level)+0.5)*(height-under-over)/float64(max(1, sizes[axis]))
	}
	for a, band := range c.Bands {
		most := int64(1)
		for _, n := range band.N {
			most = max(most, n)
		}
		middle := (x(a) + x(a+1)) / 2
		for i := range min(len(band.From), len(band.To), len(band.N), len(band.Rank)) {
			from, to := y(a, band.From[i]), y(a+1, band.To[i])
			p.printf(`<path class="band %s" stroke-width="%.1f" d="M%.0f %.1fC%.0f %.1f %.0f %.1f %.0f %.1f"/>`,
				shade(float64(band.Rank[i])),
				0.5+12*math.Sqrt(float64(band.N[i])/float64(most)), x(a), from, middle, from, middle, to, x(a+1), to)
		}
	}
	value := scale{low, top, height - under, over}
	// the best one last, so that it is on top
	for i := min(bestDrawn, len(c.Lines.Trial), len(c.Lines.Value), len(c.Lines.Rank)) - 1; i >= 0; i-- {
		var path strings.Builder
		for a, levels := range c.Lines.Levels {
			if i < len(levels) {
				fmt.Fprintf(&path, "%c%.0f %.1f", "ML"[min(a, 1)], x(a), y(a, levels[i]))
			}
		}
		if finite(c.Lines.Value[i]) {
			fmt.Fprintf(&path, "L%.0f %.1f", x(len(c.Axes)), value.at(float64(c.Lines.Value[i])))
		}
		p.printf(`<path class="trial %s" d="%s"><title>%s</title></path>`, shade(float64(c.Lines.Rank[i])),
			raw(path.String()),
			fmt.Sprintf("trial %d: %s %s", c.Lines.Trial[i], c.Value, number(float64(c.Lines.Value[i]))))
	}
	for a, axis := range c.Axes {
		p.printf(`<path class="thin" d="M%.0f %dV%d"/>`, x(a), over-8, height-under+4)
		p.text(x(a), 16, "middle", short(axis.Key))
		for l, every := 0, max(1, (len(axis.Levels)+9)/10); l < len(axis.Levels); l += every {
			p.text(x(a)-6, y(a, l)+4, "end", short(axis.Levels[l].Label))
		}
	}
	p.printf(`<path class="thin" d="M%.0f %dV%d"/>`, x(len(c.Axes)), over-8, height-under+4)
	p.text(x(len(c.Axes)), 16, "middle", short(c.Value))
	p.text(x(len(c.Axes))+5, value.at(low)+4, "start", number(low))
	p.text(x(len(c.Axes))+5, value.at(top)+4, "start", number(top))
	p.printf("</svg>")
	drawn := min(bestDrawn, len(c.Lines.Trial))
	p.printf(
		"<p class=muted>Bands are as wide as many trials go that way, and coloured by their mean rank: yellow is best. Lines are the best %d trials.</p>",
		drawn)
	return nil
}

// titledCells bounds the cells that show a title on hover, and that a table lists.
const titledCells = 400

// heat draws the cells of two parameters.
func heat(p *page, body json.RawMessage) error {
	var c heatAnswer
	if err := json.Unmarshal(body, &c); err != nil {
		return err
	}
	nx, ny := len(c.X.Levels), len(c.Y.Levels)
	if len(c.Cells) == 0 || nx == 0 || ny == 0 || len(c.Cells[0].Value) != ny || len(c.Cells[0].N) != ny {
		return nil
	}
	values, counts := c.Cells[0].Value, c.Cells[0].N
	low, top, ok := span(values...)
	if !ok {
		return nil
	}
	const names = 110
	cell := min(78, float64(wide-names-10)/float64(nx))
	row := max(9, min(34, cell, 420/float64(ny)))
	height := int(row*float64(ny)) + under + 18
	best := scale{low, top, 1, 0}
	if c.Goal == "minimize" {
		best = scale{low, top, 0, 1}
	}
	few := nx*ny <= titledCells
	p.begin(wide, height, "Mean "+c.Value+" by "+c.X.Key+" and "+c.Y.Key)
	for j := range ny {
		y := row * float64(ny-1-j)
		if every := max(1, int(math.Ceil(12/row))); j%every == 0 {
			p.text(names-6, y+row/2+4, "end", short(c.Y.Levels[j].Label))
		}
		for i := range min(nx, len(values[j]), len(counts[j])) {
			v, x, class, title := values[j][i], names+cell*float64(i), "gap", ""
			if finite(v) {
				class = "cell " + shade(best.at(float64(v)))
			}
			if few {
				title = "<title>" + html.EscapeString(cellText(&c, i, j)) + "</title>"
			}
			p.printf(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f">%s</rect>`, class, x, y, cell-1,
				row-1, raw(title))
			if finite(v) && cell >= 40 && row >= 14 {
				on := "on0"
				if best.at(float64(v)) < 0.5 {
					on = "on1"
				}
				p.printf(`<text class="%s" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, on, x+cell/2, y+row/2+4,
					strconv.FormatFloat(float64(v), 'g', 4, 64))
			}
		}
	}
	for i, every := 0, max(1, int(math.Ceil(60/cell))); i < nx; i += every {
		p.text(names+cell*(float64(i)+0.5), row*float64(ny)+14, "middle", short(c.X.Levels[i].Label))
	}
	p.text(names, float64(height)-6, "start", c.X.Key+" →   "+c.Y.Key+" ↑")
	p.printf("</svg>")
	if few {
		p.printf(
			"<details><summary>As a table</summary><div class=scroll><table><tr><th>%s</th><th>%s</th><th class=n>trials</th><th class=n>mean %s</th></tr>\n",
			c.Y.Key, c.X.Key, c.Value)
		for j := range ny {
			for i := range min(nx, len(values[j]), len(counts[j])) {
				if finite(values[j][i]) {
					p.printf("<tr><td>%s</td><td>%s</td><td class=n>%d</td><td class=n>%s</td></tr>\n",
						c.Y.Levels[j].Label, c.X.Levels[i].Label, counts[j][i], number(float64(values[j][i])))
				}
			}
		}
		p.printf("</table></div></details>")
	}
	return nil
}

func cellText(c *heatAnswer, i, j int) string {
	text := fmt.Sprintf("%s=%s, %s=%s: ", c.X.Key, c.X.Levels[i].Label, c.Y.Key, c.Y.Levels[j].Label)
	if v := c.Cells[0].Value[j][i]; finite(v) {
		return text + fmt.Sprintf("%s over %d", number(float64(v)), c.Cells[0].N[j][i])
	}
	return text + "none has run"
}

// curves draws the course of a metric in the best trials, over the range of many trials.
func curves(p *page, body json.RawMessage) error {
	var c curvesAnswer
	if err := json.Unmarshal(body, &c); err != nil {
		return err
	}
	steps, values := [][]figure{c.Steps}, [][]figure{c.Low, c.High}
	for _, t := range c.Curves {
		steps, values = append(steps, t.Steps), append(values, t.Values)
	}
	first, last, ok := span(steps...)
	low, top, known := span(values...)
	if !ok || !known || len(c.Low) != len(c.Steps) || len(c.High) != len(c.Steps) || len(c.Median) != len(c.Steps) {
		return nil
	}
	const height = 300
	x, y := scale{first, last, left, wide - 10}, scale{low, top, height - under, 12}
	p.begin(wide, height, "Curves of "+c.Value)
	line := func(steps, values []figure) string {
		var path strings.Builder
		for i := range min(len(steps), len(values)) {
			if finite(steps[i]) && finite(values[i]) {
				fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(path.Len(), 1)], x.at(float64(steps[i])),
					y.at(float64(values[i])))
			}
		}
		return path.String()
	}
	if len(c.Steps) > 1 {
		back, under := slices.Clone(c.Steps), slices.Clone(c.Low)
		slices.Reverse(back)
		slices.Reverse(under)
		p.printf(`<path class="range" d="%s%sZ"><title>between 10 %% and 90 %% of %d curves</title></path><path class="thin" fill="none" d="%s"/>`,
			raw(line(c.Steps, c.High)), raw(strings.Replace(line(back, under), "M", "L", 1)),
			c.Sampled, raw(line(c.Steps, c.Median)))
	}
	for i, t := range c.Curves {
		p.printf(`<path class="curve k%d d%d" d="%s"><title>trial %d</title></path>`, i%5, i/5%2,
			raw(line(t.Steps, t.Values)), t.Trial)
	}
	p.text(left-6, y.at(top)+4, "end", number(top))
	p.text(left-6, y.at(low)+4, "end", number(low))
	p.text(left, height-6, "start", "step "+number(first))
	p.text(wide-10, height-6, "end", number(last))
	p.printf(
		"</svg><details><summary>As a table</summary><div class=scroll><table><tr><th class=n>trial</th><th>state</th><th class=n>points</th><th class=n>last step</th><th class=n>last %s</th></tr>\n",
		c.Value)
	for _, t := range c.Curves {
		if n := min(len(t.Steps), len(t.Values)); n > 0 {
			p.printf(
				"<tr><td class=n>%d</td><td>%s</td><td class=n>%d</td><td class=n>%s</td><td class=n>%s</td></tr>\n",
				t.Trial, t.State, n, number(float64(t.Steps[n-1])), number(float64(t.Values[n-1])))
		}
	}
	p.printf("</table></div></details>")
	return nil
}
