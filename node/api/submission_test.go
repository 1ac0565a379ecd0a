package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

const (
	goodTask  = `"task":{"name":"t","command":["true"],"resources":{"cpus":1},"retries":{}}`
	goodSpace = `"space":{"axes":[{"key":"a","values":[1,2,3,4]}]}`
)

func check(text string) (*Submit, error) {
	var q Submission
	if err := json.Unmarshal([]byte(text), &q); err != nil {
		return nil, err
	}
	return q.Check()
}

// TestSubmissionRefuses sends requests that a client of this program would never send.
func TestSubmissionRefuses(t *testing.T) {
	task := func(fields string) string {
		return `{"project":"p",` + goodSpace + `,"task":{"name":"t","resources":{"cpus":1},` + fields + `}}`
	}
	run := func(fields string) string { return task(`"command":["true"],` + fields) }
	long := strings.Repeat("x", 4050)
	for name, text := range map[string]string{
		"nothing":                   `{}`,
		"no project":                `{` + goodTask + `}`,
		"a long project":            `{"project":"` + long + `",` + goodTask + `}`,
		"a project of 41":           `{"project":"` + long[:41] + `",` + goodTask + `}`,
		"a project with an escape":  `{"project":"\u001b]0;x\u0007red",` + goodTask + `}`,
		"a project with a path":     `{"project":"../../x",` + goodTask + `}`,
		"a project with a slash":    `{"project":"a/b",` + goodTask + `}`,
		"a project with a dot":      `{"project":"a.b",` + goodTask + `}`,
		"a project with a space":    `{"project":"a b",` + goodTask + `}`,
		"a project of other script": `{"project":"проект",` + goodTask + `}`,
		"a long name":               `{"project":"p","name":"` + long + `",` + goodTask + `}`,
		"a name with a line end":    `{"project":"p","name":"a\nb",` + goodTask + `}`,
		"a name that turns around":  `{"project":"p","name":"a\u202eb",` + goodTask + `}`,
		"a user with an escape":     `{"project":"p","origin":{"user":"\u001b[2J"},` + goodTask + `}`,
		"a long origin": `{"project":"p","origin":{"command":["` + strings.Repeat(long, 9) +
			`"]},` + goodTask + `}`,
		"a long token":            `{"project":"p","token":"` + long + `",` + goodTask + `}`,
		"a token with a space":    `{"project":"p","token":"a b",` + goodTask + `}`,
		"a great priority":        `{"project":"p","priority":9223372036854775807,` + goodTask + `}`,
		"a negative limit":        `{"project":"p","max_parallel":-1,` + goodTask + `}`,
		"zero in environ":         `{"project":"p","environ":["A=b\u0000c"],` + goodTask + `}`,
		"code in added":           `{"project":"p","environ_added":["A}$(id)=1"],` + goodTask + `}`,
		"a nameless one in added": `{"project":"p","environ_added":["=1"],` + goodTask + `}`,
		"zero in added":           `{"project":"p","environ_added":["A=b\u0000c"],` + goodTask + `}`,

		"no task":                    `{"project":"p"}`,
		"no command":                 task(`"timeout":1`),
		"an empty command":           task(`"command":[]`),
		"a blank program":            task(`"command":[" ","x"]`),
		"a blank line":               task(`"shell":"  "`),
		"two commands":               task(`"command":["true"],"shell":"true"`),
		"zero in command":            task(`"command":["a\u0000b"]`),
		"zero in shell":              task(`"shell":"a\u0000b"`),
		"zero in setup":              run(`"setup":["a","\u0000"]`),
		"a blank setup":              run(`"setup":[""]`),
		"no cpus":                    `{"project":"p","task":{"name":"t","command":["true"]}}`,
		"cpus 0":                     run(`"resources":{"cpus":0}`),
		"cpus -5":                    run(`"resources":{"cpus":-5}`),
		"cpus beyond":                run(`"resources":{"cpus":1e300}`),
		"memory -1":                  run(`"resources":{"cpus":1,"memory":-1}`),
		"gpus -1":                    run(`"resources":{"cpus":1,"gpus":-1}`),
		"gpu_memory -2":              run(`"resources":{"cpus":1,"gpu_memory":-2}`),
		"a negative timeout":         run(`"timeout":-1`),
		"a negative idle timeout":    run(`"idle_timeout":"-1s"`),
		"a negative grace":           run(`"grace":"-1ns"`),
		"a timeout that is a word":   run(`"timeout":"soon"`),
		"a timeout of half a thing":  run(`"timeout":1.5`),
		"a negative log limit":       run(`"log_limit":-1`),
		"an unknown class":           run(`"retries":{"whatever":3}`),
		"a class that has no policy": run(`"retries":{"cancelled":3}`),
		"negative retries":           run(`"retries":{"exit":-1}`),
		"too many retries":           run(`"retries":{"exit":1000000}`),
		"a constant as an option":    run(`"constants":{"-x":1}`),
		"a constant with a space":    run(`"constants":{"a b":1}`),
		"a variable with a dash":     run(`"env":{"A-B":"1"}`),
		"a variable with =":          run(`"env":{"A=B":"1"}`),
		"zero in a variable":         run(`"env":{"A":"\u0000"}`),
		"artifacts outside":          run(`"artifacts":["../../etc/passwd"]`),
		"artifacts absolute":         run(`"artifacts":["/etc/**"]`),
		"artifacts malformed":        run(`"artifacts":["["]`),
		"metrics outside":            run(`"metrics":[{"log":"../x"}]`),
		"metrics absolute":           run(`"metrics":[{"log":"/etc/passwd"}]`),
		"metrics of nothing":         run(`"metrics":[{}]`),
		"metrics of two":             run(`"metrics":[{"log":"a","json":"stdout"}]`),
		"metrics of a file":          run(`"metrics":[{"json":"stderr"}]`),
		"a regex that is none":       run(`"metrics":[{"regex":"("}]`),
		"a regex without a name":     run(`"metrics":[{"regex":"x"}]`),
		"no goal":                    run(`"objective":{"metric":"a"}`),
		"another goal":               run(`"objective":{"metric":"a","goal":"up"}`),
		"a long task name": `{"project":"p","task":{"name":"` + long +
			`","command":["true"],"resources":{"cpus":1}}}`,
		"an escape in a task name": `{"project":"p","task":{"name":"\u001b[31m","command":["true"],"resources":{"cpus":1}}}`,

		"an axis twice": `{"project":"p",` + goodTask +
			`,"space":{"axes":[{"key":"a","values":[1]},{"key":"a","values":[2]}]}}`,
		"an axis without values": `{"project":"p",` + goodTask + `,"space":{"axes":[{"key":"a"}]}}`,
		"an interval without a step": `{"project":"p",` + goodTask +
			`,"space":{"axes":[{"key":"a","interval":[0,1,0]}]}}`,
		"a key that is an option": `{"project":"p",` + goodTask + `,"space":{"axes":[{"key":"--a","values":[1]}]}}`,
		"exclude of no axis": `{"project":"p",` + goodTask +
			`,"space":{"axes":[{"key":"a","values":[1]}],"exclude":["b > 1"]}}`,
		"exclude of everything": `{"project":"p",` + goodTask +
			`,"space":{"axes":[{"key":"a","values":[1]}],"exclude":["a > 0"]}}`,
		"exclude over too many": `{"project":"p",` + goodTask +
			`,"space":{"axes":[{"key":"a","interval":[0,20000000]}],"exclude":["a > 5"]}}`,
		"more points than counted": `{"project":"p",` + goodTask +
			`,"space":{"axes":[{"key":"a","interval":[0,9000000000000000000]},{"key":"b","interval":[0,9]}]}}`,
	} {
		s, err := check(text)
		if err == nil {
			t.Errorf("%s: accepted: %+v", name, s)
		} else if len(err.Error()) > 600 {
			t.Errorf("%s: the refusal has %d bytes: %.80s…", name, len(err.Error()), err)
		}
	}
}

