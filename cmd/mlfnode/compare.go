package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/grid/moments"
	"mlfnode/grid/space"
	"mlfnode/node"
	"mlfnode/node/api"
)

// compareFlags are the flags of compare.
type compareFlags struct {
	over  []string
	value string
	limit int64
}

func compareCommand(a *app) *cobra.Command {
	var f compareFlags
	c := &cobra.Command{
		Use:   "compare SWEEP SWEEP",
		Short: "Compare two sweeps: how they differ, and the results of the points that both have",
		Long: `Compare two sweeps. First how they differ: program, files, commit, parameters, resources. Then the
points that both have, side by side, with the difference of the second sweep from the first. Means
are over repeats, over parameters that only one of the sweeps has, and over those that --over names.`,
		Example: `  mlfnode compare chainer-1 chainer-2
  mlfnode compare base wider --over seed
  mlfnode compare base wider --value wall --json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 2 {
				return nil
			}
			return usage(fmt.Sprintf("compare needs two sweeps, not %d", len(args)), c.CommandPath()+" --help")
		},
		RunE: func(c *cobra.Command, args []string) error {
			var ids [2]grid.SweepID
			for i, arg := range args {
				id, err := parseTarget(arg)
				if err != nil {
					return err
				}
				if id.Index >= 0 {
					return usage("compare works on whole sweeps",
						fmt.Sprintf("name it without the trial: %s", id.Sweep))
				}
				ids[i] = id.Sweep
			}
			if f.limit < 0 {
				return usage("--limit must not be negative", "--limit 0 shows all points")
			}
			if a.json && !c.Flags().Changed("limit") {
				f.limit = 0
			}
			return a.withSession(c.Context(), func(s *node.Session) error {
				return compareSweeps(c.Context(), a.console, s.Client(), ids, &f)
			})
		},
	}
	c.Flags().StringSliceVar(&f.over, "over", nil, "average over these `PARAMETERS`, such as a seed")
	c.Flags().StringVar(&f.value, "value", "",
		"what to compare: a metric, wall, cpu or memory (default the objective, or the first metric)")
	c.Flags().Int64Var(&f.limit, "limit", tableRows,
		"maximum number of points to show; 0 means all, the default of --json")
	a.jsonFlag(c)
	return c
}

// comparison is what `compare --json` prints. In pairs, the first element belongs to the first
// sweep.
type comparison struct {
	Sweeps  [2]string    `json:"sweeps"`
	Differs []difference `json:"differs"`
	Value   string       `json:"value"`
	// "maximize" or "minimize", "" where it is not known which values are better
	Goal   string          `json:"goal"`
	Over   []string        `json:"over"` // parameters that means are taken over
	Points []comparedPoint `json:"points"`
	Both   int             `json:"both"` // points with a value in both
	Higher int             `json:"higher"`
	// of those, points where the value of the second sweep is higher, or lower
	Lower      int    `json:"lower"`
	Better     *int   `json:"better"`
	Worse      *int   `json:"worse"`      // the same by the goal, null without one
	Difference figure `json:"difference"` // mean over them
	Half       figure `json:"half"`       // half the width of its 95 % confidence interval
}

// difference is something that two sweeps ran differently; a value is empty if its sweep has none.
type difference struct {
	Name   string    `json:"name"`
	Values [2]string `json:"values"`
}

// comparedPoint is a point of either sweep.
type comparedPoint struct {
	Params     space.Params     `json:"params"`
	Sweeps     [2]*groupSummary `json:"sweeps"`     // null for a sweep without the point
	Difference figure           `json:"difference"` // of the means, second less first
}

func compareSweeps(ctx context.Context, ui *console, c *api.Client, ids [2]grid.SweepID, f *compareFlags) error {
	var about [2]api.Description
	for i, id := range ids {
		d, why, err := describeSweep(ctx, c, id)
		if err != nil {
			return err
		}
		if about[i] = d; why != "" {
			ui.say("note: %s", why)
		}
	}
	first, second := &about[0].Sweep, &about[1].Sweep
	if first.Sweep == second.Sweep {
		return usage(fmt.Sprintf("%s and %s are the same sweep", ids[0], ids[1]), "list sweeps with: mlfnode sweeps")
	}
	r, keys, err := compared(ctx, c, &about, f)
	if err != nil {
		return err
	}
	if ui.json {
		if f.limit > 0 {
			r.Points = r.Points[:min(f.limit, int64(len(r.Points)))]
		}
		return ui.printJSON(r)
	}
	return printComparison(ui, r, keys, f.limit)
}

// compared compares two sweeps; keys are the parameters of the points.
func compared(
	ctx context.Context, c *api.Client, about *[2]api.Description, f *compareFlags,
) (*comparison, []string, error) {
	first, second := &about[0].Sweep, &about[1].Sweep
	for _, key := range f.over {
		if !slices.Contains(first.Keys, key) && !slices.Contains(second.Keys, key) {
			return nil, nil, checkKeys(first, []string{key})
		}
	}
	value, err := quantityOf(first, f.value)
	if err != nil {
		return nil, nil, err
	}
	other, err := quantityOf(second, value.name)
	if err != nil {
		return nil, nil, err
	}
	value.goal = cmp.Or(value.goal, other.goal)
	other.goal = value.goal
	var keys []string
	over := []string{}
	for _, key := range slices.Concat(first.Keys, withoutKeys(second.Keys, first.Keys)) {
		repeats := key == space.RepeatKey && (about[0].Task.Repeat || about[1].Task.Repeat)
		shared := slices.Contains(first.Keys, key) && slices.Contains(second.Keys, key)
		if repeats || slices.Contains(f.over, key) || !shared {
			over = append(over, key)
		} else {
			keys = append(keys, key)
		}
	}
	r := &comparison{
		Sweeps: [2]string{string(first.Sweep), string(second.Sweep)}, Differs: differences(about),
		Value: value.name, Goal: value.goal, Over: over, Points: []comparedPoint{},
	}
	var groups [2]*grouping
	for i, q := range []*quantity{value, other} {
		if groups[i], err = groupTrials(ctx, c, &about[i].Sweep, keys, q, api.TrialQuery{}); err != nil {
			return nil, nil, err
		}
	}
	r.join(&groups)
	switch value.goal {
	case "maximize":
		r.Better, r.Worse = &r.Higher, &r.Lower
	case "minimize":
		r.Better, r.Worse = &r.Lower, &r.Higher
	}
	return r, keys, nil
}

// join puts the groups of two sweeps side by side.
func (r *comparison) join(groups *[2]*grouping) {
	var differences moments.Moments
	for i, g := range groups {
		for _, own := range g.all {
			place := pointKey(own.params)
			other := groups[1-i].place[place]
			if i == 1 && other != nil {
				continue // it was added with the first sweep
			}
			p := comparedPoint{Params: own.params, Difference: figure(math.NaN())}
			s := own.summary()
			if p.Sweeps[i] = &s; other != nil {
				o := other.summary()
				p.Sweeps[1-i] = &o
			}
			if a, b := p.Sweeps[0], p.Sweeps[1]; a != nil && b != nil && a.N > 0 && b.N > 0 {
				p.Difference = b.Mean - a.Mean
				differences.Add(float64(p.Difference))
				switch {
				case b.Mean > a.Mean:
					r.Higher++
				case b.Mean < a.Mean:
					r.Lower++
				}
			}
			r.Points = append(r.Points, p)
		}
	}
	r.Both, r.Difference, r.Half = int(differences.N), figure(differences.Mean()), figure(differences.Half())
}

// differences lists what two sweeps ran differently.
func differences(about *[2]api.Description) []difference {
	var names []string
	var values [2]map[string]string
	for i := range about {
		d := &about[i]
		values[i] = map[string]string{}
		all := append([]factLine{{"files", strings.Join(d.Sweep.Bundles, ", then ")}}, settingsOf(d)...)
		if d.Origin != nil {
			all = append(all, factLine{"git", gitText(d.Origin.Git)}, factLine{"folder", d.Origin.Folder},
				factLine{"host", d.Origin.Host}, factLine{"owner", d.Origin.User})
		}
		for _, f := range all {
			if !slices.Contains(names, f.name) {
				names = append(names, f.name)
			}
			if before := values[i][f.name]; before != "" && f.text != "" {
				f.text = before + "; " + f.text
			}
			values[i][f.name] = f.text
		}
	}
	differs := []difference{}
	for _, name := range names {
		if a, b := values[0][name], values[1][name]; a != b {
			differs = append(differs, difference{name, [2]string{a, b}})
		}
	}
	return differs
}

func printComparison(ui *console, r *comparison, keys []string, limit int64) error {
	if len(r.Differs) > 0 {
		t := newTextTable(ui.stdout, "differs", r.Sweeps[0], r.Sweeps[1])
		for _, s := range r.Differs {
			t.row(s.Name, cmp.Or(s.Values[0], "-"), cmp.Or(s.Values[1], "-"))
		}
		if err := t.flush(); err != nil {
			return err
		}
		fmt.Fprintln(ui.stdout)
	}
	heads, _ := columnNames(&api.Sweep{Keys: keys}, []string{r.Sweeps[0], r.Sweeps[1], "difference"})
	t := newTable(ui.stdout, append(heads, r.Sweeps[0], r.Sweeps[1], "difference")...)
	shown := r.Points
	if limit > 0 {
		shown = shown[:min(limit, int64(len(shown)))]
	}
	for _, p := range shown {
		var row []string
		for _, q := range p.Params {
			row = append(row, q.Value.Text)
		}
		t.row(append(row, p.Sweeps[0].text(), p.Sweeps[1].text(), cmp.Or(p.Difference.text(), "-"))...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if n := len(r.Points); n > len(shown) {
		fmt.Fprintf(ui.stdout, "… of %d points; all of them with --limit 0\n", n)
	}
	text := fmt.Sprintf("%s in both: %s of %s is ", plural(int64(r.Both), "point"), r.Value, r.Sweeps[1])
	if r.Better != nil {
		text += fmt.Sprintf("better in %d, worse in %d", *r.Better, *r.Worse)
	} else {
		text += fmt.Sprintf("higher in %d, lower in %d", r.Higher, r.Lower)
	}
	if r.Both > 0 {
		text += "; mean difference " + r.Difference.text()
		if !math.IsNaN(float64(r.Half)) {
			text += " ± " + r.Half.text() + " (95 % confidence)"
		}
	}
	fmt.Fprintln(ui.stdout, text)
	if len(r.Over) > 0 {
		fmt.Fprintf(ui.stdout, "means are over %s\n", strings.Join(r.Over, ", "))
	}
	return nil
}

// text returns the mean of a group, with the standard deviation if there are several values.
func (s *groupSummary) text() string {
	switch {
	case s == nil:
		return "-"
	case s.N == 0 && s.Failed > 0:
		return "failed"
	case s.N == 0:
		return "none yet"
	case s.N == 1:
		return s.Mean.text()
	}
	return fmt.Sprintf("%s ± %s (%s)", s.Mean.text(), s.SD.text(), strconv.FormatInt(s.N, 10))
}
