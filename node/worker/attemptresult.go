package worker

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"mlfnode/grid"
)

// finishOptions says what is to be done at the end of an attempt, beyond what its result says.
type finishOptions struct {
	manifest        func() *manifest // nil unless its program may have run: otherwise nothing can be left
	snapshotTimeout time.Duration    // bounds the storing of what it saved
	saving          bool             // it was cancelled, to be retried from what it saved
	reuseSpool      bool             // its spool may be used again
}

// finisher gathers what attempts leave, and reports their results.
type finisher struct {
	cfg         *Config
	log         *slog.Logger
	sweeps      *sweepSet
	tail        *outputTail
	classifier  *classifier
	uploads     *artifactUploads
	checkpoints *checkpoints
	snapshots   *snapshotUploads
	backoff     *nodeBackoff
	bundles     *bundles
	spools      *spoolPool
	heartbeats  *heartbeatLoop
	outbox      *outbox
}

// finish gathers what an attempt has left, stores what it saved, and reports its result; its spool
// stays until the report is stored. Every attempt ends here, whichever agent started it. finish
// returns false when only the spool has the artifacts: the attempt is not reported yet, and the
// spool keeps everything for the next start. ctx bounds the gathering.
func (fi *finisher) finish(ctx context.Context, a *attempt, r *grid.Result, end finishOptions) bool {
	r.Devices = a.allocation.UUIDs()
	switch {
	case end.manifest == nil:
	case !a.adopted && a.spool.isUntouched(a.started):
		a.mu.Lock()
		a.output.closed, a.untouched = true, true
		a.mu.Unlock()
		fi.classifier.classify(a, r)
		if len(a.task.Metrics) > 0 {
			a.addMetrics(r)
		}
	default:
		fi.persistResult(a, end.manifest(), r)
		if !fi.collectResults(ctx, a, r) {
			a.spool.close()
			return false
		}
	}
	fi.backoff.update(a, r)
	fi.snapshots.storeFinal(a, r, end)
	a.checkpoint.release()
	if !a.foreignProcesses {
		fi.bundles.unpin(a.project.folders)
	}
	if _, active := fi.sweeps.active(a.id.Sweep); a.checkpoint != nil && !active {
		// the folder was in use when the record changed
		fi.checkpoints.requestCleanup()
	}
	free := func() {}
	switch {
	case a.spool == nil:
	case a.foreignProcesses:
		free = func() { fi.spools.abandon(a.spool, a.adopted) }
	case a.adopted:
		free = a.spool.remove
	case a.untouched && end.reuseSpool:
		// Nothing is left to store but the result: the next attempt can have the spool at once.
		fi.spools.releaseUntouched(a.spool)
	default:
		free = func() { fi.spools.release(a.spool, end.reuseSpool) }
	}
	if r.Class == grid.ClassLost && !a.adopted && !a.isAnnounced() {
		// nobody knows that it ran, and another node has the trial: reporting it now would make the
		// trial run once more
		free()
		return true
	}
	at := time.Now().UnixMicro()
	if r.Usage.Wall > 0 {
		at = r.Started + r.Usage.Wall
	}
	if !fi.heartbeats.curveShare().Keeps(a.id.Index) {
		r.Curves = comparedCurve(a.task, r.Curves)
	}
	e := grid.Event{
		Kind: grid.Finished, Index: a.id.Index, Attempt: a.number, Run: a.run, Time: at, Result: r, Image: a.imagePin(),
	}
	fi.outbox.addEvent(a.id.Sweep, report{event: e, ref: &a.output.ref, stored: func() {
		free()
		fi.checkpoints.removeAfter(a, r)
	}})
	return true
}

// collectResults sends the rest of the output and gathers metrics and artifacts, both after a run
// and after a crash. It returns false when only the spool has the artifacts, which then keeps them
// for the next start: the attempt is not reported yet.
func (fi *finisher) collectResults(ctx context.Context, a *attempt, result *grid.Result) bool {
	fi.tail.drain(a)
	line := fi.classifier.classify(a, result)
	result.Reason = a.explainFailure(result, line)
	a.addMetrics(result)
	files, err := fi.uploads.store(ctx, a)
	if errors.Is(err, errUploadDeferred) {
		fi.log.Warn("artifacts can't be stored while the node stops; the next start stores them", "trial", a.id)
		return false
	}
	if err != nil {
		fi.log.Warn("artifacts could not be stored", "trial", a.id, "err", err)
		result.Reason = joinReason(result.Reason, "artifacts could not be stored: "+err.Error())
	}
	result.Files, result.Left = files, a.unkeptFiles()
	return true
}

// curveShare returns for which trials curves are reported.
func (hl *heartbeatLoop) curveShare() grid.CurveShare {
	if hl.cfg.Curves != nil {
		return hl.cfg.Curves()
	}
	return grid.CurveShare(hl.curves.Load())
}

// addMetrics reads the metrics and their curves. A metric that a successful trial should have left
// and did not is not a failure, but is mentioned in the reason.
func (a *attempt) addMetrics(r *grid.Result) {
	m := a.readMetrics(true)
	r.Metrics, r.Curves = m.values, m.curves
	if r.Class == grid.ClassNone {
		for _, note := range m.notes {
			r.Reason = joinReason(r.Reason, note)
		}
	}
}

func joinReason(a, b string) string {
	if a == "" {
		return b
	}
	return a + "\n" + b
}

// reasonLines and reasonBytes bound the output that goes into the reason of a failure.
const (
	reasonLines = 5
	reasonBytes = 2048
)

// explainFailure adds to the reason of a failure the line that identifies it, if any, and the last
// lines of output.
func (a *attempt) explainFailure(r *grid.Result, line string) string {
	if r.Class.EndsTrial() || r.Class == grid.ClassHalt || r.Class == grid.ClassPreempt || a.spool == nil {
		return r.Reason
	}
	for _, f := range []*os.File{a.spool.stderr, a.spool.stdout} {
		if lines := lastLines(f, reasonLines, reasonBytes); lines != "" {
			if line != "" && !strings.Contains(lines, line) {
				lines = line + "\n" + lines
			}
			return joinReason(r.Reason, lines)
		}
	}
	return r.Reason
}

// persistResult writes a result into the spool, so that it is safe there and the shim may forget
// it.
func (fi *finisher) persistResult(a *attempt, m *manifest, result *grid.Result) {
	if result.Class == grid.ClassLost {
		result.Started = a.started.UnixMicro()
	}
	if m.Result == nil {
		if err := a.writeResult(m, result); err != nil {
			fi.log.Warn("the result could not be recorded in the spool", "trial", a.id, "err", err)
			return // the adopter keeps it for the next start
		}
	}
	if fi.cfg.Adopt != nil {
		fi.cfg.Adopt.Collected(a.run)
	}
}
