package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// attemptWithFiles returns an attempt whose program has left these files in the spool.
func attemptWithFiles(t *testing.T, sources []grid.Source, files map[string]string) *attempt {
	t.Helper()
	s, err := openSpool(filepath.Join(t.TempDir(), "1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	for name, text := range files {
		path := filepath.Join(s.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &attempt{attemptSpec: attemptSpec{task: &grid.Task{Metrics: sources}}, spool: s}
}

func TestMetrics(t *testing.T) {
	log := []grid.Source{{Log: "result/log"}}
	last := []grid.Source{{JSON: "stdout"}}
	loss := []grid.Source{{Regex: `loss=(?P<loss>\S+)( acc=(?P<acc>\S+))?`}}
	long := strings.Repeat("x", longestLine+1)
	for _, c := range []struct {
		name    string
		sources []grid.Source
		files   map[string]string
		want    string // as a JSON object; "" means none
	}{
		{"nothing", nil, nil, ""},
		{"lines", nil, map[string]string{"metrics": `{"a": 1}` + "\n" + `{"b": 2, "a": 3}` + "\n"}, `{"a": 3, "b": 2}`},
		{"no end of line", nil, map[string]string{"metrics": `{"a": 1}`}, `{"a": 1}`},
		{"torn last line", nil, map[string]string{"metrics": "{\"a\": 1}\n{\"a\": 2, \"b\": 1"}, `{"a": 1}`},
		{"torn between lines", nil, map[string]string{"metrics": "{\"a\": 1}\n{\"a\n{\"b\": 2}\n"}, `{"a": 1, "b": 2}`},
		{
			"Windows' ends of lines", nil, map[string]string{"metrics": "{\"a\": 1}\r\n{\"b\": 2}\r\n"},
			`{"a": 1, "b": 2}`,
		},
		{"empty lines", nil, map[string]string{"metrics": "\n\n{\"a\": 1}\n\n"}, `{"a": 1}`},
		{
			"numbers keep their text", nil, map[string]string{"metrics": `{"a": 1e-3, "b": 1.50, "c": -0}`},
			`{"a": 1e-3, "b": 1.50, "c": -0}`,
		},
		{"not finite", nil, map[string]string{"metrics": `{"a": NaN, "b": Infinity, "c": -Infinity, "d": 1}`},
			`{"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 1}`},
		{"such words in strings", nil, map[string]string{"metrics": `{"NaN": "a NaN, \"Infinity\"", "b": NaN}`},
			`{"NaN": "a NaN, \"Infinity\"", "b": "NaN"}`},
		{"nested", nil, map[string]string{
			"metrics": `{"a": 1, "b": {"c": NaN, "d": {"e": 2}}, "d": [1, 2], "e": null, "f": true}`,
		},
			`{"a": 1, "b.c": "NaN", "b.d.e": 2, "f": true}`},
		{"nan and inf in any spelling", nil, map[string]string{
			"metrics": `{"a": nan, "b": -NaN, "c": inf, "d": -Inf, "e": +infinity, "f": -NAN(ind), "g": 1}`,
		},
			`{"a": "nan", "b": "-NaN", "c": "inf", "d": "-Inf", "e": "+infinity", "f": "-NAN(ind)", "g": 1}`},
		{"bad values", nil, map[string]string{
			"metrics": `{"a": 0.25, "b": tensor(0.5, device='x'), "c": undefined, "d": None, "e": 0x10, "f": 1_000, "g": [1, {"}": 2}], "h": "x" + 1, "i": {"j": nonsense, "k": 3}, "l": .5, "m": +1, "n": 1., "z": 1}`,
		},
			`{"a": 0.25, "i.k": 3, "l": 0.5, "m": 1, "n": 1, "z": 1}`},
		{
			"a bad value at the end of a line", nil, map[string]string{"metrics": "{\"a\": oops\n, \"b\": 1\n}\n"},
			`{"b": 1}`,
		},
		{"numbers as text", nil, map[string]string{
			"metrics": `{"a": "0.25", "b": " 1e-3 ", "c": "007", "d": "12e45678", "e": "0.5x", "f": "", "g": "true"}`,
		},
			`{"a": 0.25, "b": 1e-3, "c": "007", "d": "12e45678", "e": "0.5x", "f": "", "g": "true"}`},
		{"numbers as text, as programs print them", nil, map[string]string{
			"metrics": `{"a": "+3", "b": ".5", "c": "5.", "d": "-.25e1", "e": "0x1f", "f": "1,5", "g": "12 ms", "h": "1_0"}`,
		},
			`{"a": 3, "b": 0.5, "c": 5, "d": -2.5, "e": "0x1f", "f": "1,5", "g": "12 ms", "h": "1_0"}`},
		{"numbers beyond all", nil, map[string]string{
			"metrics": `{"a": 1e400, "b": -1e999, "c": 1e-400, "d": 123456789012345678901234567890}`,
		},
			`{"a": "+Inf", "b": "-Inf", "c": 1e-400, "d": 123456789012345678901234567890}`},
		{"nan and inf of C libraries", nil, map[string]string{
			"metrics": `{"a": 1.#QNAN, "b": -1.#IND, "c": 1.#INF, "d": nan(0x8000), "e": NaN(), "f": nan(1)x}`,
		},
			`{"a": "1.#QNAN", "b": "-1.#IND", "c": "1.#INF", "d": "nan(0x8000)", "e": "NaN()"}`},
		{"numbers of NumPy and PyTorch", nil, map[string]string{
			"metrics": "{'a': np.float64(0.5), 'b': tensor(0.25, device='cuda:0'), 'c': array(3, dtype=int64), 'd': np.float32(nan), 'e': Decimal('1.5'), 'f': np.True_, 'g': f(1), 'h': array([1, 2])}\n",
		},
			`{"a": 0.5, "b": 0.25, "c": 3, "d": "nan", "e": 1.5}`},
		{
			"UTF-16", nil, map[string]string{"metrics": "\xff\xfe{\x00\"\x00a\x00\"\x00:\x001\x00}\x00\n\x00"},
			`{"a": 1}`,
		},
		{
			"UTF-16, the high byte first", nil,
			map[string]string{"metrics": "\xfe\xff\x00{\x00\"\x00a\x00\"\x00:\x001\x00}"}, `{"a": 1}`,
		},
		{"a byte order mark", nil, map[string]string{"metrics": "\ufeff{\"a\": 1}\n"}, `{"a": 1}`},
		{
			"indented", nil, map[string]string{"metrics": "{\n  \"a\": 1,\n  \"b\": {\n    \"c\": 2\n  }\n}\n"},
			`{"a": 1, "b.c": 2}`,
		},
		{
			"several, indented, with Windows' ends of lines", nil,
			map[string]string{"metrics": "{\r\n\t\"a\": 1\r\n}\r\n{\r\n\t\"b\": 2\r\n}\r\n"}, `{"a": 1, "b": 2}`,
		},
		{
			"a list of objects", nil, map[string]string{"metrics": "[\n  {\"a\": 1},\n  {\"a\": 2, \"b\": 3}\n]\n"},
			`{"a": 2, "b": 3}`,
		},
		{"two objects on a line", nil, map[string]string{"metrics": `{"a": 1} {"b": 2}`}, `{"a": 1, "b": 2}`},
		{
			"dicts of Python", nil,
			map[string]string{"metrics": "{'a': 0.5, 'it\\'s': nan, \"b\": True, 'c': None, 'd': {'e': 'x, y'}}\n"},
			`{"a": 0.5, "it's": "nan", "b": true, "d.e": "x, y"}`,
		},
		{"dicts beside JSON", nil, map[string]string{"metrics": "{'a': 1}\n{\"b\": 2}\n"}, `{"b": 2}`},
		{
			"behind a progress bar", nil, map[string]string{"metrics": "\r 50%|###  |\r100%|#####|\r{\"a\": 1}\n"},
			`{"a": 1}`,
		},
		{"a table", nil, map[string]string{"metrics": "epoch,acc\n1,0.5\n2,0.25\n"}, `{"epoch": 2, "acc": 0.25}`},
		{
			"an object that never ends", nil, map[string]string{"metrics": "{\"a\": 1}\n{\n\"b\": {\n{\n\"c\": [\n"},
			`{"a": 1}`,
		},
		{
			"wrong types", nil,
			map[string]string{"metrics": "[1, 2]\n3\n\"text\"\nnull\ntrue\nplain text\n{\"a\": 1}\n"}, `{"a": 1}`,
		},
		{"not UTF-8", nil, map[string]string{"metrics": "{\"a\": \"x\xff\"}\n"}, `{"a": "x�"}`},
		{"a NUL", nil, map[string]string{"metrics": "\x00\x00{\"a\": 1}\n{\"b\": 2}\n"}, `{"b": 2}`},
		{"a folder", nil, map[string]string{"metrics/x": "1"}, ""},

		{
			"log as a list", log,
			map[string]string{"work/result/log": `[{"epoch": 1, "acc": 0.5}, {"epoch": 2, "acc": NaN}]`},
			`{"epoch": 2, "acc": "NaN"}`,
		},
		{
			"log over many lines", log,
			map[string]string{"work/result/log": "[\n  {\n    \"epoch\": 1\n  },\n  {\n    \"epoch\": 2\n  }\n]\n"},
			`{"epoch": 2}`,
		},
		{
			"log as lines", log, map[string]string{"work/result/log": "{\"epoch\": 1, \"x\": 1}\n{\"epoch\": 2}\n"},
			`{"epoch": 2}`,
		},
		{"log as lines, torn", log, map[string]string{"work/result/log": "{\"epoch\": 1}\n{\"epo"}, `{"epoch": 1}`},
		{"log as a list, torn", log, map[string]string{"work/result/log": `[{"epoch": 1}, {"epo`}, ""},
		{"log as an empty list", log, map[string]string{"work/result/log": `[]`}, ""},
		{"log as a list of numbers", log, map[string]string{"work/result/log": `[1, 2]`}, ""},
		{"log of one indented object", log, map[string]string{
			"work/result/log": "{\n    \"eval_loss\": 0.25,\n    \"grad\": nan,\n    \"model\": {\n        \"size\": 3\n    }\n}\n",
		},
			`{"eval_loss": 0.25, "grad": "nan", "model.size": 3}`},
		{
			"log of two indented objects", log,
			map[string]string{"work/result/log": "{\n\"a\": 1\n}\n{\n\"a\": 2\n}\n"}, `{"a": 2}`,
		},
		{"log with a byte order mark", log, map[string]string{"work/result/log": "\ufeff[{\"a\": 1}]"}, `{"a": 1}`},
		{
			"log of a list with bad values", log,
			map[string]string{"work/result/log": `[{"a": 1}, {"a": nan, "b": [1, "]"], "c": -inf, "d": 2}]`},
			`{"a": "nan", "c": "-inf", "d": 2}`,
		},
		{
			"log of dicts", log, map[string]string{"work/result/log": "{'loss': 0.5}\n{'loss': 0.25, 'epoch': 2}\n"},
			`{"loss": 0.25, "epoch": 2}`,
		},
		{
			"log that starts with words", log, map[string]string{"work/result/log": "# my log\n{\"a\": 1}\nbye\n"},
			`{"a": 1}`,
		},
		{
			"CSV", log, map[string]string{"work/result/log": "epoch,accuracy\n1,0.1\n2,0.4\n"},
			`{"epoch": 2, "accuracy": 0.4}`,
		},
		{"CSV with empty fields", log, map[string]string{
			"work/result/log": "epoch,step,train_loss,val_loss\n0,9,0.5,\n0,9,,0.75\n1,19,0.25,\n",
		},
			`{"epoch": 1, "step": 19, "train_loss": 0.25, "val_loss": 0.75}`},
		{
			"CSV with semicolons", log,
			map[string]string{"work/result/log": "\ufeff\"acc\";loss;phase\r\n0,5;nan;train\r\n0,25;-inf;test\r\n"},
			`{"acc": 0.25, "loss": "-inf", "phase": "test"}`,
		},
		{"CSV with tabs", log, map[string]string{"work/result/log": "# a\tb c\n1\t2\n3\t4\n"}, `{"a": 3, "b c": 4}`},
		{
			"CSV with row names", log, map[string]string{"work/result/log": ",epoch,loss\n0,1,0.5\n1,2,0.25\n"},
			`{"epoch": 2, "loss": 0.25}`,
		},
		{
			"CSV with row names, quoted", log,
			map[string]string{"work/result/log": "\"\",\"epoch\",\"loss\"\n\"1\",1,0.5\n"}, `{"epoch": 1, "loss": 0.5}`,
		},
		{
			"CSV below comments", log, map[string]string{"work/result/log": "# made by x\n#\nepoch,loss\n1,0.5\n"},
			`{"epoch": 1, "loss": 0.5}`,
		},
		{
			"CSV of UTF-16", log,
			map[string]string{"work/result/log": "\xff\xfea\x00,\x00b\x00\n\x001\x00,\x002\x00\n\x00"},
			`{"a": 1, "b": 2}`,
		},
		{"CSV, torn", log, map[string]string{"work/result/log": "a,b,c\n1,2,3\n4,5"}, `{"a": 1, "b": 2, "c": 3}`},
		{"CSV of one column", log, map[string]string{"work/result/log": "loss\n0.5\n0.25\n"}, `{"loss": 0.25}`},
		{"CSV without a header", log, map[string]string{"work/result/log": "1,0.5\n2,0.25\n"}, ""},
		{"CSV without a row", log, map[string]string{"work/result/log": "a,b\n"}, ""},
		{"text", log, map[string]string{"work/result/log": "it went well\nnothing more\n"}, ""},
		{"empty log", log, map[string]string{"work/result/log": ""}, ""},
		{"missing log", log, nil, ""},

		{
			"regex", loss, map[string]string{"stdout": "loss=0.5 acc=0.1\nother\nloss=0.25\n"},
			`{"loss": 0.25, "acc": 0.1}`,
		},
		{"regex twice in a line", loss, map[string]string{"stdout": "loss=3 then loss=2\n"}, `{"loss": 2}`},
		{"regex on stderr", loss, map[string]string{"stdout": "loss=1\n", "stderr": "loss=2\n"}, `{"loss": 2}`},
		{"regex without a match", loss, map[string]string{"stdout": "nothing\n"}, ""},
		{
			"regex on a progress bar", loss, map[string]string{"stdout": "1% loss=3\r2% loss=2\r3% loss=1\rdone"},
			`{"loss": 1}`,
		},
		{
			"regex behind a huge line", loss, map[string]string{"stdout": "loss=3\n" + long + "\nloss=1\n"},
			`{"loss": 1}`,
		},
		{"regex, torn", loss, map[string]string{"stdout": "loss=0.5\nlos"}, `{"loss": 0.5}`},
		{"regex, not numbers", loss, map[string]string{"stdout": "loss=nan acc=.5\n"}, `{"loss": "nan", "acc": 0.5}`},
		{"regex, words", loss, map[string]string{"stdout": "loss=high acc=0x10\n"}, `{"loss": "high", "acc": "0x10"}`},
		{
			"regex, punctuation", loss,
			map[string]string{"stdout": "(loss=0.5, x) loss=0.25; acc\n[loss=0.125 acc=nan]\n"},
			`{"loss": 0.125, "acc": "nan"}`,
		},
		{
			"regex, words with punctuation", loss, map[string]string{"stdout": "loss=high, acc=95%)\n"},
			`{"loss": "high,", "acc": "95%)"}`,
		},
		{
			"regex on colours", loss,
			map[string]string{"stdout": "\x1b[2K\x1b[1;32mloss=\x1b[0m\x1b[38;5;9m0.5\x1b[0m acc=0.25\x1b[m\n"},
			`{"loss": 0.5, "acc": 0.25}`,
		},
		{
			"last object of stdout, in colours", last,
			map[string]string{"stdout": "\x1b[32m{\"a\": \x1b[1m1\x1b[0m}\x1b[0m\n"}, `{"a": 1}`,
		},
		{"a bad regex", []grid.Source{{Regex: "("}}, map[string]string{"stdout": "x\n"}, ""},

		{"last object of stdout", last, map[string]string{"stdout": "{\"a\": 1}\n{\"b\": 2}\nbye\n\n"}, `{"b": 2}`},
		{"last object of stdout, torn", last, map[string]string{"stdout": "{\"a\": 1}\n{\"b\": "}, `{"a": 1}`},
		{"last object of stdout, indented", last, map[string]string{"stdout": "  {\"a\": 1}  \n[1]\n"}, `{"a": 1}`},
		{
			"last object of stdout, over lines", last,
			map[string]string{
				"stdout": "{\"a\": 1}\n{\n  \"b\": {\n    \"c\": 2\n  },\n  \"d\": [\n    {\n      \"x\": 1\n    }\n  ]\n}\nbye\n",
			},
			`{"b.c": 2}`,
		},
		{
			"behind a progress bar on stdout", last,
			map[string]string{"stdout": "\r 10%|#   | 1/10\r100%|####| 10/10 {\"a\": 1, \"b\": inf}\n"},
			`{"a": 1, "b": "inf"}`,
		},
		{
			"over lines behind a progress bar", last,
			map[string]string{"stdout": "\r100%|####| 10/10\r{\n \"a\": 1\n}\n"}, `{"a": 1}`,
		},
		{
			"a dict on stdout", last, map[string]string{"stdout": "{'loss': 0.25, 'epoch': 1.0}\n"},
			`{"loss": 0.25, "epoch": 1.0}`,
		},
		{
			"a dict behind an object", last, map[string]string{"stdout": "{\"loss\": 0.25}\nNamespace\n{'lr': 1}\n"},
			`{"loss": 0.25}`,
		},
		{"no object on stdout", last, map[string]string{"stdout": "1\n[2]\n\n"}, ""},

		{"later sources win", []grid.Source{{Log: "log"}, {JSON: "stdout"}}, map[string]string{
			"work/log": `{"a": 1, "b": 1, "c": 1}`, "stdout": `{"b": 2, "c": 2}`, "metrics": `{"c": 3}`,
		}, `{"a": 1, "b": 2, "c": 3}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := attemptWithFiles(t, c.sources, c.files).readMetrics(true).values
			var want grid.Metric
			if c.want != "" {
				if err := json.Unmarshal([]byte(c.want), &want); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
				t.Errorf("metrics (-want +got):\n%s", diff)
			}
		})
	}
}

func texts(m grid.Metric) map[string]string {
	all := map[string]string{}
	for k, v := range m {
		all[k] = string(v)
	}
	return all
}

func TestHugeMetrics(t *testing.T) {
	var many strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&many, "{\"metric %d\": %d}\n", i, i)
	}
	long := strings.Repeat("x", 2<<20)
	for _, c := range []struct {
		name, text string
		keep       string // a metric that must not be lost
	}{
		{"a huge value", `{"loss": 0.5, "weights": "` + long + `"}`, "loss"},
		{"a huge name", `{"` + long + `": 1, "loss": 0.5}`, "loss"},
		{"a huge line before", long + "\n{\"loss\": 0.5}\n", "loss"},
		{
			"a file of which only the end counts",
			`{"old": "` + strings.Repeat("x", metricsBytes) + "\"}\n{\"loss\": 0.5}\n", "loss",
		},
		{"many", many.String(), "metric 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := attemptWithFiles(t, nil, map[string]string{"metrics": c.text}).readMetrics(true).values
			total := 0
			for k, v := range m {
				total += len(k) + len(v)
			}
			if total > maxMetrics || m[c.keep] == nil {
				t.Errorf(
					"got %d metrics of %d bytes, %s is %s; want at most %d bytes and %[3]s kept", len(m), total, c.keep,
					m[c.keep], maxMetrics,
				)
			}
		})
	}
}

// TestHugeMetricsHoldNothingUp writes more metrics than an event can hold: the attempt is reported
// nevertheless.
func TestHugeMetricsHoldNothingUp(t *testing.T) {
	s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
		file := variable(a.Env, "MLF_METRICS")
		if err := os.WriteFile(
			file, []byte(`{"loss": 0.5, "all": "`+strings.Repeat("x", 2<<20)+`"}`), 0o600,
		); err != nil {
			t.Error(err)
		}
		return succeeded()
	})
	r := s.sweep("t-1", 1, 1, nil)
	s.lease(r, 0, 1)
	s.run()
	if got := s.finished(r.ID, 1)[0].Result.Metrics; string(got["loss"]) != "0.5" || len(got) != 1 {
		t.Errorf("metrics: got %d, loss is %s; want loss alone, 0.5", len(got), got["loss"])
	}
}

func TestMetricsFifoBlocksNothing(t *testing.T) {
	a := attemptWithFiles(t, []grid.Source{{Log: "log"}}, map[string]string{"work/log": `{"a": 1}`})
	if err := unix.Mkfifo(a.spool.metrics, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan grid.Metric, 1)
	go func() { got <- a.readMetrics(true).values }()
	if m := receive(t, "metrics beside a fifo", got); string(m["a"]) != "1" {
		t.Errorf("metrics: got %v, want those of the log", m)
	}
}

func FuzzMetrics(f *testing.F) {
	for _, s := range []string{
		`{"a": NaN}`, "{\"a\": 1}\n{\"a\"", `[{"a": -Infinity}]`, "{\"\xff\": \"\\", "\x00\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m := grid.Metric{}
		mergeLog(m, []byte(text))
		mergeAll(m, []byte(text))
		mergeLastObject(m, []byte(text))
		b, err := json.Marshal(m)
		if err != nil || !utf8.Valid(b) {
			t.Errorf("metrics of %q can't be stored: %v, %q", text, err, b)
		}
	})
}

