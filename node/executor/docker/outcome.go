package docker

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// stopWindow is how long before a container's end the signal of a third party counts as its cause:
// an engine that shuts down waits at most that long for its containers.
const stopWindow = time.Minute

// exitFoundDead is the exit code that an engine assigns to containers that it finds dead when it
// starts.
const exitFoundDead = 255

// outcome returns how the attempt ended. The exit code alone is not enough: an engine that shuts
// down stops its containers, and a program that handles the signal exits with 0.
func (r *run) outcome(e containerEnd, t termination) executor.Outcome {
	var events containerEvents
	if r.away = e.away; !r.away {
		events = r.x.events.snapshot(r.x.ctx, r.events)
	}
	r.out.drain()
	r.sampleUsage()
	o := executor.Outcome{Start: r.record.began(), End: time.Now(), ExitCode: grid.NoExit}
	if e.state != nil {
		if end, err := time.Parse(time.RFC3339Nano, e.state.FinishedAt); err == nil &&
			end.After(o.Start) && end.Before(o.End) {
			o.End = end
		}
		o.ExitCode = e.state.ExitCode
	}
	if t.class != "" {
		o.Class, o.Reason = t.class, t.reason
		if o.End.Before(t.since) { // Podman reads the kernel's coarse clock, which is some milliseconds slow
			o.End = t.since
		}
	} else {
		o.Class, o.Reason = r.cause(e, events, o)
	}
	if r.meter != nil {
		o.Usage = r.meter.Usage(o.End.Sub(o.Start).Microseconds())
	} else {
		o.Usage.Wall = o.End.Sub(o.Start).Microseconds()
	}
	if o.Class == grid.ClassMemory {
		o.Reason = executor.OutOfMemory(r.attempt.Memory, o.Usage.Memory)
	}
	if refused, ok := r.io.refusal(o.ExitCode, r.record.Program); ok && t.class == "" {
		refused.Start, refused.End = o.Start, o.End
		return refused
	}
	r.out.sink.Conclude(&o)
	return o
}

// cause returns what ended a container that this process did not stop: the engine, the kernel, or
// the program.
func (r *run) cause(e containerEnd, events containerEvents, o executor.Outcome) (grid.Class, string) {
	signal := cmp.Or(events.signal, unix.Signal(o.ExitCode-128))
	switch {
	case e.away:
		return grid.ClassEngine,
			fmt.Sprintf("the container engine was away for longer than %s, and the container is gone",
				r.x.o.OutageTimeout)
	case e.state == nil:
		return grid.ClassEngine, "somebody removed its container while it ran"
	case e.state.Error != "":
		engineErr := launchError("start", errors.New(e.state.Error)).(*EngineError)
		return engineErr.Class, engineErr.Reason
	case o.ExitCode != 0 && (events.oom || e.state.OOMKilled || r.meter != nil && r.meter.Kills > 0):
		return grid.ClassMemory, ""
	case isTerminating(signal) && !events.signaledAt.IsZero() && o.End.Sub(events.signaledAt) < stopWindow:
		return grid.ClassEngine,
			fmt.Sprintf("the engine, or somebody with its tools, stopped the container (%s)", unix.SignalName(signal))
	case r.x.events.sawRestart(e.state, events):
		return grid.ClassEngine, "the container engine was restarted while it ran, and the container ended with it"
	}
	return executor.ExitVerdict(o.ExitCode)
}
