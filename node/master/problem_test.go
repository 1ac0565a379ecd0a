package master

import (
	"errors"
	"testing"
)

// TestProblemsStay has each part of the master's work fail while others go well: what hinders it is shown until that part works, and it is
// logged once.
func TestProblemsStay(t *testing.T) {
	for of := range works {
		c := start(t, 1)
		c.on(func(s *state) {
			s.report(t.Context(), of, errors.New("disk full"))
			if got := c.Problem(); got != "disk full" || !c.hindered() {
				t.Errorf("part %d fails: got %q, hindered %t", of, got, c.hindered())
			}
			for other := range works {
				if other != of {
					s.report(t.Context(), other, nil)
				}
			}
			if c.Problem() == "" {
				t.Errorf("part %d fails, and the others take its problem away", of)
			}
			if c.setProblem(of, "disk full") {
				t.Errorf("part %d fails again, which is taken for news", of)
			}
			s.report(t.Context(), of, nil)
			if got := c.Problem(); got != "" || c.hindered() {
				t.Errorf("part %d works again: got %q, hindered %t", of, got, c.hindered())
			}
		})
	}
}
