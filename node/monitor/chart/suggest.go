package chart

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid/moments"
	"mlfnode/grid/space"
	"mlfnode/node/parallel"
)

// Suggestions lists where to look next.
type Suggestions struct {
	Head
	List []Suggestion `json:"list"`
}

// Suggestion is one of them.
type Suggestion struct {
	Kind   string        `json:"kind"` // extend, refine or fix
	Key    string        `json:"key"`
	Values []json.Number `json:"values"` // to extend the axis with
	Label  string        `json:"label"`  // the value to fix the parameter at
	Trials int64         `json:"trials"` // new ones to run; with fix, those that each next sweep is spared of
	Work   Number        `json:"work"`   // seconds of all new trials, one after the other; null while unknown
	Text   string        `json:"text"`
	Args   []string      `json:"args"` // of mlfnode extend SWEEP; empty with fix
}

const (
	topShare    = 0.01 // of the trials, to see where the best are
	topLeast    = 10
	edgeShare   = 0.5  // of these, at the end of an axis
	weak        = 0.01 // share of the variance below which a parameter does not matter, alone or together with another
	sureShare   = 2    // standard errors by which the share has to be below that
	strong      = 0.1  // and above which it is worth refining
	suggestions = 8
)

// Suggestions examines the ends of axes where the best trials lie, the gaps between their best
// values, and parameters that do not matter.
func (v *View) Suggestions() *Suggestions {
	out := &Suggestions{List: []Suggestion{}}
	sorted, _ := v.order()
	top := sorted[:min(len(sorted), max(topLeast, int(topShare*float64(len(sorted)))))]
	importance := v.Importance(false)
	if len(sorted) >= 2*topLeast {
		for _, share := range importance.Axes {
			if a := v.axis(share.Key); share.Why == "" {
				out.List = append(out.List, suggestFor(v, a, &share, importance.Pairs, top)...)
			}
		}
	}
	out.List = out.List[:min(len(out.List), suggestions)]
	sentence := "The trials that have ended suggest nothing yet."
	if len(out.List) > 0 {
		sentence = out.List[0].Text
	}
	out.Head = v.head(sentence)
	return out
}

func suggestFor(v *View, a int, share *AxisShare, pairs []PairShare, top []int32) []Suggestion {
	axis := v.axes[a]
	counts := make([]int, len(axis.Levels))
	for _, r := range top {
		counts[v.levels[a][r]]++
	}
	best := 0
	for l := range counts {
		if counts[l] > counts[best] {
			best = l
		}
	}
	together := slices.ContainsFunc(pairs, func(p PairShare) bool {
		return (p.X == axis.Key || p.Y == axis.Key) && p.Share >= weak
	})
	if share.Share+sureShare*share.SE < weak && !together {
		return []Suggestion{{
			Kind: "fix", Key: axis.Key, Values: []json.Number{}, Label: axis.Levels[best].Label, Args: []string{},
			Trials: v.d.Space.Count() - v.d.Space.Count()/axis.Size, Work: Number(math.NaN()),
			Text: fmt.Sprintf("%s does not matter: fixed at %s, the next sweep has a %dth of the trials.", axis.Key,
				axis.Levels[best].Label, axis.Size),
		}}
	}
	if axis.Scale == "category" || len(axis.Levels) < 3 || axis.Size > maxLevels || share.Share < strong {
		return nil
	}
	order := make([]int, len(axis.Levels)) // levels by number
	for l := range order {
		order[l] = l
	}
	slices.SortFunc(order, func(i, j int) int {
		if axis.Levels[i].Number < axis.Levels[j].Number {
			return -1
		}
		return 1
	})
	at := slices.Index(order, best)
	x := func(i int) float64 { return float64(axis.Levels[order[i]].Number) }
	log := axis.Scale == "log"
	var values []float64
	kind := "refine"
	switch {
	case at == 0 && float64(counts[best]) >= edgeShare*float64(len(top)):
		kind, values = "extend", beyond(x(1), x(0), log)
	case at == len(order)-1 && float64(counts[best]) >= edgeShare*float64(len(top)):
		kind, values = "extend", beyond(x(at-1), x(at), log)
	case at > 0 && at < len(order)-1:
		values = []float64{between(x(at-1), x(at), log), between(x(at), x(at+1), log)}
	}
	s, ok := suggestValues(v, kind, axis, values)
	if !ok {
		return nil
	}
	return []Suggestion{s}
}

// beyond returns two further values in the direction from a to b.
func beyond(a, b float64, log bool) []float64 {
	if log {
		return []float64{b * b / a, b * b / a * b / a}
	}
	further := []float64{b + (b - a), b + 2*(b-a)}
	if a > 0 && b > 0 { // values that were all positive stay positive
		further = slices.DeleteFunc(further, func(f float64) bool { return f <= 0 })
	}
	return further
}

func between(a, b float64, log bool) float64 {
	if log {
		return math.Sqrt(a * b)
	}
	return (a + b) / 2
}

// suggestValues makes a suggestion from values; it returns false if they add no trial.
func suggestValues(v *View, kind string, axis *axis, values []float64) (Suggestion, bool) {
	integers := !slices.ContainsFunc(axis.Levels, func(l Level) bool { return strings.ContainsAny(l.Label, ".eE") })
	s := Suggestion{Kind: kind, Key: axis.Key, Values: []json.Number{}, Work: Number(math.NaN())}
	more := space.Axis{Key: axis.Key}
	var texts []string
	for _, f := range values {
		text := strconv.FormatFloat(f, 'g', 2, 64)
		if integers {
			text = strconv.FormatInt(int64(math.Round(f)), 10)
		}
		if slices.Contains(texts, text) || !finite(f) {
			continue
		}
		texts = append(texts, text)
		s.Values = append(s.Values, json.Number(text))
		more.Values = append(more.Values, space.Value{Text: text, Kind: space.Number})
	}
	if len(texts) == 0 {
		return s, false
	}
	extended, err := v.d.Space.Extend([]space.Axis{more})
	if err != nil {
		return s, false
	}
	s.Trials = extended.Count() - v.d.Space.Count()
	s.Args = []string{"--set", axis.Key + "=" + strings.Join(texts, ",")}
	s.Work = Number(meanWall(v) * float64(s.Trials))
	where := "at the end of"
	if kind == "refine" {
		where = "inside of"
	}
	s.Text = fmt.Sprintf("The best values lie %s %s: %s it with %s (%d new trials).", where, axis.Key, kind,
		strings.Join(texts, ", "), s.Trials)
	return s, true
}

// meanWall returns how long the selected trials took on average; NaN for none.
func meanWall(v *View) float64 {
	spans := parallel.Split(len(v.rows), leastRows)
	parts := make([]moments.Moments, len(spans))
	parallel.Each(len(spans), func(i int) {
		for _, r := range v.rows[spans[i].Lo:spans[i].Hi] {
			if f := float64(v.d.Wall[r]); finite(f) {
				parts[i].Add(f)
			}
		}
	})
	var all moments.Moments
	for i := range parts {
		all.Merge(&parts[i])
	}
	return all.Mean()
}
