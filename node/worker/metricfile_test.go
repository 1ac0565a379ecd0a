package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/grid"
)

// curveTexts formats curves as text: for each curve, the steps with their values.
func curveTexts(t *testing.T, curves grid.Curves) map[string]string {
	t.Helper()
	text := map[string]string{}
	for name, c := range curves {
		points, err := c.Points()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var all []string
		for _, p := range points {
			all = append(all, fmt.Sprintf("%v:%v", p.Step, p.Value))
		}
		text[name] = strings.Join(all, " ")
	}
	return text
}

// TestCurves reads curves from the files that programs leave, and checks where each point belongs.
func TestCurves(t *testing.T) {
	log := []grid.Source{{Log: "result/log"}}
	loss := []grid.Source{{Regex: `(epoch (?P<epoch>\d+) )?loss=(?P<loss>\S+)`}}
	last := []grid.Source{{JSON: "stdout"}}
	for _, c := range []struct {
		name    string
		sources []grid.Source
		files   map[string]string
		want    map[string]string
	}{
		{"nothing", nil, nil, nil},
		{"one line", nil, map[string]string{"metrics": `{"a": 1}`}, nil},
		{
			"lines", nil, map[string]string{"metrics": "{\"a\": 1}\n{\"b\": 2}\n{\"a\": 3, \"b\": 4}\n"},
			map[string]string{"a": "1:1 3:3", "b": "2:2 3:4"},
		},
		{
			"no end of line", nil, map[string]string{"metrics": "{\"a\": 1}\n{\"a\": 2}"},
			map[string]string{"a": "1:1 2:2"},
		},
		{
			"steps", nil,
			map[string]string{
				"metrics": "{\"a\": 1, \"step\": 10, \"epoch\": 1}\n{\"a\": 2, \"step\": 20, \"epoch\": 2}\n",
			},
			map[string]string{"a": "10:1 20:2"},
		},
		{
			"epochs", nil,
			map[string]string{"metrics": "{\"a\": 1, \"epoch\": 0.5}\n{\"a\": 2, \"epoch\": 1.5, \"iteration\": 7}\n"},
			map[string]string{"a": "0.5:1 1.5:2"},
		},
		{
			"iterations", nil,
			map[string]string{"metrics": "{\"a\": 1, \"iteration\": 100}\n{\"a\": 2, \"iteration\": 200}\n"},
			map[string]string{"a": "100:1 200:2"},
		},
		{
			"lines without numbers", nil,
			map[string]string{"metrics": "{\"a\": 1}\n{\"x\": \"y\"}\nhello\n{\"a\": 2}\n"},
			map[string]string{"a": "1:1 2:2"},
		},
		{
			"not finite", nil, map[string]string{"metrics": "{\"a\": 1}\n{\"a\": NaN, \"b\": 1}\n{\"a\": 2}\n"},
			map[string]string{"a": "1:1 3:2"},
		},
		{
			"indented", nil, map[string]string{"metrics": "{\n  \"a\": 1\n}\n{\n  \"a\": 2\n}\n"},
			map[string]string{"a": "1:1 2:2"},
		},
		{"dicts", nil, map[string]string{"metrics": "{'a': 1}\n{'a': 2}\n"}, map[string]string{"a": "1:1 2:2"}},
		{
			"a byte order mark", nil, map[string]string{"metrics": "\ufeff{\"a\": 1}\n{\"a\": 2}\n"},
			map[string]string{"a": "1:1 2:2"},
		},
		{
			"UTF-16", nil,
			map[string]string{
				"metrics": "\xff\xfe{\x00\"\x00a\x00\"\x00:\x001\x00}\x00\n\x00{\x00\"\x00a\x00\"\x00:\x002\x00}\x00",
			},
			map[string]string{"a": "1:1 2:2"},
		},
		{
			"a list", log,
			map[string]string{
				"work/result/log": "[\n {\"epoch\": 1, \"acc\": 0.5},\n {\"epoch\": 2, \"acc\": 0.75}\n]\n",
			},
			map[string]string{"acc": "1:0.5 2:0.75"},
		},
		{
			"a list, torn", log,
			map[string]string{
				"work/result/log": "[\n{\"epoch\": 1, \"acc\": 0.5},\n{\"epoch\": 2, \"acc\": 0.75},\n{\"ep",
			},
			map[string]string{"acc": "1:0.5 2:0.75"},
		},
		{
			"a table", log,
			map[string]string{"work/result/log": "# made by x\nepoch,loss,acc\n1,0.5,\n1,,0.25\n2,0.25,\n2,,0.5\n3,0"},
			map[string]string{"loss": "1:0.5 2:0.25", "acc": "1:0.25 2:0.5"},
		},
		{
			"a table of one column", log, map[string]string{"work/result/log": "loss\n0.5\n0.25\n"},
			map[string]string{"loss": "1:0.5 2:0.25"},
		},
		{
			"a pattern", loss, map[string]string{"stdout": "start\nloss=3\rloss=2\rloss=1\n"},
			map[string]string{"loss": "1:3 2:2 3:1"},
		},
		{
			"a pattern with epochs", loss, map[string]string{"stdout": "epoch 5 loss=3\nepoch 6 loss=2\n"},
			map[string]string{"loss": "5:3 6:2"},
		},
		{
			"a pattern in lines that begin as a list", loss, map[string]string{"stdout": "[1] loss=3\n[2] loss=2\n"},
			map[string]string{"loss": "1:3 2:2"},
		},
		{
			"objects on stdout", last,
			map[string]string{"stdout": "\x1b[1m{\"a\": 1}\x1b[0m\nhello\n\r100%|###| {\"a\": 2}\n"},
			map[string]string{"a": "1:1 2:2"},
		},
		{
			"of two sources the later", loss,
			map[string]string{
				"stdout": "loss=3\nloss=2\n", "metrics": "{\"loss\": 9, \"step\": 1}\n{\"loss\": 8, \"step\": 2}\n",
			},
			map[string]string{"loss": "1:9 2:8"},
		},
		{"a folder", nil, map[string]string{"metrics/x": "1"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := attemptWithFiles(t, c.sources, c.files)
			for range 2 {
				if got := curveTexts(t, a.readMetrics(true).curves); len(got)+len(c.want) > 0 &&
					!cmp.Equal(got, c.want) {
					t.Errorf("got %v, want %v", got, c.want)
				}
			}
		})
	}
}

