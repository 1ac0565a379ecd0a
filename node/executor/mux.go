package executor

import (
	"context"
	"errors"

	"mlfnode/grid"
)

// Mux runs each attempt as a process or in a container, as its Spec says. Its slots hold a slot of
// Process, which is expensive to make and kept warm, and create a slot of Containers with the first
// attempt that needs one.
type Mux struct {
	Process    Executor
	Containers Executor // if nil, attempts with a container are refused
}

var _ Executor = (*Mux)(nil)

// Slot creates a slot of Process.
func (m *Mux) Slot() (Slot, error) {
	process, err := m.Process.Slot()
	if err != nil {
		return nil, err
	}
	return &muxSlot{Slot: process, containers: m.Containers}, nil
}

// muxSlot is a slot for processes that creates one for containers on demand.
type muxSlot struct {
	Slot
	containers Executor
	container  Slot // nil before the first attempt that needs one
}

// Run implements Slot.
func (s *muxSlot) Run(ctx context.Context, a *Attempt) Outcome {
	if a.Container == nil {
		return s.Slot.Run(ctx, a)
	}
	if s.containers == nil {
		return Refused(grid.ClassNode, "this node runs no containers")
	}
	if s.container == nil {
		slot, err := s.containers.Slot()
		if err != nil {
			return Refused(grid.ClassNode, "no slot for a container: "+err.Error())
		}
		s.container = slot
	}
	return s.container.Run(ctx, a)
}

// Close implements Slot.
func (s *muxSlot) Close() error {
	err := s.Slot.Close()
	if s.container != nil {
		err = errors.Join(err, s.container.Close())
	}
	return err
}