// TestSubmissionMakesItsOwnSpace sends a space in the form of older versions, with blocks that are
// wrong: the space is made from the axes and expressions alone.
func TestSubmissionMakesItsOwnSpace(t *testing.T) {
	for name, blocks := range map[string]string{
		"none": ``, "right": `,"blocks":[{"lo":[0],"hi":[4],"kept":2}]`,
		"too many":    `,"blocks":[{"lo":[0],"hi":[4],"kept":3}]`,
		"a part":      `,"blocks":[{"lo":[0],"hi":[1],"kept":1}]`,
		"far outside": `,"blocks":[{"lo":[-5],"hi":[4000000000],"kept":99}]`,
		"twice":       `,"blocks":[{"lo":[0],"hi":[4],"kept":2},{"lo":[0],"hi":[4],"kept":2}]`,
		"nonsense":    `,"blocks":"x"`,
	} {
		s, err := check(`{"project":"p",` + goodTask +
			`,"space":{"axes":[{"key":"a","values":[1,2,3,4]}],"exclude":["a > 2"]` + blocks + `}}`)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.Space.Count() != 2 {
			t.Errorf("%s: got %d points, want 2", name, s.Space.Count())
		}
		for i := range s.Space.Count() {
			if _, err := s.Space.At(i); err != nil {
				t.Errorf("%s: point %d: %v", name, i, err)
			}
		}
	}
}

