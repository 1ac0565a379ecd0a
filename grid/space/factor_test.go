package space

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid/yamlfile"
)

func zipOf(rows int, keys ...string) Axis {
	a := Axis{Zip: make([]Axis, len(keys))}
	for c, key := range keys {
		a.Zip[c].Key = key
		for r := range rows {
			a.Zip[c].Values = append(a.Zip[c].Values, Value{Text: fmt.Sprint((r + c) / (c + 1)), Kind: Number})
		}
	}
	return a
}

// drawSpace draws a space of single axes, zipped axes, conditions and samples.
func drawSpace(rt *rapid.T) Space {
	var axes []Axis
	for i := range rapid.IntRange(1, 4).Draw(rt, "axes") {
		key := string(rune('a' + 3*i))
		if n := rapid.IntRange(1, 6).Draw(rt, "values"); rapid.Bool().Draw(rt, "zip") {
			axes = append(axes, zipOf(n, key, key+"1", key+"2"))
		} else {
			axes = append(axes, Axis{Key: key, Interval: []json.Number{"0", json.Number(fmt.Sprint(n))}})
		}
	}
	var exclude []string
	if rapid.Bool().Draw(rt, "exclude") {
		exclude = []string{rapid.SampledFrom(axes).Draw(rt, "excluded").keys()[0] + " == 2"}
	}
	s, err := New(axes, exclude)
	if err != nil {
		rt.Fatal(err)
	}
	if rapid.Bool().Draw(rt, "repeat") {
		axes = append(axes, Axis{Key: RepeatKey, Interval: []json.Number{"0", "3"}})
		if s, err = New(axes, exclude); err != nil {
			rt.Fatal(err)
		}
		if s, err = s.Sampled(Sample{Size: rapid.Int64Range(1, s.Count()/3).Draw(rt, "size"),
			Seed: rapid.Uint64().Draw(rt, "seed")}, true); err != nil {
			rt.Fatal(err)
		}
		return s
	}
	if rapid.Bool().Draw(rt, "sample") {
		if s, err = s.Sampled(Sample{Size: rapid.Int64Range(1, s.Count()).Draw(rt, "size"),
			Seed: rapid.Uint64().Draw(rt, "seed")}, false); err != nil {
			rt.Fatal(err)
		}
	}
	return s
}

// TestFactorsAgree checks that At, Index, Positions and the record agree, whatever a space consists
// of.
func TestFactorsAgree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSpace(rt)
		record, err := json.Marshal(s)
		if err != nil {
			rt.Fatal(err)
		}
		var read Space
		if err := json.Unmarshal(record, &read); err != nil {
			rt.Fatalf("%s: %v", record, err)
		}
		dest := make([][]int64, len(s.Keys()))
		for k := range dest {
			dest[k] = make([]int64, s.Count())
		}
		if err := read.Positions(0, s.Count(), dest); err != nil {
			rt.Fatal(err)
		}
		seen := map[string]bool{}
		for i := range s.Count() {
			p, err := s.At(i)
			if err != nil {
				rt.Fatal(err)
			}
			q, err := read.At(i)
			text := string(p.AppendJSON(nil))
			if err != nil || string(q.AppendJSON(nil)) != text {
				rt.Fatalf("%s: point %d is %s, then %s (%v)", record, i, text, q.AppendJSON(nil), err)
			}
			if at, ok := read.Index(p); !ok || at != i {
				rt.Fatalf("%s: the index of point %d, %s, is %d, %v", record, i, text, at, ok)
			}
			digits := make([]int64, len(dest))
			for k := range dest {
				digits[k] = dest[k][i]
				if v := read.Values()[k].At(dest[k][i]); v != p[k].Value {
					rt.Fatalf("%s: point %d is %s, but position %d has %s", record, i, text, k, v.Text)
				}
			}
			if at, ok := read.IndexAt(digits); !ok || at != i {
				rt.Fatalf("%s: the index of the positions of point %d is %d, %v", record, i, at, ok)
			}
			if seen[text] {
				rt.Fatalf("%s: the point %s is there twice", record, text)
			}
			seen[text] = true
		}
	})
}

