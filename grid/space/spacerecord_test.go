package space

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestRecordsThatContradictThemselves decodes spaces whose records contradict their axes and
// expressions: each is rejected, or returns an error for each of its points, immediately or later,
// and never panics.
func TestRecordsThatContradictThemselves(t *testing.T) {
	axis := `{"key":"a","values":[1,2,3,4]}`
	for name, record := range map[string]string{
		"more are kept than the expressions leave": `{"axes":[` + axis +
			`],"exclude":["a > 2"],"blocks":[{"lo":[0],"hi":[4],"kept":3}]}`,
		"fewer are kept": `{"axes":[` + axis + `],"exclude":["a > 2"],"blocks":[{"lo":[0],"hi":[4],"kept":1}]}`,
		"a second block is wrong": `{"axes":[` + axis +
			`],"exclude":["a > 2"],"blocks":[{"lo":[3],"hi":[4],"kept":1},` +
			`{"lo":[0],"hi":[3],"kept":1}]}`,
		"too many to look at":                 `{"axes":[{"key":"a","interval":[0,20000000]}],"exclude":["a > 2"],"blocks":[{"lo":[0],"hi":[20000000],"kept":3}]}`,
		"an expression that fails on a value": `{"axes":[{"key":"a","values":[1,"x"]}],"exclude":["a > 2"],"blocks":[{"lo":[0],"hi":[2],"kept":2}]}`,
		"with an axis behind them": `{"axes":[` + axis +
			`,{"key":"b","interval":[0,1000000000]}],"exclude":["a == 1"],` +
			`"blocks":[{"lo":[0,0],"hi":[4,1000000000],"kept":4}]}`,
	} {
		var s Space
		if err := json.Unmarshal([]byte(record), &s); err != nil {
			continue
		}
		if s.Count() == 0 {
			t.Errorf("%s: no point", name)
			continue
		}
		for range 2 {
			for _, i := range []int64{0, s.Count() - 1} {
				if p, err := s.At(i); err == nil {
					t.Errorf("%s: point %d is %v, want an error", name, i, p)
				} else if strings.Contains(err.Error(), "grid:") {
					t.Errorf("%s: %v is not for people", name, err)
				}
			}
		}
		if _, ok := s.Index(Params{{Key: "a", Value: Value{Text: "1", Kind: Number}}}); ok {
			t.Errorf("%s: the point of a space that contradicts itself was found", name)
		}
	}
}

// TestEmptyFormulaBesideAnother decodes axes as clients may send them, with empty lists of
// formulas that they do not use.
func TestEmptyFormulaBesideAnother(t *testing.T) {
	for axis, want := range map[string]string{
		`{"key":"x","linspace":[0,1,3],"logspace":[]}`:               "",
		`{"key":"x","interval":[0,3],"linspace":[],"logspace":[]}`:   "",
		`{"key":"x","interval":[]}`:                                  "x has no values",
		`{"key":"x","linspace":[0,1,3],"logspace":[0,1,3]}`:          "x has more than one kind of values",
		`{"key":"x","values":[1],"linspace":[0,1,3],"interval":[1]}`: "x has more than one kind of values",
	} {
		var a Axis
		if err := json.Unmarshal([]byte(axis), &a); err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := a.Check(); err != nil {
			got = err.Error()
		}
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", axis, got, want)
		}
	}
}
