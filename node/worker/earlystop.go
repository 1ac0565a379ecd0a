package worker

import (
	"context"
	"errors"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// comparedInterval is how often metrics are read of running attempts that may be stopped early.
const earlyStopInterval = time.Second

// worse is the cause with which an attempt is stopped that does worse than others. The executor takes it for a cancellation.
type earlyStop string

// Error says in which way the attempt does worse.
func (w earlyStop) Error() string { return string(w) }

// Unwrap has the program stopped like that of a trial that is cancelled.
func (earlyStop) Unwrap() error { return executor.ErrCancelled }

// cancel stops the attempt's program, if it runs.
func (a *attempt) cancel() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancelProgram != nil {
		a.cancelProgram(executor.ErrCancelled)
	}
}

// stoppable gives the context of the attempt's program, which stopIfWorse and cancel can end.
func (a *attempt) stopContext(ctx context.Context) context.Context {
	ctx, stop := context.WithCancelCause(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancelProgram = stop
	return ctx
}

// stopIfWorse stops the attempt's program if there is a reason. a.mu is held.
func (a *attempt) stopEarly(why string) {
	if why != "" && a.cancelProgram != nil {
		a.cancelProgram(earlyStop(why))
	}
}

// reasonOfStop makes the outcome of a program that was stopped early say so.
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

// comparedCurve gives of an attempt's curves the one by which others are compared with it.
func comparedCurve(t *grid.Task, all grid.Curves) grid.Curves {
	if t.Stop == nil || len(all[t.Stop.Metric]) == 0 {
		return nil
	}
	return grid.Curves{t.Stop.Metric: all[t.Stop.Metric]}
}
