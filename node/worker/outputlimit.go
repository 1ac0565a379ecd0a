package worker

import "mlfnode/node/executor"

// cutOutput is the part of an attempt's output that the executor did not store.
type cutOutput struct {
	Bytes int64 `json:"bytes"`
	// the length of the output in the files stdout and stderr; behind it are the last lines of what
	// was cut
	Kept [2]int64 `json:"kept"`
}

// recordCutOutput records what was cut, and writes its last lines behind the output, for the reason
// of a failure and for metrics.
func (a *attempt) recordCutOutput(out *executor.Outcome) {
	if out.Cut == 0 || a.spool == nil {
		return
	}
	a.limitSources(&cutOutput{Bytes: out.Cut, Kept: out.Kept})
	for i, s := range a.output.sources {
		// Truncated first, so that the result is the same when an agent that died has done it
		// before.
		if i < len(out.Tail) && s.file.Truncate(out.Kept[i]) == nil {
			_, _ = s.file.WriteString(out.Tail[i]) // that it was cut is recorded
		}
	}
}

// limitSources makes only the output itself be sent, and the rest be counted.
func (a *attempt) limitSources(c *cutOutput) {
	if c == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.output.cut = c
	for i, s := range a.output.sources {
		if i < len(c.Kept) {
			s.bounded, s.end = true, c.Kept[i]
		}
	}
}

// outputLimit returns how many bytes of output the program may have stored.
func (a *attempt) outputLimit() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(1, a.logLimit()-a.output.ref.Bytes) // the setup's output counts too
}
