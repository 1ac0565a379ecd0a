package master

import (
	"errors"
	"testing"
)

// TestProblemsStay lets each subsystem of the master fail while others succeed: its problem is
// shown until that subsystem succeeds, and is logged once.
func TestProblemsStay(t *testing.T) {
	for of := range subsystemCount {
		c := startMaster(t, 1)
		c.inLoop(func(s *scheduler) {
			s.reportProblem(t.Context(), of, errors.New("disk full"))
			if got := c.Problem(); got != "disk full" || !c.hasProblem() {
				t.Errorf("part %d fails: got %q, hindered %t", of, got, c.hasProblem())
			}
			for other := range subsystemCount {
				if other != of {
					s.reportProblem(t.Context(), other, nil)
				}
			}
			if c.Problem() == "" {
				t.Errorf("part %d fails, and the others take its problem away", of)
			}
			if c.setProblem(of, "disk full") {
				t.Errorf("part %d fails again, which is taken for news", of)
			}
			s.reportProblem(t.Context(), of, nil)
			if got := c.Problem(); got != "" || c.hasProblem() {
				t.Errorf("part %d works again: got %q, hindered %t", of, got, c.hasProblem())
			}
		})
	}
}
