package docker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// stopSpan is how long before the end of a container a signal of somebody else counts as its cause: an engine that stops waits that
// long for its containers, at most.
const stopSpan = time.Minute

// outcome says how the attempt ended. The exit code alone does not tell: an engine that is stopped ends its containers, and a program
// that takes that well ends with 0.
func (r *run) outcome(e ending, s stopped) executor.Outcome {
	var heard evidence
	if r.away = e.away; !r.away {
		heard = r.heardOf(r.x.ctx)
	}
	r.out.drain()
	r.look()
	o := executor.Outcome{Start: r.began(), End: time.Now(), ExitCode: grid.NoExit}
	if e.state != nil {
		if end, err := time.Parse(time.RFC3339Nano, e.state.FinishedAt); err == nil && end.After(o.Start) && end.Before(o.End) {
			o.End = end
		}
		o.ExitCode = e.state.ExitCode
	}
	o.Class, o.Reason = r.cause(e, s, heard, o)
	if r.meter != nil {
		o.Usage = r.meter.Usage(o.End.Sub(o.Start).Microseconds())
	} else {
		o.Usage.Wall = o.End.Sub(o.Start).Microseconds()
	}
	if o.Class == grid.ClassMemory {
		o.Reason = executor.OutOfMemory(r.attempt.Memory, o.Usage.Memory)
	}
	if refused, ok := r.refusedByWrapper(o.ExitCode); ok && s.class == "" {
		refused.Start, refused.End = o.Start, o.End
		return refused
	}
	r.out.sink.Conclude(&o)
	return o
}

// cause finds what ended the container: ourselves, the engine, the kernel, or the program.
func (r *run) cause(e ending, s stopped, heard evidence, o executor.Outcome) (grid.Class, string) {
	killer := cmp.Or(heard.signal, unix.Signal(o.ExitCode-128))
	switch {
	case s.class != "":
		return s.class, s.reason
	case e.away:
		return grid.ClassEngine, fmt.Sprintf("the container engine was away for longer than %s, and the container is gone", r.x.o.Patience)
	case e.state == nil:
		return grid.ClassEngine, "somebody removed its container while it ran"
	case e.state.Error != "":
		f := launchFault("start", fmt.Errorf("%s", e.state.Error)).(*Fault)
		return f.Class, f.Reason
	case o.ExitCode != 0 && (heard.oom || e.state.OOMKilled || r.meter != nil && r.meter.Kills > 0):
		return grid.ClassMemory, ""
	case ends(killer) && !heard.killed.IsZero() && o.End.Sub(heard.killed) < stopSpan:
		return grid.ClassEngine, fmt.Sprintf("the engine, or somebody with its tools, stopped the container (%s)", unix.SignalName(killer))
	case r.restarted(e.state, heard):
		return grid.ClassEngine, "the container engine was restarted while it ran, and the container ended with it"
	}
	return executor.ExitVerdict(o.ExitCode)
}

// foundDead is the exit code that an engine gives to containers that it finds dead at its start.
const foundDead = 255

// restarted reports an end that looks like that of an engine whose events nobody could hear.
func (r *run) restarted(state *container.State, heard evidence) bool {
	r.x.mu.Lock()
	breaks := r.x.breaks
	r.x.mu.Unlock()
	return breaks > heard.breaks && (slices.Contains([]int{128 + int(unix.SIGKILL), 128 + int(unix.SIGTERM), foundDead}, state.ExitCode) ||
		state.Status == container.StateDead)
}
