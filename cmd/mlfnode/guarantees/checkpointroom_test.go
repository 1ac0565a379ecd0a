package guarantees

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
)

// TestCheckpointMakesRoom has an urgent trial wait on a full cluster: after a minute others save
// their state for it, and continue behind it without a step done twice.
func TestCheckpointMakesRoom(t *testing.T) {
	t.Parallel()
	p := counters{newScenario(t, 2, hosts.Options{})}
	defer p.logAttempts()
	p.countUp(4, "{grace: 30s}", "((step > 90)) || sleep 1")
	p.waitForStep(2)
	dir := p.newFile("urgent")
	project := `name: urgent
tasks:
  now:
    command: ["true"]
    preempt: true
    resources: {cpus: 2}
`
	if err := errors.Join(os.Mkdir(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "project.yaml"), []byte(project), 0o644)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.Master.Must("sweep", "-q", "--priority", "5", dir)
	t.Logf("the urgent trial has ended after %v", time.Since(began).Round(time.Second))
	repeated, back := p.checkCounted()
	if repeated > 0 || back > 0 {
		t.Errorf("got %d steps done twice, %d back; want none", repeated, back)
	}
	made := 0
	for _, tr := range p.trials(p.client(p.Master)) {
		made += tr.Attempts - 1
	}
	if made < 2 || made > 4 {
		t.Errorf("got %d trials that made room, want 2, or 4 when both hosts offered it", made)
	}
}
