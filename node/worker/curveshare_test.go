package worker

import (
	"context"
	"os"
	"testing"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
)

// TestCurvesOfSomeTrials reports the curves that the master has room for, and all other metrics.
func TestCurvesOfSomeTrials(t *testing.T) {
	for _, share := range []grid.CurveShare{grid.AllCurves, grid.SomeCurves, grid.NoCurves} {
		s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
			if err := os.WriteFile(
				variable(a.Env, "MLF_METRICS"), []byte("{\"loss\": 2}\n{\"loss\": 1}\n"), 0o600,
			); err != nil {
				t.Error(err)
			}
			return succeeded()
		})
		defer s.store.Calls.HandleHeartbeats(func(grid.NodeID, *jetstream.Heartbeat) jetstream.Directives {
			return jetstream.Directives{Curves: share}
		})()
		s.heartbeats.send(t.Context(), nil)
		r := s.sweep("a-1", 40, 1, nil)
		s.run()
		s.lease(r, 0, 40)
		for _, e := range s.finished(r.ID, 40) {
			if got, want := len(e.Result.Curves) == 1, share.Keeps(e.Index); got != want ||
				string(e.Result.Metrics["loss"]) != "1" {
				t.Errorf(
					"share %d, trial %d: curves %v and metrics %v, want curves %v", share, e.Index, e.Result.Curves,
					e.Result.Metrics, want,
				)
			}
		}
	}
}
