package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// left makes an attempt whose program has left these files in the spool.
func left(t *testing.T, sources []grid.Source, files map[string]string) *attempt {
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
	return &attempt{task: &grid.Task{Metrics: sources}, spool: s}
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
		want    string // as a JSON object; "" is none
	}{
		{"nothing", nil, nil, ""},
		{"lines", nil, map[string]string{"metrics": `{"a": 1}` + "\n" + `{"b": 2, "a": 3}` + "\n"}, `{"a": 3, "b": 2}`},
		{"no end of line", nil, map[string]string{"metrics": `{"a": 1}`}, `{"a": 1}`},
		{"torn last line", nil, map[string]string{"metrics": "{\"a\": 1}\n{\"a\": 2, \"b\": 1"}, `{"a": 1}`},
		{"torn between lines", nil, map[string]string{"metrics": "{\"a\": 1}\n{\"a\n{\"b\": 2}\n"}, `{"a": 1, "b": 2}`},
		{"Windows' ends of lines", nil, map[string]string{"metrics": "{\"a\": 1}\r\n{\"b\": 2}\r\n"}, `{"a": 1, "b": 2}`},
		{"empty lines", nil, map[string]string{"metrics": "\n\n{\"a\": 1}\n\n"}, `{"a": 1}`},
		{"numbers keep their text", nil, map[string]string{"metrics": `{"a": 1e-3, "b": 1.50, "c": -0}`}, `{"a": 1e-3, "b": 1.50, "c": -0}`},
		{"not finite", nil, map[string]string{"metrics": `{"a": NaN, "b": Infinity, "c": -Infinity, "d": 1}`},
			`{"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 1}`},
		{"such words in strings", nil, map[string]string{"metrics": `{"NaN": "a NaN, \"Infinity\"", "b": NaN}`},
			`{"NaN": "a NaN, \"Infinity\"", "b": "NaN"}`},
		{"nested", nil, map[string]string{"metrics": `{"a": 1, "b": {"c": NaN}, "d": [1, 2], "e": null, "f": true}`}, `{"a": 1, "f": true}`},
		{"wrong types", nil, map[string]string{"metrics": "[1, 2]\n3\n\"text\"\nnull\ntrue\nplain text\n{\"a\": 1}\n"}, `{"a": 1}`},
		{"not UTF-8", nil, map[string]string{"metrics": "{\"a\": \"x\xff\"}\n"}, `{"a": "x�"}`},
		{"a NUL", nil, map[string]string{"metrics": "\x00\x00{\"a\": 1}\n{\"b\": 2}\n"}, `{"b": 2}`},
		{"a folder", nil, map[string]string{"metrics/x": "1"}, ""},

		{"log as a list", log, map[string]string{"work/result/log": `[{"epoch": 1, "acc": 0.5}, {"epoch": 2, "acc": NaN}]`}, `{"epoch": 2, "acc": "NaN"}`},
		{"log over many lines", log, map[string]string{"work/result/log": "[\n  {\n    \"epoch\": 1\n  },\n  {\n    \"epoch\": 2\n  }\n]\n"}, `{"epoch": 2}`},
		{"log as lines", log, map[string]string{"work/result/log": "{\"epoch\": 1, \"x\": 1}\n{\"epoch\": 2}\n"}, `{"epoch": 2}`},
		{"log as lines, torn", log, map[string]string{"work/result/log": "{\"epoch\": 1}\n{\"epo"}, `{"epoch": 1}`},
		{"log as a list, torn", log, map[string]string{"work/result/log": `[{"epoch": 1}, {"epo`}, ""},
		{"log as an empty list", log, map[string]string{"work/result/log": `[]`}, ""},
		{"log as a list of numbers", log, map[string]string{"work/result/log": `[1, 2]`}, ""},
		{"empty log", log, map[string]string{"work/result/log": ""}, ""},
		{"missing log", log, nil, ""},

		{"regex", loss, map[string]string{"stdout": "loss=0.5 acc=0.1\nother\nloss=0.25\n"}, `{"loss": 0.25, "acc": 0.1}`},
		{"regex twice in a line", loss, map[string]string{"stdout": "loss=3 then loss=2\n"}, `{"loss": 2}`},
		{"regex on stderr", loss, map[string]string{"stdout": "loss=1\n", "stderr": "loss=2\n"}, `{"loss": 2}`},
		{"regex without a match", loss, map[string]string{"stdout": "nothing\n"}, ""},
		{"regex on a progress bar", loss, map[string]string{"stdout": "1% loss=3\r2% loss=2\r3% loss=1\rdone"}, `{"loss": 1}`},
		{"regex behind a huge line", loss, map[string]string{"stdout": "loss=3\n" + long + "\nloss=1\n"}, `{"loss": 1}`},
		{"regex, torn", loss, map[string]string{"stdout": "loss=0.5\nlos"}, `{"loss": 0.5}`},
		{"regex, not numbers", loss, map[string]string{"stdout": "loss=nan acc=.5\n"}, `{"loss": "nan", "acc": 0.5}`},
		{"regex, words", loss, map[string]string{"stdout": "loss=high acc=0x10\n"}, `{"loss": "high", "acc": "0x10"}`},
		{"a bad regex", []grid.Source{{Regex: "("}}, map[string]string{"stdout": "x\n"}, ""},

		{"last object of stdout", last, map[string]string{"stdout": "{\"a\": 1}\n{\"b\": 2}\nbye\n\n"}, `{"b": 2}`},
		{"last object of stdout, torn", last, map[string]string{"stdout": "{\"a\": 1}\n{\"b\": "}, `{"a": 1}`},
		{"last object of stdout, indented", last, map[string]string{"stdout": "  {\"a\": 1}  \n[1]\n"}, `{"a": 1}`},
		{"no object on stdout", last, map[string]string{"stdout": "1\n[2]\n\n"}, ""},

		{"later sources win", []grid.Source{{Log: "log"}, {JSON: "stdout"}}, map[string]string{
			"work/log": `{"a": 1, "b": 1, "c": 1}`, "stdout": `{"b": 2, "c": 2}`, "metrics": `{"c": 3}`,
		}, `{"a": 1, "b": 2, "c": 3}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := left(t, c.sources, c.files).readMetrics()
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
		keep       string // a metric that must be there
	}{
		{"a huge value", `{"loss": 0.5, "weights": "` + long + `"}`, "loss"},
		{"a huge name", `{"` + long + `": 1, "loss": 0.5}`, "loss"},
		{"a huge line before", long + "\n{\"loss\": 0.5}\n", "loss"},
		{"a file of which only the end counts", `{"old": "` + strings.Repeat("x", metricsBytes) + "\"}\n{\"loss\": 0.5}\n", "loss"},
		{"many", many.String(), "metric 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := left(t, nil, map[string]string{"metrics": c.text}).readMetrics()
			total := 0
			for k, v := range m {
				total += len(k) + len(v)
			}
			if total > maxMetrics || m[c.keep] == nil {
				t.Errorf("got %d metrics of %d bytes, %s is %s; want at most %d bytes and %[3]s kept", len(m), total, c.keep, m[c.keep], maxMetrics)
			}
		})
	}
}

