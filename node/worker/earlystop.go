package worker

import (
	"time"

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
