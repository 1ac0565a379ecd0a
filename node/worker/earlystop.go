package worker

import (
	"context"
	"errors"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// earlyStopInterval is how often the metrics of running attempts that may be stopped early are
// read.
const earlyStopInterval = time.Second

// earlyStop is the cause with which an attempt is stopped because it does worse than others. The
// executor treats it as a cancellation.
type earlyStop string

// Error says in which way the attempt does worse.
func (w earlyStop) Error() string { return string(w) }

// Unwrap makes the executor stop the program like that of a cancelled trial.
func (earlyStop) Unwrap() error { return executor.ErrCancelled }

// cancel stops the attempt's program, if it runs.
func (a *attempt) cancel() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancelProgram != nil {
		a.cancelProgram(executor.ErrCancelled)
	}
}

// stopContext returns the context of the attempt's program, which stopEarly and cancel can end.
func (a *attempt) stopContext(ctx context.Context) context.Context {
	ctx, stop := context.WithCancelCause(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancelProgram = stop
	return ctx
}

// stopEarly stops the attempt's program if there is a reason. a.mu is held.
func (a *attempt) stopEarly(why string) {
	if why != "" && a.cancelProgram != nil {
		a.cancelProgram(earlyStop(why))
	}
}

// applyEarlyStop gives the outcome of a program that was stopped early its reason.
func (a *attempt) applyEarlyStop(ctx context.Context, out *executor.Outcome) {
	a.mu.Lock()
	stop := a.cancelProgram
	a.cancelProgram = nil
	a.mu.Unlock()
	defer stop(nil) // the context is over
	if why := earlyStop(""); errors.As(context.Cause(ctx), &why) && out.Class == grid.ClassCancel {
		out.Class, out.Reason = grid.ClassStopped, why.Error()
	}
}

// comparedCurve returns the curve by which other attempts are compared with this one.
func comparedCurve(t *grid.Task, all grid.Curves) grid.Curves {
	if t.Stop == nil || len(all[t.Stop.Metric]) == 0 {
		return nil
	}
	return grid.Curves{t.Stop.Metric: all[t.Stop.Metric]}
}
