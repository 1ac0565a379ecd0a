package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/process"
)

// realPrograms returns the executor of processes.
func realPrograms(t *testing.T) program {
	t.Helper()
	p, err := process.New(
		process.Options{
			Token: fmt.Sprintf("worker-cut-%d", os.Getpid()), DieWithAgent: true, Cgroups: process.CgroupsOff,
		},
		logger(t),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return func(ctx context.Context, a *executor.Attempt) executor.Outcome {
		slot, err := p.Slot()
		if err != nil {
			t.Error(err)
			return succeeded()
		}
		defer slot.Close()
		return slot.Run(ctx, a)
	}
}

// TestFloodIsCutByTheExecutor runs programs that print far more than their limit. The disk receives
// no more than that, each byte is stored or counted, the failure's reason contains the program's
// last lines, and the metrics are those from the end of the output.
func TestFloodIsCutByTheExecutor(t *testing.T) {
	const flood = `for i in 1 2 3 4 5 6 7 8 9 10; do head -c 1000000 /dev/zero | tr '\0' x; echo; done; `
	for _, c := range []struct {
		name, script string
		limit        int64
		all          int64
		reason       string
	}{
		{
			"of stdout", flood + `echo '{"loss": 0.5}'; echo the last words; exit 3`, 4096, 10_000_010 + 14 + 15,
			"the last words",
		},
		{
			"of both", flood + `(` + flood + `echo the last words) >&2; echo '{"loss": 0.5}'; exit 3`, 4096,
			20_000_020 + 14 + 15, "the last words",
		},
		{"in a character", `printf 'abc€'; echo; echo '{"loss": 0.5}'; echo words; exit 3`, 5, 6 + 1 + 14 + 6, "words"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newHarness(t, realPrograms(t))
			r := s.sweep("t-1", 1, 1, func(r *grid.Sweep) {
				r.Task.Command, r.Task.LogLimit, r.Task.Metrics = []string{
					"/bin/sh", "-c", c.script,
				}, c.limit, []grid.Source{{JSON: "stdout"}}
			})
			var biggest int64
			run := s.cfg.Executor.(program)
			s.cfg.Executor = program(func(ctx context.Context, a *executor.Attempt) executor.Outcome {
				o := run(ctx, a)
				for _, f := range []*os.File{a.Stdout, a.Stderr} {
					if info, err := f.Stat(); err == nil {
						biggest = max(biggest, info.Size())
					}
				}
				return o
			})
			s.lease(r, 0, 1)
			s.run()
			e := s.finished(r.ID, 1)[0]
			ref := e.Result.Log
			if ref.Bytes > c.limit || ref.Bytes < c.limit-3 || ref.Bytes+ref.Cut != c.all {
				t.Errorf(
					"log reference: got %d bytes stored, %d cut; want %d of %d", ref.Bytes, ref.Cut, c.limit, c.all,
				)
			}
			out := s.output(r.ID, e.Run, streamOut) + s.output(r.ID, e.Run, streamErr)
			if int64(len(out)) != ref.Bytes || strings.Contains(out, "last words") ||
				strings.ContainsRune(out, '\xe2') {
				t.Errorf(
					"stored output: got %d bytes …%.40q, want %d from the beginning", len(out),
					out[max(0, len(out)-40):], ref.Bytes,
				)
			}
			if biggest > c.limit {
				t.Errorf("the file: got %d bytes, want at most %d", biggest, c.limit)
			}
			if !strings.HasSuffix(e.Result.Reason, c.reason) || string(e.Result.Metrics["loss"]) != "0.5" {
				t.Errorf(
					"result: got reason %.200q, metrics %s; want the last words and the last metric", e.Result.Reason,
					e.Result.Metrics["loss"],
				)
			}
		})
	}
}

// TestRecoverCountsWhatWasCut kills an agent after it has recorded the result of an attempt whose
// output was cut, and after its shim has recorded one.
func TestRecoverCountsWhatWasCut(t *testing.T) {
	s := newHarness(t, nil)
	r := s.sweep("t-1", 10, 1, nil)
	started := time.UnixMicro(began)
	s.spool(3, &manifest{
		Sweep: r.ID, Index: 7, Attempt: 2, Run: "n.1.5", Started: began,
		Result: &grid.Result{Class: grid.ClassExit, ExitCode: 1, Reason: "exit code 1", Started: began},
		Cut:    &cutOutput{Bytes: 1000, Kept: [2]int64{4, 0}},
	}, "one\n\nlast\n")
	dir := s.spool(4, &manifest{Sweep: r.ID, Index: 8, Attempt: 1, Run: "n.1.6", Started: began}, "two\n")
	o := executor.Outcome{
		Class: grid.ClassExit, ExitCode: 2, Reason: "exit code 2", Start: started, End: started, Cut: 2000,
		Kept: [2]int64{4, 0}, Tail: [2]string{"\nwords\n", ""},
	}
	if err := executor.WriteRecord(filepath.Join(dir, "outcome.json"), "n.1.6", o); err != nil {
		t.Fatal(err)
	}
	_, all := s.recover(r.ID)
	if len(all) != 2 {
		t.Fatalf("events: got %v, want two", kinds(all))
	}
	for _, e := range all {
		want, cut, reason := "one\n", int64(1000), "exit code 1\none\n\nlast"
		if e.Index == 8 {
			want, cut, reason = "two\n", 2000, "exit code 2\ntwo\n\nwords"
		}
		if got := s.output(r.ID, e.Run, streamOut); got != want || e.Result.Log.Bytes != 4 || e.Result.Log.Cut != cut ||
			e.Result.Reason != reason {
			t.Errorf(
				"trial %d: got output %q, %+v, reason %q; want %q, %d cut, %q", e.Index, got, e.Result.Log,
				e.Result.Reason, want, cut, reason,
			)
		}
	}
}
