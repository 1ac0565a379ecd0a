//go:build fakegpus

package node

import (
	"context"
	"os"

	"mlfnode/cluster/inventory"
	"mlfnode/cluster/inventory/inventorytest"
	"mlfnode/node/config"
)

// gpuSource, in a program that was built for tests of whole clusters (-tags fakegpus), makes the
// GPUs that $MLF_FAKE_GPUS describes and the file $MLF_FAKE_GPUS_SCRIPT.NODE changes; see
// inventorytest.New. Other programs do not know these variables.
func gpuSource(c *config.Config) inventory.Source {
	description := os.Getenv("MLF_FAKE_GPUS")
	if description == "" {
		return c.GPUs
	}
	script := os.Getenv("MLF_FAKE_GPUS_SCRIPT")
	if script != "" {
		script += "." + string(c.Node) // several nodes of a test may share the folder
	}
	f, err := inventorytest.New(description, string(c.Node), script)
	if err != nil {
		return broken{err}
	}
	return f
}

// broken is a source that only has a problem.
type broken struct{ err error }

func (b broken) Read(_ context.Context, m *inventory.Machine) { m.GPUProblem = b.err.Error() }
func (b broken) Sample(context.Context) (inventory.Sample, error) {
	return inventory.Sample{}, b.err
}
func (broken) Close() {}
