package process_test

import (
	"fmt"
	"log/slog"
	"os"
	"testing"

	"mlfnode/node/executor"
	"mlfnode/node/executor/executortest"
	"mlfnode/node/executor/process"
)

// choices are the ways of tracking trees that this machine may have.
var choices = []process.Cgroups{process.CgroupsV1, process.CgroupsV2, process.CgroupsV2Old, process.CgroupsOff}

func newProcess(t testing.TB, choice process.Cgroups) *process.Executor {
	t.Helper()
	p, err := process.New(process.Options{Token: fmt.Sprintf("executor-test-%d", os.Getpid()), DieWithAgent: true,
		Cgroups: choice}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("make executor: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close executor: %v", err)
		}
	})
	return p
}

func TestConformance(t *testing.T) {
	for _, choice := range choices {
		t.Run(string(choice), func(t *testing.T) {
			executortest.Run(t, func(t *testing.T) executor.Executor { return newProcess(t, choice) })
		})
	}
}
