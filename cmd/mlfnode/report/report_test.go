package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/api"
	"mlfnode/node/monitor/chart"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// hand returns a small sweep with values that are easy to check: loss = a + b/10, and one failed
// trial.
func hand(t *testing.T) *chart.Data {
	t.Helper()
	var axes []space.Axis
	for _, set := range []string{"a=1,2,3", "b=1,2,3,4", "c=x&y,z"} {
		axis, err := space.ParseSet(set)
		if err != nil {
			t.Fatal(err)
		}
		axes = append(axes, axis)
	}
	points, err := space.New(axes, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &chart.Data{
		Space: points, Done: points.Count(), Name: "loss", Base: 1e15, Now: 100,
		Nodes: []grid.NodeID{"n"}, Classes: []grid.Class{grid.ClassExit},
		Columns: chart.Columns{
			Blocks: []int64{0}, State: make([]uint8, chart.BlockTrials), Class: make([]uint8, chart.BlockTrials),
			Cause: make([]uint8, chart.BlockTrials), Node: make([]uint16, chart.BlockTrials),
			Started: make([]float32, chart.BlockTrials), Ended: make([]float32, chart.BlockTrials),
			Wall: make([]float32, chart.BlockTrials), Value: make([]float32, chart.BlockTrials),
		},
	}
	for i := range points.Count() {
		d.State[i], d.Node[i], d.Started[i], d.Ended[i], d.Wall[i] = 3, 1, float32(i), float32(i+2), 2 // succeeded
		d.Value[i] = float32(1+i/8) + float32(1+i/2%4)/10
	}
	d.State[5], d.Class[5], d.Cause[5], d.Value[5] = 4, 1, 1, float32(math.NaN()) // failed
	d.Causes = []chart.Cause{{ID: 1, Class: grid.ClassExit, Signature: "KeyError: X", Attempts: 1, Trial: 5}}
	return d
}

// handReport returns a report of that sweep, with the charts as the API makes them.
func handReport(t *testing.T) *Data {
	t.Helper()
	v, err := chart.New(hand(t), chart.Where{})
	if err != nil {
		t.Fatal(err)
	}
	made := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	d := &Data{
		Sweep: api.Sweep{SweepCounts: api.SweepCounts{Sweep: "hand-1", State: grid.SweepFinished, Count: 24,
			Succeeded: 23, Failed: 1}, Project: "hand", Task: "train", Submitted: made},
		Charts: map[string]json.RawMessage{}, Missing: map[string]string{}, Made: made, Version: "test",
	}
	points := map[int64][]grid.Point{}
	picked, band, err := v.CurveTrials(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, trial := range band {
		for step := range 4 {
			points[trial] = append(points[trial],
				grid.Point{Step: float64(step), Value: float32(trial) / float32(step+1)})
		}
	}
	for _, name := range Charts() {
		q, ok := d.Query(name)
		if !ok {
			t.Fatalf("%s: %s", name, d.Missing[name])
		}
		var c any
		switch name {
		case "history":
			c = v.History()
		case "histogram":
			c = v.Histogram()
		case "importance":
			c = v.Importance(false)
		case "marginals":
			c = v.Marginals()
		case "parallel":
			c, err = v.Parallel(nil)
		case Heat:
			if want := (url.Values{"x": {"a"}, "y": {"b"}}); q.Encode() != want.Encode() {
				t.Errorf("the parameters that matter most: got %v, want %v", q, want)
			}
			c, err = v.Heat(q.Get("x"), q.Get("y"), "", chart.StatMean)
		case "curves":
			c = v.Curves(picked, band, points)
		case "timeline":
			c = v.Timeline()
		case "coverage":
			c = v.Coverage()
		case "failures":
			c = v.Failures()
		case "suggestions":
			c = v.Suggestions()
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		d.Charts[name] = body
	}
	return d
}

// TestReportIsGolden compares a whole report with one that was checked by eye.
func TestReportIsGolden(t *testing.T) {
	var got bytes.Buffer
	if err := handReport(t).Write(&got); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "hand.html")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the report is not %s; look at what changed and run: go test ./cmd/mlfnode/report -update", file)
	}
}

// TestReportParts checks that each chart has a title and a sentence, and that a report requests
// nothing from elsewhere and runs no script.
func TestReportParts(t *testing.T) {
	var b bytes.Buffer
	if err := handReport(t).Write(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	sections := regexp.MustCompile(`(?s)<section><h2>[^<]+</h2>(.*?)</section>`).FindAllStringSubmatch(text, -1)
	if len(sections) != len(Charts()) {
		t.Errorf("got %d sections, want %d", len(sections), len(Charts()))
	}
	for _, s := range sections {
		if !strings.HasPrefix(s[1], "<p>") {
			t.Errorf("a chart begins without its sentence: %.80s", s[1])
		}
	}
	for _, want := range []string{`class="band r`, `class="trial r9"`, `class="cell r`,
		`class="range"`, `class="curve k0 d0"`, "a=2, b=3: 2.3 over 2", "<details><summary>As a table", "x&amp;y"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if found := regexp.MustCompile(`(?i)(src|href)=|url\(|@import|<script>| on[a-z]+=`).FindString(text); found != "" {
		t.Errorf("the report has %q", found)
	}
	if strings.Contains(text, "NaN") || strings.Contains(text, "+Inf") {
		t.Error("a drawing has what is not a number")
	}
}

// TestReportOfOneParameter reports on a sweep with no pair of parameters to draw.
func TestReportOfOneParameter(t *testing.T) {
	d := &Data{Charts: map[string]json.RawMessage{"importance": json.RawMessage(`{"axes":[{"key":"a","share":1}]}`)},
		Missing: map[string]string{}}
	if _, ok := d.Query(Heat); ok || !strings.Contains(d.Missing[Heat], "two parameters") {
		t.Errorf("got %v and %q", ok, d.Missing[Heat])
	}
}

// FuzzDrawings checks that drawing an answer never fails, whatever it contains.
func FuzzDrawings(f *testing.F) {
	f.Add(`{"axes":[{"levels":[{}]}],"edges":[1,2],"bands":[{"from":[99],"to":[-1],"n":[1],"rank":[null]}],"lines":{"trial":[1],"levels":[[7]],"value":[1],"rank":[0]}}`)
	f.Add(`{"x":{"levels":[{}]},"y":{"levels":[{}]},"cells":[{"n":[[1]],"value":[[1e308]]}]}`)
	f.Add(`{"steps":[0,1],"low":[1,2],"median":[1,2],"high":[null,3],"curves":[{"steps":[1],"values":[]}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, draw := range []func(*page, json.RawMessage) error{parallel, heat, curves} {
			p := &page{}
			if err := draw(p, json.RawMessage(body)); err == nil && strings.Contains(p.String(), "<script") {
				t.Error("a drawing has a script")
			}
		}
	})
}