// TestSubmissionOfThisClient checks that what the command line sends arrives unchanged, and that
// older masters understand it.
func TestSubmissionOfThisClient(t *testing.T) {
	var axes []space.Axis
	for _, text := range []string{"lr=0.1,0.01", "epoch=5:20:5", "flag=true,false"} {
		a, err := space.ParseSet(text)
		if err != nil {
			t.Fatal(err)
		}
		axes = append(axes, a)
	}
	points, err := space.New(axes, []string{"lr > 0.05 and epoch > 10"})
	if err != nil {
		t.Fatal(err)
	}
	checkpoint := grid.DefaultCheckpoint()
	want := Submit{
		Token: "ABC123", Project: "chainer", Name: "Ein Versuch äöü", Bundle: strings.Repeat("ab", 32), Space: points,
		Priority: -3, MaxParallel: 4,
		Environ: []string{"PATH=/bin", "ODD"}, EnvironAdded: []string{"A=1"},
		Task: grid.Task{
			Name: "train", Command: []string{"python3", "-u", "x.py"},
			Constants: space.Params{{Key: "out", Value: space.Value{Text: "r"}}},
			Setup:     []string{"./setup.sh"}, Share: []string{"data/**"},
			Links:     []grid.Link{{Path: "far", To: "/mnt/x"}},
			Env:       map[string]string{"A": "b"},
			Resources: grid.Resources{CPUs: 500, Memory: 1 << 30, GPUs: 250, GPUModel: "A100"}, GPUIDs: "index",
			Timeout: 2 * time.Hour, IdleTimeout: time.Minute, Grace: time.Second, LogLimit: 1 << 20,
			Retries:   grid.DefaultRetries(),
			Artifacts: []string{"result/**"},
			Metrics:   []grid.Source{{Log: "result/log"}, {Regex: "(?P<a>x)"}, {JSON: "stdout"}},
			Objective: &grid.Objective{Metric: "a", Goal: "minimize"}, Order: grid.OrderSpread,
			StopAfter: 5, Preempt: true,
			Stop:       &grid.EarlyStop{Metric: "a", Goal: "minimize", Rule: "median", After: 5},
			Checkpoint: &checkpoint,
		},
	}
	b, err := json.Marshal(want.submission())
	if err != nil {
		t.Fatal(err)
	}
	got, err := check(string(b))
	if err != nil {
		t.Fatal(err)
	}
	ofSpaces := cmp.Exporter(func(t reflect.Type) bool { return t.PkgPath() == "mlfnode/grid/space" })
	if diff := cmp.Diff(spaceless(want), spaceless(*got), ofSpaces); diff != "" {
		t.Errorf("the submission has changed on its way (-sent +got):\n%s", diff)
	}
	if got.Space.Count() != points.Count() {
		t.Errorf("points: got %d, want %d", got.Space.Count(), points.Count())
	}
	// The form in which a master of the previous version reads it.
	var old struct {
		Project string      `json:"project"`
		Task    grid.Task   `json:"task"`
		Space   space.Space `json:"space"`
	}
	if err := json.Unmarshal(b, &old); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Task, old.Task); diff != "" || old.Space.Count() != points.Count() {
		t.Errorf("an older master reads %d points, and the task (-sent +read):\n%s", old.Space.Count(), diff)
	}
}

// spaceless leaves out the space, which cmp can't compare.
func spaceless(s Submit) Submit {
	s.Space = space.Space{}
	return s
}

func TestDurationsAsText(t *testing.T) {
	s, err := check(`{"project":"p","task":{"name":"t","shell":"true","resources":{"cpus":1},"timeout":"1h30m","grace":2000000000}}`)
	if err != nil || s.Task.Timeout != 90*time.Minute || s.Task.Grace != 2*time.Second {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestDuration reads the durations of project.yaml, and numbers of nanoseconds.
func TestDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{`"1d12h"`: 36 * time.Hour,
		`"90s"`: 90 * time.Second, `5`: 5, `"0"`: 0} {
		var d Duration
		if err := json.Unmarshal([]byte(text), &d); err != nil || time.Duration(d) != want {
			t.Errorf("%s: got %v, %v, want %v", text, time.Duration(d), err, want)
		}
	}
	for _, text := range []string{`"soon"`, `"-1h"`, `"5"`, `true`} {
		var d Duration
		if err := json.Unmarshal([]byte(text), &d); err == nil ||
			!strings.Contains(err.Error(), "is not a duration: write it like") {
			t.Errorf("%s: got %v, %v", text, time.Duration(d), err)
		}
	}
}
