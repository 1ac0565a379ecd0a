package report

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid/printable"
)

// Sizes of drawings, in pixels.
const (
	wide, high = 1060, 220
	left       = 70 // space for labels to the left of the marks
	under      = 24
)

// scale maps values to pixels.
type scale struct{ from, to, low, high float64 }

func (s scale) at(v float64) float64 {
	if s.to == s.from {
		return (s.low + s.high) / 2
	}
	return s.low + (v-s.from)/(s.to-s.from)*(s.high-s.low)
}

// extent returns the smallest and the largest of the values that are present.
func extent(all ...[]*float64) (low, high float64, ok bool) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, values := range all {
		for _, v := range values {
			if v != nil {
				low, high = min(low, *v), max(high, *v)
			}
		}
	}
	return low, high, low <= high
}

// number formats a value with five digits.
func number(v float64) string { return strconv.FormatFloat(v, 'g', 5, 64) }

// begin opens a drawing. label describes it to screen readers.
func (p *page) begin(width, height int, label string) {
	p.printf(`<svg viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`, width, height, width,
		height, label)
}

func (p *page) text(x, y float64, anchor, text string) {
	p.printf(`<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, text)
}

// bar draws a rectangle that shows its title on hover.
func (p *page) bar(class string, x, y, width, height float64, title string) {
	p.printf(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s</title></rect>`, class, x, y,
		max(width, 0.5), max(height, 0), title)
}

// history draws the course of the best value.
func history(p *page, body json.RawMessage) error {
	var c struct {
		Value      string
		Time, Best []*float64
		Now        *float64
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return err
	}
	low, top, ok := extent(c.Best)
	_, end, known := extent(c.Time, []*float64{c.Now})
	if !ok || !known || len(c.Time) != len(c.Best) {
		return nil
	}
	x, y := scale{0, end, left, wide - 10}, scale{low, top, high - under, 12}
	p.begin(wide, high, "Best "+c.Value+" over time")
	var path strings.Builder
	for i := range c.Best {
		if c.Best[i] == nil || c.Time[i] == nil {
			continue
		}
		at, v := number(x.at(*c.Time[i])), number(y.at(*c.Best[i]))
		if path.Len() == 0 {
			path.WriteString("M" + at + " " + v)
		} else {
			path.WriteString("H" + at + "V" + v)
		}
	}
	p.printf(`<path class="line" d="%sH%d"/>`, raw(path.String()), wide-10)
	p.text(left-6, y.at(top)+4, "end", number(top))
	p.text(left-6, y.at(low)+4, "end", number(low))
	p.text(wide-10, high-6, "end", printable.Seconds(end)+" after the first event")
	p.printf("</svg>")
	return nil
}

// histogram draws the distribution of values.
func histogram(p *page, body json.RawMessage) error {
	var c struct {
		Value  string
		Edges  []*float64
		Counts []int64
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return err
	}
	if len(c.Counts) == 0 || len(c.Edges) != len(c.Counts)+1 {
		return nil
	}
	most := int64(1)
	for _, n := range c.Counts {
		most = max(most, n)
	}
	p.begin(wide, high, "Distribution of "+c.Value)
	width := float64(wide-left-10) / float64(len(c.Counts))
	for i, n := range c.Counts {
		if c.Edges[i] == nil || c.Edges[i+1] == nil {
			continue
		}
		height := float64(n) / float64(most) * (high - under - 12)
		p.bar("mark", left+float64(i)*width, high-under-height, width-1, height,
			number(*c.Edges[i])+" to "+number(*c.Edges[i+1])+": "+strconv.FormatInt(n, 10))
	}
	p.text(left-6, 20, "end", strconv.FormatInt(most, 10))
	if first, last := c.Edges[0], c.Edges[len(c.Counts)]; first != nil && last != nil {
		p.text(left, high-6, "start", number(*first))
		p.text(wide-10, high-6, "end", number(*last))
	}
	p.printf("</svg>")
	return nil
}

// importance draws each parameter's share of the variance.
func importance(p *page, body json.RawMessage) error {
	var c struct {
		Axes []struct {
			Key, Why string
			Share    *float64
		}
	}
	if err := json.Unmarshal(body, &c); err != nil || len(c.Axes) == 0 {
		return err
	}
	const row, names = 22, 200
	p.begin(wide, row*len(c.Axes)+8, "Share of each parameter")
	for i, a := range c.Axes {
		y := float64(row*i + 4)
		p.text(names-8, y+15, "end", a.Key)
		if a.Share == nil {
			p.text(names, y+15, "start", a.Why)
			continue
		}
		width := *a.Share * (wide - names - 80)
		text := number(math.Round(1000**a.Share)/10) + " %"
		p.bar("mark", names, y+3, width, row-6, a.Key+": "+text)
		p.text(names+max(width, 0)+6, y+15, "start", text)
	}
	p.printf("</svg>")
	return nil
}