// TestExtendZip adds rows to zipped axes and checks that existing rows are skipped.
func TestExtendZip(t *testing.T) {
	t.Parallel()
	zip := func(text string) Axis {
		a, err := ParseSet("zip=" + text)
		check(t, err)
		return a
	}
	s, err := New([]Axis{{Key: "k", Interval: []json.Number{"0", "2"}}, zip("{a: [1, 2], b: [x, y]}")}, nil)
	check(t, err)
	s, err = s.Extend([]Axis{zip("{a: [2, 3, 1], b: [y, z, y]}")})
	check(t, err)
	record, err := json.Marshal(s)
	check(t, err)
	check(t, json.Unmarshal(record, &s))
	var got []string
	for i := range s.Count() {
		p, err := s.At(i)
		check(t, err)
		got = append(got, fmt.Sprintf("%s%s%s", p[0].Value.Text, p[1].Value.Text, p[2].Value.Text))
		if at, ok := s.Index(p); !ok || at != i {
			t.Errorf("the index of point %d is %d, %v", i, at, ok)
		}
	}
	if want := "01x 02y 11x 12y 03z 01y 13z 11y"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	for axis, want := range map[string]string{
		"a=5":                        "a, b go together in this sweep. Add values of all of them, in this order: zip={…: […], …: […]}.",
		"zip={a: [1], b: [x]}":       "there is nothing new to run. Add a new value, or one that no exclude condition leaves out.",
		"zip={k: [1], a: [1]}":       "k, a don't go together in this sweep. Add values to each on its own.",
		"zip={a: [1], c: [x]}":       "the sweep has no axis c. Its axes are k, a, b. For another one start a new sweep.",
		"zip={a: [1, 2], b: [x, q]}": "",
	} {
		a, err := ParseSet(axis)
		check(t, err)
		if _, err = s.Extend([]Axis{a}); fmt.Sprint(err) != want && (err != nil || want != "") {
			t.Errorf("%s: got %v, want %s", axis, err, want)
		}
	}
}

// TestSampleIsCompleted draws a sample, then the rest: every point occurs once, and the first ones
// do not change.
func TestSampleIsCompleted(t *testing.T) {
	t.Parallel()
	whole, err := New([]Axis{{Key: "a", Interval: []json.Number{"0", "40"}},
		{Key: "b", Interval: []json.Number{"0", "25"}}}, []string{"a == b"})
	check(t, err)
	s, err := whole.Sampled(Sample{Size: 100, Seed: 7}, false)
	check(t, err)
	var first []string
	for i := range s.Count() {
		p, err := s.At(i)
		check(t, err)
		first = append(first, string(p.AppendJSON(nil)))
	}
	if _, err := s.Extend([]Axis{{Key: "a", Values: []Value{{Text: "99", Kind: Number}}}}); err == nil ||
		!strings.HasPrefix(err.Error(), "the sweep is a sample of 100 of 975 points") {
		t.Errorf("values are added to a sample: %v", err)
	}
	for _, more := range []int64{1, 50, 1 << 60} {
		s, err = s.Draw(more)
		check(t, err)
		record, err := json.Marshal(s)
		check(t, err)
		s = Space{}
		check(t, json.Unmarshal(record, &s))
	}
	seen := map[string]bool{}
	for i := range s.Count() {
		p, err := s.At(i)
		check(t, err)
		text := string(p.AppendJSON(nil))
		if i < 100 && text != first[i] {
			t.Errorf("point %d was %s and is %s", i, first[i], text)
		}
		seen[text] = true
	}
	if s.Count() != whole.Count() || len(seen) != int(whole.Count()) {
		t.Errorf("got %d points, %d different ones, want %d", s.Count(), len(seen), whole.Count())
	}
	if _, err := s.Draw(1); err == nil {
		t.Error("more points than there are were drawn")
	}
	s, err = s.Extend([]Axis{{Key: "a", Values: []Value{{Text: "99", Kind: Number}}}})
	check(t, err)
	if got := s.Count() - whole.Count(); got != 25 {
		t.Errorf("got %d points of a new value, want 25", got)
	}
}

