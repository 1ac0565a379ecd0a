package worker

import "mlfnode/node/executor"

// cutOutput is what the executor did not store of an attempt's output.
type cutOutput struct {
	Bytes int64    `json:"bytes"`
	Kept  [2]int64 `json:"kept"` // what of the files stdout and stderr is output; behind it are the last lines of what was cut
}

// cutOff notes what was cut, and writes the last lines of it behind the output, for those who look for last words and metrics.
func (a *attempt) recordCutOutput(out *executor.Outcome) {
	if out.Cut == 0 || a.spool == nil {
		return
	}
	a.limitSources(&cutOutput{Bytes: out.Cut, Kept: out.Kept})
	for i, s := range a.output.sources {
		// Truncated, so that it is the same when an agent that dies has done it before.
		if i < len(out.Tail) && s.file.Truncate(out.Kept[i]) == nil {
			_, _ = s.file.WriteString(out.Tail[i]) // that it was cut is noted
		}
	}
}

// bound has only what is output shipped, and the rest counted.
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

// outputLimit is how many bytes of output the program may have stored.
func (a *attempt) outputLimit() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(1, a.logLimit()-a.output.ref.Bytes) // the setup's output counts too
}