// marginals draws, for each parameter, the mean and its confidence interval at each of its values.
func marginals(p *page, body json.RawMessage) error {
	type level struct{ Label string }
	var c struct {
		Value string
		Axes  []struct {
			Key        string
			Levels     []level
			N          []int64
			Mean, Half []*float64
		}
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return err
	}
	p.printf(`<div class=many>`)
	for _, a := range c.Axes {
		low, top, ok := extent(a.Mean)
		if !ok || len(a.Levels) != len(a.Mean) || len(a.Half) != len(a.Mean) || len(a.N) != len(a.Mean) {
			continue
		}
		const width, height = 344, 180
		for i, m := range a.Mean {
			if m != nil && a.Half[i] != nil {
				low, top = min(low, *m-*a.Half[i]), max(top, *m+*a.Half[i])
			}
		}
		y := scale{low, top, height - under, 12}
		step := float64(width-left-10) / float64(len(a.Levels))
		p.printf("<figure><figcaption>%s</figcaption>", a.Key)
		p.begin(width, height, "Mean "+c.Value+" by "+a.Key)
		for i, m := range a.Mean {
			if m == nil {
				continue
			}
			x := left + (float64(i)+0.5)*step
			if half := a.Half[i]; half != nil {
				p.printf(`<path class="thin" d="M%.1f %.1fV%.1f"/>`, x, y.at(*m-*half), y.at(*m+*half))
			}
			p.printf(`<circle class="mark" cx="%.1f" cy="%.1f" r="4"><title>%s</title></circle>`, x, y.at(*m),
				a.Key+"="+a.Levels[i].Label+": "+number(*m)+" over "+strconv.FormatInt(a.N[i], 10))
			if every := max(1, len(a.Levels)/6); i%every == 0 {
				p.text(x, height-6, "middle", short(a.Levels[i].Label))
			}
		}
		p.text(left-6, y.at(top)+4, "end", number(top))
		p.text(left-6, y.at(low)+4, "end", number(low))
		p.printf("</svg></figure>")
	}
	p.printf(`</div>`)
	return nil
}

// short cuts a label to the length that fits below a mark.
func short(s string) string {
	if r := []rune(s); len(r) > 9 {
		return string(r[:8]) + "…"
	}
	return s
}

// timeline draws trials as bars, or, if there are too many, how many ended over time.
func timeline(p *page, body json.RawMessage) error {
	var c struct {
		Base     int64
		From, To *float64
		Bars     *struct {
			Trial      []int64
			Node       []string
			Lane       []int
			Start, End []*float64
			State      []string
		}
		Rate struct{ Succeeded, Failed, Cancelled []int64 }
	}
	if err := json.Unmarshal(body, &c); err != nil || c.From == nil || c.To == nil {
		return err
	}
	const row = 9
	if b := c.Bars; b != nil && len(b.Trial) > 0 && len(b.Node) == len(b.Trial) && len(b.Lane) == len(b.Trial) &&
		len(b.Start) == len(b.Trial) && len(b.End) == len(b.Trial) && len(b.State) == len(b.Trial) {
		lanes, rows := map[string]int{}, 0
		key := func(i int) string { return b.Node[i] + " " + strconv.Itoa(b.Lane[i]) }
		for i := range b.Trial {
			if _, ok := lanes[key(i)]; !ok {
				lanes[key(i)] = rows
				rows++
			}
		}
		x := scale{*c.From, *c.To, 10, wide - 10}
		p.begin(wide, rows*row+under+8, "Trials over time, a row for each place where one ran")
		for i := range b.Trial {
			if b.Start[i] == nil || b.End[i] == nil {
				continue
			}
			from := x.at(*b.Start[i])
			p.bar(classOf(b.State[i]), from, float64(lanes[key(i)]*row+4), x.at(*b.End[i])-from, row-2,
				strconv.FormatInt(b.Trial[i], 10)+" "+b.State[i]+" on "+b.Node[i]+", "+
					printable.Seconds(*b.End[i]-*b.Start[i]))
		}
		p.text(10, float64(rows*row+under),
			"start", time.UnixMicro(c.Base).UTC().Add(time.Duration(*c.From*1e9)).Format("2006-01-02 15:04:05 MST"))
		p.text(wide-10, float64(rows*row+under), "end", "+"+printable.Seconds(*c.To-*c.From))
		p.printf("</svg>")
		return nil
	}
	rate := c.Rate
	most := int64(1)
	n := min(len(rate.Succeeded), len(rate.Failed))
	for i := range n {
		most = max(most, rate.Succeeded[i]+rate.Failed[i])
	}
	if n == 0 {
		return nil
	}
	p.begin(wide, high, "Trials that ended, over time")
	width := float64(wide-left-10) / float64(n)
	for i := range n {
		good, bad := float64(rate.Succeeded[i])/float64(most)*(high-under-12),
			float64(rate.Failed[i])/float64(most)*(high-under-12)
		at := left + float64(i)*width
		p.bar("good", at, high-under-good, width-1, good, strconv.FormatInt(rate.Succeeded[i], 10)+" succeeded")
		p.bar("bad", at, high-under-good-bad, width-1, bad, strconv.FormatInt(rate.Failed[i], 10)+" failed")
	}
	p.text(left-6, 20, "end", strconv.FormatInt(most, 10))
	p.text(wide-10, high-6, "end", "+"+printable.Seconds(*c.To-*c.From))
	p.printf("</svg>")
	return nil
}

func classOf(state string) string {
	switch state {
	case "succeeded":
		return "good"
	case "failed":
		return "bad"
	case "running":
		return "mark"
	}
	return "none"
}

// coverage draws the share of trials that are done, in the order of the index.
func coverage(p *page, body json.RawMessage) error {
	var c struct{ Strip []*float64 }
	if err := json.Unmarshal(body, &c); err != nil || len(c.Strip) == 0 {
		return err
	}
	const height = 36
	p.begin(wide, height, "Share of the trials that is done, by index")
	width := float64(wide-20) / float64(len(c.Strip))
	for i, v := range c.Strip {
		if v != nil {
			p.bar("mark", 10+float64(i)*width, 30-24**v, width, 24**v, number(math.Round(1000**v)/10)+" %")
		}
	}
	p.printf("</svg>")
	return nil
}