// TestCurvesAsTheyCome reads while the program writes, in pieces of any size: the result is the
// same as that of a single reading at the end.
func TestCurvesAsTheyCome(t *testing.T) {
	number := 0
	rapid.Check(t, func(r *rapid.T) {
		var text strings.Builder
		kind := rapid.SampledFrom([]string{"objects", "indented", "dicts", "table", "list"}).Draw(r, "kind")
		n := rapid.IntRange(2, 100).Draw(r, "lines")
		before := []string{}
		if kind != "table" && kind != "list" {
			text.WriteString(
				rapid.SampledFrom(
					[]string{"", "Loading data, please wait\n", "Starting\nloading data\n", "a,b.c\n7,8\n"},
				).Draw(r, "prologue"),
			)
		}
		for i := range n {
			a, b := rapid.IntRange(0, 9).Draw(r, "a"), rapid.IntRange(0, 9).Draw(r, "b")
			switch kind {
			case "objects":
				fmt.Fprintf(&text, "{\"a\": %d, \"b\": {\"c\": %d}}\n", a, b)
			case "indented":
				fmt.Fprintf(&text, "{\n\t\"a\": %d,\n\t\"b\": {\n\t\t\"c\": %d\n\t}\n}\n", a, b)
			case "dicts":
				fmt.Fprintf(&text, "{'a': %d, 'b.c': %d}\r\n", a, b)
			case "table":
				if i == 0 {
					text.WriteString("a,b.c\n")
				}
				fmt.Fprintf(&text, "%d,%d\n", a, b)
			case "list":
				text.WriteByte("[,"[min(i, 1)])
				fmt.Fprintf(&text, "{\"a\": %d,\n\"b.c\": %d}", a, b)
				before = append(before, text.String()+"]") // it is rewritten as a whole each time
			}
		}
		if kind == "list" {
			text.WriteByte(']')
		}
		number++
		folder := filepath.Join(t.TempDir(), fmt.Sprint(number))
		s, err := openSpool(folder)
		if err != nil {
			r.Fatal(err)
		}
		defer s.close()
		whole := text.String()
		if kind != "list" {
			for at := 0; at < len(whole); at += rapid.IntRange(1, 300).Draw(r, "piece") {
				before = append(before, whole[:at])
			}
		}
		live := &attempt{attemptSpec: attemptSpec{task: &grid.Task{}}, spool: s}
		write := func(text string) {
			if err := os.WriteFile(s.metrics, []byte(text), 0o600); err != nil {
				r.Fatal(err)
			}
		}
		for _, text := range before {
			write(text)
			live.readMetrics(false)
		}
		write(whole)
		atEnd := &attempt{attemptSpec: attemptSpec{task: &grid.Task{}}, spool: s}
		want := curveTexts(t, atEnd.readMetrics(true).curves)
		if len(want) != 2 {
			r.Fatalf("got %v of %q", want, whole)
		}
		if diff := cmp.Diff(want, curveTexts(t, live.readMetrics(true).curves)); diff != "" {
			r.Fatalf("read as it came, of %q:\n%s", whole, diff)
		}
	})
}

