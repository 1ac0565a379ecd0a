package master

import (
	"context"

	"mlfnode/grid"
)

// Capacity reports what the nodes of the cluster can run.
type Capacity struct {
	// Slots returns how many attempts with these resources the cluster can run at a time.
	Slots func(grid.Resources) int
	// NeverFits says, in words, why no known node could ever run an attempt with these resources,
	// whatever ends there. It returns "" when a node could, or when no node is known. Nil refuses
	// nothing.
	NeverFits func(grid.Resources) string
	// AwaitDevices waits until the GPUs of this machine have been detected; nil where there is
	// nothing to wait for.
	AwaitDevices func(context.Context)
	// CheckContainers returns why this node can't run containers; nil where other nodes may.
	CheckContainers func(context.Context) error
	// Problem says what keeps trials from running anywhere, "" when nothing does. It may be nil.
	Problem func() string
}

// check refuses a task that no node could ever run. In a cluster a sweep may wait for nodes that
// are away.
func (c *Capacity) check(ctx context.Context, task *grid.Task) error {
	if err := c.checkFits(ctx, task.Resources.Initial()); err != nil {
		return err
	}
	if task.Image != "" && c.CheckContainers != nil {
		if err := c.CheckContainers(ctx); err != nil {
			return conflict("the task runs in a container, and "+err.Error(),
				"start the engine, or see: mlfnode doctor")
		}
	}
	return nil
}

// checkFits refuses resources that no node has.
func (c *Capacity) checkFits(ctx context.Context, r grid.Resources) error {
	if r.NeedsGPU() && c.AwaitDevices != nil {
		c.AwaitDevices(ctx)
	}
	if c.NeverFits == nil {
		return nil
	}
	why, anywhere := c.NeverFits(r), r
	anywhere.Nodes = ""
	switch {
	case why == "":
		return nil
	case r.Nodes != "" && c.NeverFits(anywhere) == "":
		return conflict("no node that the task names can run its trials: "+why,
			"mlfnode members lists the nodes with their labels")
	}
	return conflict("one trial of this task needs more than any node has: "+why, "lower `resources` in project.yaml")
}

// fits reports whether some node could run an attempt with these resources, if not now.
func (c *Capacity) fits(r grid.Resources) bool { return c.NeverFits == nil || c.NeverFits(r) == "" }
