package worker

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
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
		if r.Class == grid.ClassLost {
			r.Started = a.started.UnixMicro()
		}
		// The spool gets the result first: then the shim may forget it.
		m := end.manifest()
		var err error
		if m.Result == nil {
			err = a.writeResult(m, r)
		}
		if err != nil { // the adopter keeps it for the next start
			fi.cfg.Logger.Warn("the result could not be recorded in the spool", "trial", a.id, "err", err)
		} else if fi.cfg.Adopt != nil {
			fi.cfg.Adopt.Collected(a.run)
		}
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
		// Nothing is left to store but the result: the next attempt can have the spool immediately.
		fi.spools.releaseUntouched(a.spool)
	default:
		free = func() { fi.spools.release(a.spool, end.reuseSpool) }
	}
	a.mu.Lock()
	announced := a.announced
	a.mu.Unlock()
	if r.Class == grid.ClassLost && !a.adopted && !announced {
		// nobody knows that it ran, and another node has the trial: reporting it now would make the
		// trial run once more
		free()
		return true
	}
	at := time.Now().UnixMicro()
	if r.Usage.Wall > 0 {
		at = r.Started + r.Usage.Wall
	}
	curves := grid.CurveShare(fi.heartbeats.curves.Load())
	if fi.cfg.Curves != nil {
		curves = fi.cfg.Curves()
	}
	if stop := a.task.Stop; !curves.Keeps(a.id.Index) {
		compared := r.Curves
		if r.Curves = nil; stop != nil && len(compared[stop.Metric]) > 0 { // other attempts are compared by it
			r.Curves = grid.Curves{stop.Metric: compared[stop.Metric]}
		}
	}
	e := grid.Event{
		Kind: grid.Finished, Index: a.id.Index, Attempt: a.number, Run: a.run, Time: at, Result: r, Image: a.imagePin(),
	}
	fi.outbox.addEvent(a.id.Sweep, report{event: e, ref: &a.output.ref, stored: func() {
		free()
		if a.checkpoint == nil || r.Class != grid.ClassNone {
			return
		}
		if err := fi.checkpoints.remove(a.id); err != nil && !errors.Is(err, fs.ErrNotExist) {
			fi.cfg.Logger.Warn("the checkpoint of a trial that has succeeded could not be removed",
				"trial", a.id, "err", err)
		}
	}})
	return true
}

// collectResults sends the rest of the output and gathers metrics and artifacts, both after a run
// and after a crash. It returns false when only the spool has the artifacts, which then keeps them
// for the next start: the attempt is not reported yet.
func (fi *finisher) collectResults(ctx context.Context, a *attempt, result *grid.Result) bool {
	fi.tail.drain(a)
	line := fi.classifier.classify(a, result)
	if !result.Class.EndsTrial() && result.Class != grid.ClassHalt && result.Class != grid.ClassPreempt {
		result.Reason = joinReason(result.Reason, a.spool.explanation(line))
	}
	a.addMetrics(result)
	files, err := fi.uploads.store(ctx, a)
	if errors.Is(err, errUploadDeferred) {
		fi.cfg.Logger.Warn("artifacts can't be stored while the node stops; the next start stores them", "trial", a.id)
		return false
	}
	if err != nil {
		fi.cfg.Logger.Warn("artifacts could not be stored", "trial", a.id, "err", err)
		result.Reason = joinReason(result.Reason, "artifacts could not be stored: "+err.Error())
	}
	result.Files, result.Left = files, a.unkeptFiles()
	return true
}

// addMetrics adds the metrics and their curves to a result. A metric that a successful trial should
// have left and did not is not a failure, but is mentioned in the reason.
func (a *attempt) addMetrics(r *grid.Result) {
	m := a.readMetrics(true)
	r.Metrics, r.Curves = m.values, m.curves
	if r.Class == grid.ClassNone {
		for _, note := range m.notes {
			r.Reason = joinReason(r.Reason, note)
		}
	}
}

// joinReason joins the parts of a reason that are not empty.
func joinReason(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), "\n")
}

// reasonLines and reasonBytes bound the output that goes into the reason of a failure.
const (
	reasonLines = 5
	reasonBytes = 2048
)

// explanation returns the last lines of the output, with the line that identifies the failure, if
// any.
func (s *spool) explanation(line string) string {
	for _, f := range []*os.File{s.stderr, s.stdout} {
		if lines := lastLines(f, reasonLines, reasonBytes); lines != "" {
			if line != "" && !strings.Contains(lines, line) {
				lines = line + "\n" + lines
			}
			return lines
		}
	}
	return ""
}