// TestHugeMetricsHoldNothingUp lets a program write more metrics than an event can hold: it is reported all the same.
func TestHugeMetricsHoldNothingUp(t *testing.T) {
	s := newStage(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
		file := variable(a.Env, "MLF_METRICS")
		if err := os.WriteFile(file, []byte(`{"loss": 0.5, "all": "`+strings.Repeat("x", 2<<20)+`"}`), 0o600); err != nil {
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
	a := left(t, []grid.Source{{Log: "log"}}, map[string]string{"work/log": `{"a": 1}`})
	if err := unix.Mkfifo(a.spool.metrics(), 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan grid.Metric, 1)
	go func() { got <- a.readMetrics() }()
	if m := receive(t, "metrics beside a fifo", got); string(m["a"]) != "1" {
		t.Errorf("metrics: got %v, want those of the log", m)
	}
}

func FuzzMetrics(f *testing.F) {
	for _, s := range []string{`{"a": NaN}`, "{\"a\": 1}\n{\"a\"", `[{"a": -Infinity}]`, "{\"\xff\": \"\\", "\x00\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m := grid.Metric{}
		mergeLog(m, []byte(text))
		mergeLines(m, []byte(text))
		mergeLastObject(m, []byte(text))
		b, err := json.Marshal(m)
		if err != nil || !utf8.Valid(b) {
			t.Errorf("metrics of %q can't be stored: %v, %q", text, err, b)
		}
	})
}

// variable gives the last value of an environment variable.
func variable(env []string, name string) string {
	value := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}