// variable returns the last value of an environment variable.
func variable(env []string, name string) string {
	value := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}

// TestMetricsNotes checks that the notes mention what a task names and its program did not leave.
func TestMetricsNotes(t *testing.T) {
	log := []grid.Source{{Log: "out/log.csv"}}
	for _, c := range []struct {
		name    string
		sources []grid.Source
		files   map[string]string
		want    string
	}{
		{"nothing named", nil, nil, ""},
		{"all there", log, map[string]string{"work/out/log.csv": "a,b\n1,2\n"}, ""},
		{"not written", log, nil, "metrics.log out/log.csv: the program did not write it"},
		{
			"a folder", log, map[string]string{"work/out/log.csv/x": ""},
			"metrics.log out/log.csv: it is not a regular file",
		},
		{"empty", log, map[string]string{"work/out/log.csv": "\n"}, "metrics.log out/log.csv: it is empty"},
		{
			"of another kind", log, map[string]string{"work/out/log.csv": "hello\n"},
			"metrics.log out/log.csv: it contains neither JSON objects nor a CSV table with a header",
		},
		{
			"words", log, map[string]string{"work/out/log.csv": "Started\nall done\n"},
			"metrics.log out/log.csv: it contains neither JSON objects nor a CSV table with a header",
		},
		{
			"words in $MLF_METRICS", nil, map[string]string{"metrics": "Started\nall done\n"},
			"$MLF_METRICS: it contains neither a JSON object nor a CSV table with a header",
		},
		{
			"no match", []grid.Source{{Regex: "acc=(?P<acc>.*)"}}, map[string]string{"stdout": "x\n"},
			"metrics.regex: no line of the output matches acc=(?P<acc>.*)",
		},
		{
			"no object", []grid.Source{{JSON: "stdout"}}, map[string]string{"stdout": "x\n"},
			"metrics.json: no JSON object is on stdout",
		},
		{
			"one of two", []grid.Source{{JSON: "stdout"}, {Log: "l"}}, map[string]string{"stdout": `{"a": 1}`},
			"metrics.log l: the program did not write it",
		},
		{
			"nothing but a list", log, map[string]string{"work/out/log.csv": `{"loss": [1, 2], "x": null}`},
			"metrics.log out/log.csv: it contains no number or text under a name (lists are left out)",
		},
		{
			"an empty object", log, map[string]string{"work/out/log.csv": `[{}]`},
			"metrics.log out/log.csv: it contains no number or text under a name (lists are left out)",
		},
		{
			"nothing but a list in $MLF_METRICS", nil, map[string]string{"metrics": `{"log": [{"loss": 1}]}`},
			"$MLF_METRICS: it contains no number or text under a name (lists are left out)",
		},
		{"a line that is too long", nil, map[string]string{
			"metrics": `{"a": 1, "b": "` + strings.Repeat("x", metricsBytes) + `"}`,
		},
			"$MLF_METRICS: the last 16 MiB of it contain neither a JSON object nor a CSV table with a header, and no more is read"},
		{"too many", nil, map[string]string{
			"metrics": `{"a": 1, "b": "` + strings.Repeat("x", maxMetrics) + `", "c": "` +
				strings.Repeat("y", maxMetrics) + `"}`,
		},
			"2 of the metrics were left out, the largest first: one attempt has room for 64 KiB"},
		{
			"$MLF_METRICS", nil, map[string]string{"metrics": "0.5\n"},
			"$MLF_METRICS: it contains neither a JSON object nor a CSV table with a header",
		},
	} {
		a := attemptWithFiles(t, c.sources, c.files)
		r := &grid.Result{}
		if a.addMetrics(r); r.Reason != c.want {
			t.Errorf("%s: got %q, want %q", c.name, r.Reason, c.want)
		}
		failed := &grid.Result{Class: grid.ClassExit, Reason: "exit code 1"}
		if a.addMetrics(failed); failed.Reason != "exit code 1" {
			t.Errorf("%s, failed: got %q, want its cause alone", c.name, failed.Reason)
		}
	}
}

// TestMetricsOfLongFiles checks that files that never end, or that are long, are read in time
// proportional to their length.
func TestMetricsOfLongFiles(t *testing.T) {
	row := strings.Repeat("x", 100)
	table := "step,loss,pad\n" + strings.Repeat("1,0.5,"+row+"\n", metricsBytes/100) + "2,0.25,y\n"
	for name, text := range map[string]string{
		"braces": strings.Repeat("{\n", 1<<18), "keys": strings.Repeat("{\"a\": {\n", 1<<16),
		"ends":  strings.Repeat("}\n", 1<<18),
		"pairs": strings.Repeat("{ }}\n", 1<<17), "texts": strings.Repeat("{\"a\n", 1<<17),
	} {
		m := grid.Metric{}
		begun := time.Now()
		mergeLog(m, []byte(text))
		mergeAll(m, []byte(text))
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("%s: took %v for %d bytes", name, took, len(text))
		}
	}
	a := attemptWithFiles(t, []grid.Source{{Log: "log"}}, map[string]string{"work/log": table})
	if m := a.readMetrics(true).values; string(m["loss"]) != "0.25" || string(m["step"]) != "2" {
		t.Errorf("a table over the limit: got %v, want its last row by the names of its first line", texts(m))
	}
}
