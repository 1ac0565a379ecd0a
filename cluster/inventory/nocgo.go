//go:build !cgo

package inventory

import "context"

// devices reads GPUs through nvidia-smi, which needs no library in this process.
type devices struct{}

func newDevices() *devices { return &devices{} }

func (*devices) close() {}

func (*devices) read(ctx context.Context, m *Machine) { readSMI(ctx, m) }
