package chart

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// TestAgreesWithOptuna compares importances and marginals of a grid with those that Optuna computes
// from the same trials. It needs a Python that has optuna and scikit-learn: python3, or the one
// named by MLF_OPTUNA_PYTHON.
func TestAgreesWithOptuna(t *testing.T) {
	python := cmp.Or(os.Getenv("MLF_OPTUNA_PYTHON"), "python3")
	if err := exec.CommandContext(t.Context(), python, "-c", "import optuna, sklearn").Run(); err != nil {
		t.Skip("no Optuna here; try: python3 -m venv env && env/bin/pip install optuna scikit-learn, and set MLF_OPTUNA_PYTHON=env/bin/python")
	}
	s := spaceOf(t, nil, numbers("epoch", "5 10 20 40 80"), numbers("batch", "32 64 128 256"),
		numbers("lr", "1e-4 3e-4 1e-3 3e-3 1e-2"),
		numbers("opt", "adam sgd rms"), numbers("seed", "1 2 3"))
	r := rand.New(rand.NewPCG(5, 6))
	type point struct {
		Params map[string]string `json:"params"`
		Value  float64           `json:"value"`
	}
	var points []point
	d := dataOf(t, s, func(_ int64, p map[string]string) trial {
		f := func(key string) float64 { return float64(number(space.Value{Text: p[key], Kind: space.Number})) }
		lr := math.Log10(f("lr") / 1e-3)
		value := 3*math.Exp(-f("epoch")/25) + 0.8*lr*lr +
			map[string]float64{"adam": 0, "rms": 0.2, "sgd": 0.5}[p["opt"]] + 0.1*r.NormFloat64()
		points = append(points, point{p, value})
		return trial{state: grid.Succeeded, value: value}
	})
	in, err := json.Marshal(points)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/importances.py")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Fanova, Ped map[string]float64
		Mean        map[string]map[string]float64
	}
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	v := viewOf(t, d, "")
	got := v.Importance(true)
	shares, best := map[string]float64{}, map[string]float64{}
	total := 0.0
	for _, a := range got.Axes {
		shares[a.Key], best[a.Key] = float64(a.Share), float64(a.Best)
		total += float64(a.Share)
	}
	t.Logf("fANOVA: got %.3v, Optuna %.3v; among the best: got %.3v, Optuna %.3v", shares, want.Fanova, best, want.Ped)
	for key, share := range want.Fanova {
		if diff := shares[key]/total - share; math.Abs(diff) > 0.1 {
			t.Errorf("share of %s: got %.3f, want about %.3f", key, shares[key]/total, share)
		}
	}
	if g, w := order(shares), order(want.Fanova); !slices.Equal(g[:3], w[:3]) {
		t.Errorf("order: got %v, want %v", g, w)
	}
	if g, w := order(best), order(want.Ped); !slices.Equal(g[:2], w[:2]) {
		t.Errorf("order among the best: got %v, want %v", g, w)
	}
	for _, m := range v.Marginals().Axes {
		for l, level := range m.Levels {
			if w := want.Mean[m.Key][level.Label]; math.Abs(float64(m.Mean[l])-w) > 1e-5 {
				t.Errorf("mean at %s=%s: got %v, want %v", m.Key, level.Label, m.Mean[l], w)
			}
		}
	}
}

// order lists keys by value, the greatest first.
func order(values map[string]float64) []string {
	var keys []string
	for key := range values {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(values[b], values[a]), cmp.Compare(a, b)) })
	return keys
}
