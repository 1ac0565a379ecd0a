package worker

import (
	"testing"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// TestSamplesTravelWithBeats checks that a sample is sent once, and again only if there was no
// answer.
func TestSamplesTravelWithBeats(t *testing.T) {
	s := newHarness(t, nil)
	sample := &jetstream.Sample{CPU: 5}
	s.cfg.Sample = func() *jetstream.Sample { return sample }
	if told := s.heartbeats.send(t.Context(), nil); told != nil {
		t.Fatalf("without a master %+v was told", told)
	}
	var got []*jetstream.Sample
	defer s.store.Calls.HandleHeartbeats(func(_ grid.NodeID, b *jetstream.Heartbeat) jetstream.Directives {
		got = append(got, b.Sample)
		return jetstream.Directives{}
	})()
	told := s.heartbeats.send(t.Context(), nil)
	told = s.heartbeats.send(t.Context(), told)
	sample = &jetstream.Sample{CPU: 6}
	s.heartbeats.send(t.Context(), told)
	if len(got) != 3 || got[0] == nil || got[0].CPU != 5 || got[1] != nil || got[2] == nil || got[2].CPU != 6 {
		t.Errorf("got %+v", got)
	}
}
