package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/monitor/chart"
	"mlfnode/projects"
)

// busyLoop is a program whose time is proportional to work and depends on how it works.
const busyLoop = `import sys
option = dict(a[2:].split("=") for a in sys.argv[1:])
n = int(option["work"]) * {"plain": 1, "careful": 2}[option["way"]] * 1500000
for _ in range(n):
    pass
`

// BenchmarkETA runs three real sweeps and compares, when a quarter, half and three quarters of the
// trials have ended, what the node says how long each goes on with the truth, and with the formula
// that looks at the number of trials alone. The first must be within 15 %.
func BenchmarkETA(b *testing.B) {
	s := open(b, false)
	small := b.TempDir()
	if err := os.WriteFile(filepath.Join(small, "busy.py"), []byte(busyLoop), 0o600); err != nil {
		b.Fatal(err)
	}
	root := filepath.Join("..", "..", "..", "projects")
	spread := grid.OrderSpread
	for _, c := range []struct {
		name string
		sub  api.Submit
	}{
		{"chainer, order spread", packed(b, s, filepath.Join(root, "chainer"), spread, "epoch=2:8:2", "seed=0:4")},
		{"bowcnn, order spread", packed(b, s, filepath.Join(root, "bowcnn"), spread, "seed=0:4")},
		{"slow axis first, by index",
			packed(b, s, small, grid.OrderIndex, "work=1:9", "way=plain,careful", "repeat=0:6")},
	} {
		b.Run(c.name, func(b *testing.B) {
			worst := 0.0
			for b.Loop() {
				fmt.Fprintf(os.Stderr, "\n%6s %10s %10s %10s %12s %12s\n", "done", "model s", "formula s", "true s",
					"model/true", "formula/true")
				for _, l := range looks(b, s.Client(), c.sub) {
					fmt.Fprintf(os.Stderr, "%5.0f%% %10.1f %10.1f %10.1f %12.2f %12.2f\n",
						100*l.share, l.model, l.formula, l.truth, l.model/l.truth, l.formula/l.truth)
					shown := l.model
					if math.IsNaN(shown) { // people are shown the formula then
						shown = l.formula
					}
					worst = max(worst, math.Abs(shown/l.truth-1))
				}
			}
			b.ReportMetric(100*worst, "worst-off-%")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// packed is a sweep of the default task of a project, or of the only Python program of a folder,
// with more values set.
func packed(b *testing.B, s *node.Session, dir string, order grid.Order, sets ...string) api.Submit {
	b.Helper()
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	sub := submission(b, 1, "python3", "-B", "busy.py")
	var axes []space.Axis
	if p, err := projects.Load(dir); err == nil {
		def, err := p.Task("")
		check(err)
		sub.Project, sub.Task, axes = p.Name, def.Task, def.Axes
	}
	var more []space.Axis
	for _, set := range sets {
		axis, err := space.ParseSet(set)
		check(err)
		more = append(more, axis)
	}
	axes, err := space.MergeSets(axes, more)
	check(err)
	sub.Space, err = space.New(axes, nil)
	check(err)
	files, err := projects.List(dir, projects.ListOptions{Setup: len(sub.Task.Setup) > 0})
	check(err)
	var bundle bytes.Buffer
	sub.Bundle, err = files.Pack(&bundle, projects.DefaultBundleLimit)
	check(err)
	check(s.Client().Bundles().Put(b.Context(), sub.Bundle, &bundle))
	sub.Task.Order, sub.Environ = order, os.Environ()
	return sub
}

// look is how long a sweep was said to go on when a share of its trials had ended, and how long it
// did.
type look struct{ share, model, formula, truth float64 }

// looks runs a sweep to its end.
func looks(b *testing.B, c *api.Client, sub api.Submit) []look {
	s, err := c.Sweeps().Submit(b.Context(), sub)
	if err != nil {
		b.Fatal(err)
	}
	var all []look
	var asked []time.Time
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	shares := []float64{0.25, 0.5, 0.75}
	for range tick.C {
		v, err := c.Sweeps().Get(b.Context(), s.Sweep)
		if err != nil {
			b.Fatal(err)
		}
		done := float64(v.Succeeded + v.Failed)
		if len(all) < len(shares) && done >= shares[len(all)]*float64(v.Count) {
			body, err := c.Trials().Chart(b.Context(), s.Sweep, "eta", nil)
			if err != nil {
				b.Fatal(err)
			}
			var e chart.ETA
			if err := json.Unmarshal(body, &e); err != nil {
				b.Fatal(err)
			}
			now := time.Now()
			ran := now.Sub(*v.Started).Seconds()
			all = append(all, look{share: shares[len(all)], model: float64(e.Seconds),
				formula: ran * (float64(v.Count) - done) / done})
			asked = append(asked, now)
		}
		if v.State == grid.SweepFinished {
			if v.Succeeded != v.Count {
				b.Fatalf("%s: %d of %d trials succeeded", s.Sweep, v.Succeeded, v.Count)
			}
			for i := range all {
				all[i].truth = v.Ended.Sub(asked[i]).Seconds()
			}
			return all
		}
	}
	return nil
}
