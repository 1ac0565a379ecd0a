package grid

import (
	"encoding/json"
	"fmt"
	"testing"

	"mlfnode/grid/space"
)

// FuzzSweepRecord decodes records as a node does and calls every method that a node calls on them.
func FuzzSweepRecord(f *testing.F) {
	for _, space := range []string{
		`{}`, `{"axes":[{"key":"a","values":[1,"x",true]}]}`,
		`{"axes":[{"key":"a","interval":[0,9]}],"exclude":["a > 2"],"blocks":[{"lo":[0],"hi":[9],"kept":3}]}`,
		`{"axes":[{"key":"a","interval":[0,9]}],"exclude":["a > 2"],"blocks":[{"lo":[0],"hi":[9],"kept":5}]}`,
		`{"axes":[{"key":"a","linspace":[0,1,11]},{"key":"b","logspace":[-3,1,5]},{"key":"b","values":[7]}],"blocks":[{"lo":[0,0],"hi":[11,6],"kept":1}]}`,
		`{"axes":[{"key":"a","values":[1]}],"blocks":[{"lo":[0],"hi":[1],"kept":1},{"lo":[0],"hi":[1],"kept":1}]}`,
	} {
		f.Add(fmt.Sprintf(`{"v":1,"id":"a-1","project":"a","state":"running","task":{"name":"t","command":["x","{a}"],"shell":"","resources":{"cpus":1},
			"constants":{"c":1e400,"a":null}},"space":%s}`, space))
	}
	f.Add(`{"v":1,"id":"a-1","task":{"shell":"echo {a}","retries":{"x":-1},"resources":{"cpus":-1e308,"gpus":1e308},"timeout":-1},"priority":-5}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, text string) {
		var s Sweep
		if json.Unmarshal([]byte(text), &s) != nil {
			return
		}
		_ = s.Lane()
		_ = s.Active()
		n := s.Space.Count()
		for _, i := range []int64{-1, 0, 1, n / 2, n - 1, n} {
			p, err := s.Space.At(i)
			if err == nil && (i < 0 || i >= n) {
				t.Fatalf("point %d of %d: %v", i, n, p)
			}
			if err != nil {
				continue
			}
			if argv := s.Task.Template().Argv(p); len(argv) < len(s.Task.Command) {
				t.Fatalf("argv of point %d: %q", i, argv)
			}
			if s.Task.Shell != "" || len(s.Task.Command) > 0 {
				_ = s.Task.Template().Display(p)
			}
			if _, err := json.Marshal(p); err != nil {
				t.Fatalf("point %d can't be written: %v", i, err)
			}
		}
		_, _ = s.Space.Extend([]space.Axis{{Key: "a", Values: []space.Value{{Text: "5", Kind: space.Number}}}})
		b, err := json.Marshal(&s)
		if err != nil {
			t.Fatalf("a record that was read can't be written: %v", err)
		}
		var again Sweep
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatalf("a record that was written can't be read: %v\n%s", err, b)
		}
	})
}
