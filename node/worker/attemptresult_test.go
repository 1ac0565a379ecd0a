package worker

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid"
	"mlfnode/node/checkpoint"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
)

// leftRunning is an Adopter with one run, which ends as soon as it is waited for.
type leftRunning struct {
	run string
	end func() executor.Outcome
}

func (l *leftRunning) Adopted(run string) (resume func(context.Context) executor.Outcome, pid int, ok bool) {
	return func(ctx context.Context) executor.Outcome {
		if errors.Is(context.Cause(ctx), executor.ErrLeave) {
			return executor.Outcome{Left: true}
		}
		return l.end()
	}, 0, run == l.run
}
func (l *leftRunning) Collected(string) {}
func (l *leftRunning) Disown()          {}

// TestOneEndGivesOneEvent ends an attempt in the same way under the agent that started it, under
// the next one, and while no agent was running: all report the same.
func TestOneEndGivesOneEvent(t *testing.T) {
	const output, run = "epoch 1\nValueError: boom\n", "n.1.1"
	for name, c := range map[string]struct {
		class grid.Class
		code  int
		full  bool // the disk is full at the end
	}{
		"success": {grid.ClassNone, 0, false}, "saved": {grid.ClassExit, 85, false},
		"failed": {grid.ClassExit, 1, false},
		"signal": {grid.ClassSignal, 139, false}, "stopped": {grid.ClassHalt, 143, false},
		"full disk": {grid.ClassExit, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			out := executor.Outcome{
				Class: c.class, ExitCode: c.code, Reason: "it ended", Start: time.UnixMicro(began),
				End: time.UnixMicro(began + wall), Usage: grid.Usage{Wall: wall},
				Foreign: "4711 (sleep, user root)",
			}
			var events []grid.Event
			for _, way := range []string{"fresh", "adopted", "recovered"} {
				s := &harness{t: t, store: openStore(t, filepath.Join(t.TempDir(), "jetstream")), dir: t.TempDir()}
				if c.full {
					s.dir = mountSmallDisk(t)
				}
				end := func() executor.Outcome {
					if c.full {
						fillDisk(t, s.dir)
					}
					return out
				}
				s.Worker = s.worker(func(_ context.Context, a *executor.Attempt) executor.Outcome {
					incrementStep(t, valueOf(a.Env, "MLF_CHECKPOINT"))
					if _, err := io.WriteString(a.Stdout, output); err != nil {
						t.Error(err)
					}
					return end()
				})
				store, err := checkpoint.OpenStore(t.TempDir(), 1<<30, logger(t))
				if err != nil {
					t.Fatal(err)
				}
				s.cfg.Snapshots.Remote = store
				containers(s).set("a", docker.ImageStatus{Image: &docker.Image{Pin: pinA}})
				r := s.sweep("ends-1", 1, 1, func(r *grid.Sweep) {
					d := grid.DefaultCheckpoint()
					r.Task.Image, r.Task.Checkpoint = "a", &d
				})
				if way == "fresh" {
					s.run()
					s.lease(r, 0, 1)
				} else {
					s.spool(1, &manifest{Sweep: r.ID, Attempt: 1, Run: run, Started: began, Image: pinA}, output)
					had, err := newCheckpoints(&Config{Dir: s.dir, Logger: logger(t)}, newSweepSet(), nil).acquire(
						t.Context(), grid.TrialID{Sweep: r.ID},
					)
					if err == nil {
						err = had.prepare(1, resumePoint{}, nil)
					}
					if err != nil {
						t.Fatal(err)
					}
					incrementStep(t, had.liveDir())
				}
				switch way {
				case "adopted":
					s.cfg.Adopt = &leftRunning{run, end}
				case "recovered":
					if err := executor.WriteRecord(
						filepath.Join(s.dir, "spool", "1", "outcome.json"), run, out,
					); err != nil {
						t.Fatal(err)
					}
					end()
				}
				if way != "fresh" {
					if err := s.recovery.run(t.Context()); err != nil {
						t.Fatal(err)
					}
					s.run()
				}
				e := s.finished(r.ID, 1)[0]
				e.Run = ""
				e.Result.Reason = strings.ReplaceAll(e.Result.Reason, s.dir, "DIR")
				events = append(events, e)
				if diff := cmp.Diff(events[0], e); diff != "" {
					t.Errorf("%s (-fresh +%s):\n%s", way, way, diff)
				}
			}
			if e := events[0]; e.Image != pinA || c.full != (e.Result.Class == grid.ClassNode) ||
				!strings.Contains(e.Result.Reason, out.Foreign) {
				t.Errorf("got %+v of %+v", e, e.Result)
			}
		})
	}
}