// TestCurvesAreBounded keeps 64 points of 32 metrics, whatever a program writes, and keeps a peak
// among many points.
func TestCurvesAreBounded(t *testing.T) {
	var text strings.Builder
	for i := range 3000 {
		value := i % 7
		if i == 1234 {
			value = 1000
		}
		fmt.Fprintf(&text, "{\"m00\": %d", value)
		for k := 1; k < 40; k++ {
			fmt.Fprintf(&text, ", \"m%02d\": %d", k, i)
		}
		text.WriteString("}\n")
	}
	a := attemptWithFiles(t, nil, map[string]string{"metrics": text.String()})
	curves := a.readMetrics(true).curves
	if len(curves) != grid.MaxCurves {
		t.Errorf("got %d curves, want %d", len(curves), grid.MaxCurves)
	}
	if got := curveTexts(t, curves)["m00"]; strings.Count(got, ":") > grid.MaxPoints ||
		!strings.Contains(got, " 1235:1000 ") {
		t.Errorf("got %s", got)
	}
	if packed, err := json.Marshal(curves); err != nil || len(packed) > 32<<10 {
		t.Errorf("curves take %d bytes of an event, %v", len(packed), err)
	}
}

// TestRewrittenCurves starts over if a file has become shorter.
func TestRewrittenCurves(t *testing.T) {
	a := attemptWithFiles(t, nil, map[string]string{"metrics": "{\"a\": 1}\n{\"a\": 2}\n{\"a\": 3}\n"})
	a.readMetrics(false)
	if err := os.WriteFile(a.spool.metrics, []byte("{\"a\": 5}\n{\"a\": 6}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := curveTexts(t, a.readMetrics(true).curves)["a"], "1:5 2:6"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestMetricsAsTheyCome reads while the program writes, at arbitrary places, and below a prologue
// that looks like a table, too: the values are those of the whole text, both while it is written
// and at the end.
func TestMetricsAsTheyCome(t *testing.T) {
	number := 0
	lines := map[string][]string{
		"objects":  {"{\"a\": %d}\n", "{\"b\": %d, \"c\": {\"d\": 1}}\n", "hello %d\n", "\n"},
		"prefixed": {"INFO {\"a\": %d}\n", "12%% |##| {\"b\": %d}\n", "INFO hello %d\n"},
		"indented": {"{\n  \"a\": %d,\n  \"b\": {\n    \"c\": 1}}\n", "{\n \"b\": %d\n}\n", "hello %d\n"},
		"dicts":    {"{'a': %d}\n", "{'b': %d, 'c': True}\n", "hello %d\n"},
		"table":    {"%d,1\n", "2,%d\n", "%d,\n"},
		"texts":    {"%d,x\n", "\"y, z\",%d\n", "\"{\",%d\n", "hello %d\n"},
		"mixed": {
			"{\"a\": %d}\n", "{'b': %d}\n", "INFO {\"c\": %d}\n", "INFO {'d': %d}\n", "%d,1\n", "%d\n", "hello, %d\n",
			"10%%|##|\r%d%%|####|\n", "{ %d\n",
		},
	}
	prologues := []string{
		"", "", "Loading data, please wait\n", "Starting\nloading data\n", "Starting\n", "Started\nall done\n",
		"# x\nloss\n0.5\n", "# x, y\n",
		"# x\n\nloss,acc\n1,2\n", "loss\n0.5\n", "loss,acc\n1,2\n3,\"x\ny\"\n", "\n \r\n",
		"  50%|## |\rloss,acc\r\n1,2\r\n", "{'z': 1}\n", "{ x\n", "hello\n",
	}
	rapid.Check(t, func(r *rapid.T) {
		kind := rapid.SampledFrom(
			[]string{"objects", "prefixed", "indented", "dicts", "table", "texts", "mixed"},
		).Draw(r, "kind")
		source := rapid.SampledFrom([]string{"own", "log", "stdout"}).Draw(r, "source")
		var b strings.Builder
		b.WriteString(rapid.SampledFrom(prologues).Draw(r, "prologue"))
		if kind == "table" || kind == "texts" {
			b.WriteString("a,b\n")
		}
		for range rapid.IntRange(0, 60).Draw(r, "lines") {
			line := rapid.SampledFrom(lines[kind]).Draw(r, "line")
			if strings.Contains(line, "%d") {
				line = fmt.Sprintf(line, rapid.IntRange(0, 999).Draw(r, "value"))
			}
			b.WriteString(line)
		}
		number++
		s, err := openSpool(filepath.Join(t.TempDir(), fmt.Sprint(number)))
		if err != nil {
			r.Fatal(err)
		}
		defer s.close()
		if err := os.MkdirAll(s.work, 0o700); err != nil {
			r.Fatal(err)
		}
		file, task, merge := s.metrics, &grid.Task{}, mergeAll
		switch source {
		case "log":
			file, merge = filepath.Join(s.work, "log"), mergeLog
			task.Metrics = []grid.Source{{Log: "log"}}
		case "stdout":
			file, merge = s.stdout.Name(), mergeLastObject
			task.Metrics = []grid.Source{{JSON: "stdout"}}
		}
		check := func(a *attempt, text string, ended bool) {
			want := grid.Metric{}
			merge(want, []byte(text))
			if got := a.readMetrics(ended).values; len(got)+len(want) > 0 && !cmp.Equal(texts(want), texts(got)) {
				r.Fatalf(
					"ended %t, %s in %s, of %q: got %v, want %v", ended, kind, source, text, texts(got), texts(want),
				)
			}
		}
		write := func(text string) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				r.Fatal(err)
			}
		}
		whole := b.String()
		live := &attempt{attemptSpec: attemptSpec{task: task}, spool: s}
		for at, read := 0, 0; at < len(whole); at += rapid.IntRange(1, 200).Draw(r, "piece") {
			end := strings.LastIndexByte(whole[:at], '\n') + 1
			if end < read || rapid.Bool().Draw(r, "within a line") {
				write(whole[:at])
				live.readMetrics(false)
				read = at
				continue
			}
			write(whole[:end])
			read = end
			if kind != "indented" { // which only occasionally is complete at the end of a line
				check(live, whole[:end], false)
			}
		}
		write(whole)
		check(live, whole, true)
		check(&attempt{attemptSpec: attemptSpec{task: task}, spool: s}, whole, true)
	})
}

// TestMetricsBelowAPrologue reads for the first time when a program has written only words that
// look like the header of a table.
func TestMetricsBelowAPrologue(t *testing.T) {
	objects := "{\"epoch\": 1, \"loss\": 0.5}\n{\"epoch\": 2, \"loss\": 0.25}\n"
	for _, c := range []struct{ prologue, then, want string }{
		{"Loading data, please wait\n", objects, "1:0.5 2:0.25"},
		{"Starting\nloading data\n", objects, "1:0.5 2:0.25"},
		{"epoch,loss\n7,8\n", objects, "1:0.5 2:0.25"},
		{"Loading data, please wait\n", strings.ReplaceAll(objects, "\"", "'"), "1:0.5 2:0.25"},
		{"{'epoch': 7, 'loss': 8}\n", objects, "1:0.5 2:0.25"},
		{"\n\n", "epoch,loss\n1,0.5\n2,0.25\n", "1:0.5 2:0.25"},
		{"\n\n", "[" + strings.ReplaceAll(objects, "\n", ",") + "{}]", "1:0.5 2:0.25"},
	} {
		for _, sources := range [][]grid.Source{nil, {{Log: "../metrics"}}} {
			a := attemptWithFiles(t, sources, map[string]string{"metrics": c.prologue})
			a.readMetrics(false)
			if err := os.WriteFile(a.spool.metrics, []byte(c.prologue+c.then), 0o600); err != nil {
				t.Fatal(err)
			}
			m := a.readMetrics(true)
			if got := curveTexts(t, m.curves)["loss"]; got != c.want || string(m.values["loss"]) != "0.25" {
				t.Errorf(
					"%q, then %q: got %v, curve %q; want loss 0.25, curve %q", c.prologue, c.then, texts(m.values), got,
					c.want,
				)
			}
		}
	}
}

// TestMetricsHoldLittle writes large values under names that had small ones: for a running attempt
// the agent keeps no more than can be reported, and at its end the reason says how many metrics
// were left out.
func TestMetricsHoldLittle(t *testing.T) {
	const names, length = 20, 512 << 10
	large := func(format string) string {
		var b strings.Builder
		for i := range names {
			fmt.Fprintf(&b, format, i, strings.Repeat("x", length))
		}
		return b.String()
	}
	var small, many strings.Builder
	for i := range names {
		fmt.Fprintf(&small, "{\"m%d\": 1}\n", i)
	}
	for i := range 20_000 {
		fmt.Fprintf(&many, "{\"some metric %d\": \"%s\"}\n", i, strings.Repeat("x", 100))
	}
	loss := "{\"loss\": 0.5}\n"
	log, regex := []grid.Source{{Log: "../metrics"}}, []grid.Source{
		{Regex: `loss=(?P<loss>\S+)|m0=(?P<m0>\S+)|m1=(?P<m1>\S+)`},
	}
	for _, c := range []struct {
		name    string
		sources []grid.Source
		file    string
		pieces  []string
		left    int
	}{
		{"known names", nil, "metrics", []string{loss + small.String(), large("{\"m%d\": \"%s\"}\n"), loss}, names},
		{
			"known names, smaller", nil, "metrics",
			[]string{
				loss + small.String(),
				strings.ReplaceAll(large("{\"m%d\": \"%s\"}\n"), strings.Repeat("x", length/10), "x"), loss,
			},
			0,
		},
		{"many names", nil, "metrics", []string{loss, many.String(), many.String()}, 19_439},
		{"an object", log, "metrics", []string{"{\"loss\": 0.5" + large(", \"m%d\": \"%s\"") + "}\n"}, names},
		{"a list", log, "metrics", []string{"[{\"loss\": 0.5, \"m\": \"" + strings.Repeat("x", length) + "\"}]"}, 1},
		{
			"a pattern", regex, "stdout",
			[]string{
				"loss=0.5\nm0=1\nm1=1\n",
				"m0=" + strings.Repeat("x", length) + "\nm1=" + strings.Repeat("x", length) + "\n",
			},
			2,
		},
		{"a table", nil, "metrics", []string{"loss,m0\n0.5,1\n", "0.5," + strings.Repeat("x", length) + "\n"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := attemptWithFiles(t, c.sources, map[string]string{c.file: ""})
			text := ""
			for _, piece := range c.pieces {
				text += piece
				if err := os.WriteFile(filepath.Join(a.spool.dir, c.file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if m := a.readMetrics(false).values; string(m["loss"]) != "0.5" {
					t.Errorf("loss is %s while the program runs, want 0.5", m["loss"])
				}
				files := []*metricFile{a.report.reader.own}
				for _, s := range a.report.reader.sources {
					files = append(files, s.files...)
				}
				for _, f := range files {
					if held := metricBytes(f.text.values) + metricBytes(f.lastValues); held > 2*maxMetrics {
						t.Errorf("%s: %d bytes are held, want at most %d", filepath.Base(f.path), held, 2*maxMetrics)
					}
				}
			}
			m := a.readMetrics(true)
			var want []string
			if c.left > 0 {
				want = []string{
					fmt.Sprintf(
						"%d of the metrics were left out, the largest first: one attempt has room for 64 KiB", c.left,
					),
				}
			}
			if diff := cmp.Diff(want, m.notes); diff != "" || string(m.values["loss"]) != "0.5" {
				t.Errorf("loss is %s, want 0.5; notes (-want +got):\n%s", m.values["loss"], diff)
			}
		})
	}
}

// TestRewrittenMetrics rewrites a file of metrics each time: with different values of the same
// length, with more, and with fewer.
func TestRewrittenMetrics(t *testing.T) {
	pad := strings.Repeat("x", 1000)
	for _, size := range []int{1, 200} { // in kilobytes
		a := attemptWithFiles(t, []grid.Source{{Log: "log"}}, map[string]string{"work/log": ""})
		for i, text := range []string{
			`{"a": 0.50}`, `{"a": 0.75}`, `{"a": 0.5, "b": 1}`, `{"a": 1}`, "a,b\n1,2\n", "a,b\n1,3\n",
		} {
			if text[0] == '{' {
				text += strings.Repeat("\n# "+pad, size)
			}
			for _, file := range []string{a.spool.metrics, filepath.Join(a.spool.work, "log")} {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				when := time.Now().Add(time.Duration(i) * time.Second)
				if err := os.Chtimes(file, when, when); err != nil {
					t.Fatal(err)
				}
			}
			want := grid.Metric{}
			mergeAll(want, []byte(text))
			if got := a.readMetrics(false).values; !cmp.Equal(texts(want), texts(got)) {
				t.Errorf("of %q: got %v, want %v", text[:12], texts(got), texts(want))
			}
		}
	}
}

// BenchmarkMetricsOfLongFiles reads the metrics of an attempt that has written much, after each
// further line.
func BenchmarkMetricsOfLongFiles(b *testing.B) {
	for name, sources := range map[string][]grid.Source{
		"own": nil, "log": {{Log: "../metrics"}}, "regex": {{Regex: `"loss": (?P<loss>\S+)`}},
		"json": {{JSON: "stdout"}},
	} {
		b.Run(name, func(b *testing.B) {
			s, err := openSpool(filepath.Join(b.TempDir(), "spool"))
			if err != nil {
				b.Fatal(err)
			}
			defer s.close()
			path := s.metrics
			if name == "regex" || name == "json" {
				path = s.stdout.Name()
			}
			file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				b.Fatal(err)
			}
			defer file.Close()
			line := func(i int) {
				fmt.Fprintf(file, "{\"step\": %d, \"loss\": %d.5, \"pad\": \"%s\"}\n", i, i, strings.Repeat("x", 80))
			}
			for i := range metricsBytes / 128 {
				line(i)
			}
			a := &attempt{attemptSpec: attemptSpec{task: &grid.Task{Metrics: sources}}, spool: s}
			a.readMetrics(false)
			for i := 0; b.Loop(); i++ {
				line(i)
				if m := a.readMetrics(false).values; string(m["step"]) != fmt.Sprint(i) && name != "regex" {
					b.Fatalf("got %v", texts(m))
				}
			}
		})
	}
}