// TestSampleRepeats draws points and repeats each of them equally often, including those drawn
// later.
func TestSampleRepeats(t *testing.T) {
	t.Parallel()
	axes := []Axis{{Key: "a", Interval: []json.Number{"0", "10"}}, {Key: "b", Interval: []json.Number{"0", "10"}}}
	once, err := New(axes, []string{"a == 1"})
	check(t, err)
	once, err = once.Sampled(Sample{Size: 6, Seed: 7}, false)
	check(t, err)
	s, err := New(append(axes, Axis{Key: RepeatKey, Interval: []json.Number{"0", "3"}}), []string{"a == 1"})
	check(t, err)
	s, err = s.Sampled(Sample{Size: 4, Seed: 7}, true)
	check(t, err)
	s, err = s.Draw(2)
	check(t, err)
	record, err := json.Marshal(s)
	check(t, err)
	check(t, json.Unmarshal(record, &s))
	if s.Count() != 18 {
		t.Fatalf("got %d trials of 6 points that run 3 times each", s.Count())
	}
	for i := range s.Count() {
		p, err := s.At(i)
		check(t, err)
		q, err := once.At(i / 3)
		check(t, err)
		want := string(append(q, Param{RepeatKey, Value{fmt.Sprint(i % 3), Number}}).AppendJSON(nil))
		if got := string(p.AppendJSON(nil)); got != want {
			t.Errorf("trial %d is %s, want %s", i, got, want)
		}
	}
	if _, err := s.Draw(1000); err != nil {
		t.Errorf("the rest: %v", err)
	}
	if sample, of, _ := s.Sample(); sample.Size != 6 || of != 90 {
		t.Errorf("the sample is %d of %d points, want 6 of 90", sample.Size, of)
	}
	for text, want := range map[string]string{"repeat == 1": "exclude names repeat", "a == 1": ""} {
		s, err := New(append(axes, Axis{Key: RepeatKey, Interval: []json.Number{"0", "3"}}), []string{text})
		check(t, err)
		if _, err := s.Sampled(Sample{Size: 4}, true); fmt.Sprint(err) != "<nil>" &&
			(want == "" || !strings.HasPrefix(err.Error(), want)) || err == nil && want != "" {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	bad := strings.Replace(string(record), `"each":3`, `"each":2`, 1)
	if err := json.Unmarshal([]byte(bad), &s); err == nil {
		t.Error("a record of other repeats than the axis has is read")
	}
}

// TestSampleStays pins the points that a seed draws, because later versions extend existing sweeps.
func TestSampleStays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n    int64
		seed uint64
		want string
	}{
		{10, 0, "5 2 3 1 7 9"},
		{1000, 1, "277 708 156 149 147 206"},
		{1 << 62, 1, "3550007742934653803 2363610972016852905 3929214010558497774 4385639129381516629 2396478408431705073 2612530831458913863"},
	} {
		s := newShuffle(c.n, c.seed)
		var got []string
		for i := range int64(6) {
			v := s.at(i)
			got = append(got, fmt.Sprint(v))
			if at := s.inverse(v); at != i {
				t.Errorf("shuffle of %d: place of %d is %d, want %d", c.n, v, at, i)
			}
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("shuffle of %d by %d: got %s, want %s", c.n, c.seed, text, c.want)
		}
	}
}

// TestSampleOfAll checks that a sample as large as the space is the space itself.
func TestSampleOfAll(t *testing.T) {
	t.Parallel()
	s, err := New([]Axis{{Key: "a", Interval: []json.Number{"0", "4"}}}, nil)
	check(t, err)
	for _, size := range []int64{4, 5} {
		all, err := s.Sampled(Sample{Size: size}, false)
		check(t, err)
		if _, _, ok := all.Sample(); ok || all.Count() != 4 {
			t.Errorf("a sample of %d of 4 points is one of %d", size, all.Count())
		}
	}
}

