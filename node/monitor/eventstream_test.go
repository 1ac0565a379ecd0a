package monitor

import "testing"

// TestTopicsOfTrials refuses topics that do not name exactly one trial.
func TestTopicsOfTrials(t *testing.T) {
	t.Parallel()
	b := newSweepBench(t)
	id := string(b.submit(t, "p", "x", 2, 0))
	for topic, want := range map[string]bool{"/0": true, "/1": true, "/2": false, "/-1": false, "/": false,
		"": false, "/x": false} {
		if _, err := b.handlers.events.topics("trial:" + id + topic); (err == nil) != want {
			t.Errorf("trial:%s%s: got %v, want that it is a topic: %v", id, topic, err, want)
		}
	}
}
