package worker

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// TestRecordsThatContradictThemselvesFailTheirTrials runs sweeps whose records were stored by a
// program without checks: their trials fail with the reason, and the worker survives and runs
// others.
func TestRecordsThatContradictThemselvesFailTheirTrials(t *testing.T) {
	bad := func(space string) func(*grid.Sweep) {
		return func(s *grid.Sweep) {
			if err := json.Unmarshal([]byte(space), &s.Space); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		edit func(*grid.Sweep)
		want string
	}{
		"more points than there are": {
			bad(
				`{"axes":[{"key":"a","values":[1,2,3,4]}],"exclude":["a > 2"],"blocks":[{"lo":[0],"hi":[4],"kept":3}]}`),
			"combinations",
		},
		"fewer points than there are": {
			bad(
				`{"axes":[{"key":"a","values":[1,2,3,4]}],"exclude":["a > 3"],"blocks":[{"lo":[0],"hi":[4],"kept":2}]}`),
			"combinations",
		},
		"too many to look at": {
			bad(
				`{"axes":[{"key":"a","interval":[0,20000000]}],"exclude":["a > 2"],"blocks":[{"lo":[0],"hi":[20000000],"kept":3}]}`,
			),
			"combinations",
		},
		"no command": {func(s *grid.Sweep) { s.Task.Command = nil }, "no command"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newHarness(t, func(context.Context, *executor.Attempt) executor.Outcome { return succeeded() })
			r := s.sweep("bad-1", 2, 1, c.edit)
			good := s.sweep("good-1", 2, 1, nil)
			s.run()
			eventually(t, "the worker knows both", func() bool { _, ok := s.sweeps.active(good.ID); return ok })
			s.lease(r, 0, 2)
			s.lease(good, 0, 2)
			for _, e := range s.finished("bad-1", 2) {
				if e.Result.Class != grid.ClassStart || !strings.Contains(e.Result.Reason, c.want) {
					t.Errorf("trial %d ended with %q, %q", e.Index, e.Result.Class, e.Result.Reason)
				}
			}
			s.released("bad-1", 1)
			for _, e := range s.finished("good-1", 2) {
				if e.Result.Class != grid.ClassNone {
					t.Errorf("a trial beside them ended with %q, %q", e.Result.Class, e.Result.Reason)
				}
			}
		})
	}
}

// TestLeaseBehindTheSpace takes a lease of points that the known record does not have, as when a
// sweep has just been extended: the lease is returned, and trials that do not exist are not
// reported.
func TestLeaseBehindTheSpace(t *testing.T) {
	s := newHarness(t, func(context.Context, *executor.Attempt) executor.Outcome { return succeeded() })
	r := s.sweep("t-1", 2, 1, nil)
	s.run()
	s.lease(r, 1, 5)
	all := s.released("t-1", 1)
	for _, e := range only(all, grid.Finished) {
		if e.Index != 1 {
			t.Errorf("the end of trial %d is told, and the sweep has 2", e.Index)
		}
	}
}