// TestOlderReadersRefuse checks that a program that knows none of these forms does not run other
// points: it finds an empty key, or a product that keeps a negative number of combinations.
func TestOlderReadersRefuse(t *testing.T) {
	t.Parallel()
	s, err := New([]Axis{{Key: "a", Interval: []json.Number{"0", "10"}}}, nil)
	check(t, err)
	s, err = s.Sampled(Sample{Size: 3}, false)
	check(t, err)
	record, err := json.Marshal(s)
	check(t, err)
	if !strings.Contains(string(record), `"kept":-`) {
		t.Errorf("the record of a sample is %s, want a negative count", record)
	}
	zip, err := New([]Axis{zipOf(3, "a", "b")}, nil)
	check(t, err)
	if record, err = json.Marshal(zip); err != nil || !strings.Contains(string(record), `{"axes":[{"key":"","zip":`) {
		t.Errorf("the record of a zip is %s, %v, want an empty key", record, err)
	}
}

// TestMillionPointsStayLazy creates large spaces of all kinds without materialising their points.
func TestMillionPointsStayLazy(t *testing.T) {
	million := Axis{Key: "a", Interval: []json.Number{"0", "1000000"}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := New([]Axis{million, zipOf(1000, "b", "c"), {Key: RepeatKey, Interval: []json.Number{"0", "1000000"}}},
		nil)
	check(t, err)
	s, err = s.Sampled(Sample{Size: 1 << 40, Seed: 3}, false)
	check(t, err)
	record, err := json.Marshal(s)
	check(t, err)
	for i := range int64(1000) {
		p, err := s.At(i << 20)
		check(t, err)
		if at, ok := s.Index(p); !ok || at != i<<20 {
			t.Fatalf("the index of point %d is %d, %v", i<<20, at, ok)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 || len(record) > 64<<10 {
		t.Errorf("%d bytes were allocated, the record has %d bytes: want some megabytes, and kilobytes", got,
			len(record))
	}
}

func TestBadTables(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"p.csv", "", "p.csv:1:1: the file has no points. Write a point on each line, in CSV below a line with the names of the parameters."},
		{"p.csv", "lr\n", "p.csv:1:1: the file has no points. Write a point on each line, in CSV below a line with the names of the parameters."},
		{"p.csv", "lr,b\n1\n", "p.csv:2:1: the line has 1 cells, and there are 2 parameters. Give each line as many cells as the first one, which names the parameters."},
		{"p.csv", "lr,lr\n1,2\n", "p.csv:1:1: the first line names lr twice. Keep one of them."},
		{"p.csv", "lr,b\n1,2\n3,4\n1,2\n",
			"p.csv:1:1: the points 1 and 3 of lr, b are the same. Keep one of them: it would run the same point again. To repeat points, use repeat."},
		{"p.csv", "lr,b c\n1,2\n",
			`p.csv:1:1: the key "b c" contains white space. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'.`},
		{"p.csv", "lr,b\n1,\"2\n",
			`p.csv:2:1: invalid CSV: extraneous or missing " in quoted-field. Put quotes around the whole cell, and double those in it.`},
		{"p.jsonl", "{\"a\": 1}\n[1]\n",
			`p.jsonl:2:1: invalid point: the line is not an object. Write an object like {"lr": 0.1, "opt": "sgd"} on each line.`},
		{"p.jsonl", "{\"a\": {}}\n",
			`p.jsonl:1:1: invalid point: value {} is not a string, number, flag or list. Write an object like {"lr": 0.1, "opt": "sgd"} on each line.`},
		{"p.jsonl", "{\"a\": 1, \"a\": 2}\n", "p.jsonl:1:1: a point has a twice. Keep one of them."},
		{"p.jsonl", "{\"a\": 1} x\n",
			`p.jsonl:1:1: invalid point: text follows the object. Write an object like {"lr": 0.1, "opt": "sgd"} on each line.`},
		{"p.jsonl", "{\"a\": [[1]]}\n",
			`p.jsonl:1:1: invalid point: value [[1]] has a list in a list. Write an object like {"lr": 0.1, "opt": "sgd"} on each line.`},
		{"p.csv", "k\n" + strings.Repeat("1\n", MaxRows+1),
			fmt.Sprintf("p.csv:%d:1: the file has more than 100000 points. Use a grid, or several sweeps.", MaxRows+2)},
		{"p.csv", strings.Repeat("x", yamlfile.MaxFile+1),
			"p.csv:1:1: " + yamlfile.TooLong("Split it into several sweeps.").Error()},
		{"p.yml", "zip: {a: [1, 2], b: [1]}",
			"p.yml:1:6: a has 2 values and b has 1 value, but they go together. Give all of them the same number of values: the first ones form one point, the second ones the next."},
		{"p.yml", "a: 1\nzip: {a: [1, 2], b: [1, 2]}",
			"p.yml:2:7: the key a is given twice, first in line 1. Put all its values in one list."},
		{"p.yml", "zip: {a: 1, b: 2}\nzip: {c: 1, d: 2}",
			"p.yml:2:1: the key zip is given twice, first in line 1. Put all its values in one list."},
		{"p.yml", "zip: {a: {start: 0, end: 1e9}, b: 1}",
			"p.yml:1:6: a has 1000000000 values, and axes that go together have at most 100000. Use a grid, or several sweeps."},
		{"p.yml", "zip: {a: [1, 1], b: [2, 2]}",
			"p.yml:1:6: the points 1 and 2 of a, b are the same. Keep one of them: it would run the same point again. To repeat points, use repeat."},
	} {
		if _, err := ParseParameters(c.name, []byte(c.text)); fmt.Sprint(err) != c.want {
			t.Errorf("%s %.40q:\ngot  %v\nwant %s", c.name, c.text, err, c.want)
		}
	}
}

// TestBoundedZips checks that input is rejected before anything is allocated if it would take far
// more memory than its text.
func TestBoundedZips(t *testing.T) {
	var zips, twice, keys, sparse strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&zips, `,{"key":"a%d","interval":[0,100000]}`, i)
		fmt.Fprintf(&keys, `,{"zip":[{"key":"b%d","values":[1]},{"key":"c%d","values":[1]}]}`, i, i)
	}
	for i := range 2 {
		twice.WriteString(`,{"zip":[`)
		for k := range 300 {
			fmt.Fprintf(&twice, `{"key":"a%d.%d","interval":[0,2000]},`, i, k)
		}
		fmt.Fprintf(&twice, `{"key":"b%d","interval":[0,2000]}]}`, i)
	}
	sparse.WriteString(strings.Repeat("{}\n", MaxRows-1000))
	for i := range 1000 {
		fmt.Fprintf(&sparse, "{\"k%d\":%d}\n", i, i)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cells := "axes that go together have more than 1000000 values in all. Put them into a file of the project, and go over its lines."
	for _, c := range []struct{ axes, want string }{
		{`[{"zip":[` + zips.String()[1:] + `]}]`, cells},
		{`[{"zip":[{"key":"x","values":[1]}` + zips.String() +
			`]}]`, "the space has 1001 axes, more than 1000. Turn those with one value into constants in a file."},
		{"[" + twice.String()[1:] + "]", cells},
		{"[" + keys.String()[1:] +
			"]", "the space has 1002 axes, more than 1000. Turn those with one value into constants in a file."},
		{`[{"zip":[{"key":"a","values":[]},{"key":"b","values":[]}]}]`,
			"a has no values. Give it one value or more, or leave the key out."},
		{`[{"zip":[{"key":"a","values":[]}]}]`, "a has no values. Give it one value or more, or leave the key out."},
		{`[{"zip":[]}]`, "a zip may contain only axes. Write zip: {lr: [0.1, 0.01], batch: [32, 64]}."},
		{`[{"key":"a","zip":[{"key":"a","values":[1]}]}]`,
			"a zip may contain only axes. Write zip: {lr: [0.1, 0.01], batch: [32, 64]}."},
	} {
		var axes []Axis
		check(t, json.Unmarshal([]byte(c.axes), &axes))
		if _, err := New(axes, []string{"a == 1"}); fmt.Sprint(err) != c.want {
			t.Errorf("%.60s: got %v, want %s", c.axes, err, c.want)
		}
		var s Space
		if err := json.Unmarshal([]byte(`{"axes":`+c.axes+`}`), &s); fmt.Sprint(err) != "read space: "+c.want {
			t.Errorf("%.60s: got %v of the record, want %s", c.axes, err, c.want)
		}
	}
	_, err := ParseParameters("p.jsonl", []byte(sparse.String()))
	if err == nil || !strings.Contains(err.Error(), cells) {
		t.Errorf("sparse points: got %.100v, want %s", err, cells)
	}
	s, err := New([]Axis{zipOf(2, "a", "b")}, nil)
	check(t, err)
	many := Axis{Zip: []Axis{{Key: "a", Interval: []json.Number{"0", "100000"}},
		{Key: "b", Interval: []json.Number{"1", "100001"}}}}
	if _, err := s.Extend([]Axis{many}); err == nil ||
		!strings.Contains(err.Error(), "go together have at most 100000") {
		t.Errorf("rows are added to %d: got %v", MaxRows, err)
	}
	var deep Value
	if err := deep.UnmarshalJSON([]byte(strings.Repeat("[", 9000) + strings.Repeat("]", 9000))); err == nil ||
		len(err.Error()) > 100 {
		t.Errorf("a deep list: got %.200v", err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 2<<30 {
		t.Errorf("%d bytes were allocated, want fewer than 2 GiB", got)
	}
}

// TestZipOfOne checks that a zip of one axis is that axis, which may be long and is extended by a
// formula.
func TestZipOfOne(t *testing.T) {
	t.Parallel()
	read := []Axis{{Zip: []Axis{{Key: "a", Interval: []json.Number{"0", "2"}}}}}
	set, err := ParseSet("zip={a: {start: 0, end: 2}}")
	check(t, err)
	file, err := ParseParameters("p.yml", []byte("zip: {a: {start: 0, end: 2}}"))
	check(t, err)
	for _, axes := range [][]Axis{read, {set}, file} {
		s, err := New(axes, nil)
		check(t, err)
		if HasZip(s) || slices.ContainsFunc(s.Values(), (*Values).HasLists) {
			t.Errorf("%v goes together", axes)
		}
		for _, more := range []Axis{{Key: "a", Interval: []json.Number{"0", "1000000000000"}},
			{Zip: []Axis{{Key: "a", Interval: []json.Number{"0", "1000000000000"}}}}} {
			long, err := s.Extend([]Axis{more})
			check(t, err)
			if got := long.Count(); got != 1e12 {
				t.Errorf("got %d points, want 1e12", got)
			}
		}
	}
	if _, err := ParseSet("zip={a: [1, 1]}"); err == nil || !strings.Contains(err.Error(), "a has the value 1 twice") {
		t.Errorf("a value twice: got %v", err)
	}
}

// TestEmptyCells checks that empty cells leave out their options, including the first cell of a
// line.
func TestEmptyCells(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"p.csv": "a,b,c\n1,, 3\n,2,\n", "p.tsv": "a\tb\tc\n1\t\t 3\n\t2\t\n"} {
		axes, err := ParseParameters(name, []byte(text))
		check(t, err)
		got, err := json.Marshal(axes)
		check(t, err)
		if want := `[{"key":"","zip":[{"key":"a","values":[1,false]},{"key":"b","values":[false,2]},{"key":"c","values":[3,false]}]}]`; string(got) != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// TestMergeZip replaces zipped axes with values of --set.
func TestMergeZip(t *testing.T) {
	t.Parallel()
	file, err := ParseParameters("p.yml", []byte("a: 1\nzip: {b: [1, 2], c: [3, 4]}\nd: 5"))
	check(t, err)
	for sets, want := range map[string]string{
		"zip={b: [9], c: [8]}":       "1985",
		"zip={a: [7], d: [6]}":       "7613",
		"b=1":                        "--set gives b, but b, c go together. Give values of all of them: zip={…: […], …: […]}.",
		"zip={b: [9], c: [8]} b=2":   "--set gives b twice. Give all its values at once, like b=1,2,3.",
		"zip={x: [9], y: [8]} a=2,3": "213598",
	} {
		var axes []Axis
		for _, text := range strings.SplitAfter(sets, "} ") {
			a, err := ParseSet(strings.TrimSpace(text))
			check(t, err)
			axes = append(axes, a)
		}
		got := ""
		merged, err := MergeSets(file, axes)
		if err == nil {
			s, err := New(merged, nil)
			check(t, err)
			p, err := s.At(0)
			check(t, err)
			for _, q := range p {
				got += q.Value.Text
			}
		} else {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", sets, got, want)
		}
	}
}
