package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"mlfnode/grid"
)

// unknownFields are fields that only a newer program knows, to be added to a message.
const unknownFields = `"unheard":{"of":[1,2]},"later":"field"`

// recordHeartbeats answers heartbeats, and returns those that it has received.
func recordHeartbeats(t *testing.T, s *Store, answer Directives) <-chan Heartbeat {
	t.Helper()
	heard := make(chan Heartbeat, 4)
	t.Cleanup(s.Calls.HandleHeartbeats(func(_ grid.NodeID, b *Heartbeat) Directives {
		heard <- *b
		return answer
	}))
	return heard
}

// TestHeartbeatsOfOtherVersions sends the master heartbeats of an older and a newer node.
func TestHeartbeatsOfOtherVersions(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	heard := recordHeartbeats(t, l.store, Directives{Drain: true, Reason: "why"})
	w := l.connect("w")
	for name, c := range map[string]struct {
		text string
		want Heartbeat
	}{
		"older, without what was added later": {`{"v":1,"start":"x","running":1}`,
			Heartbeat{V: 1, Start: "x", Running: 1}},
		"older, without a version": {`{"start":"x","held":[{"s":7,"d":2}]}`,
			Heartbeat{Start: "x", Leases: []HeldLease{{Seq: 7, Deliveries: 2}}}},
		"newer, with unknown fields": {`{"v":2,"start":"x","held":[{"s":7,"d":2,` + unknownFields + `}],` +
			unknownFields + `}`, Heartbeat{V: 2, Start: "x", Leases: []HeldLease{{Seq: 7, Deliveries: 2}}}},
		"newer, with unknown wire types": {`{"v":9,"start":"x","versions":{"beat":9,"unheard":1}}`,
			Heartbeat{V: 9, Start: "x"}},
	} {
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		msg, err := w.conn.RequestWithContext(ctx, callSubject("w", callHeartbeat), []byte(c.text))
		stop()
		if err != nil {
			t.Errorf("%s: no answer: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c.want, <-heard); diff != "" {
			t.Errorf("%s: heard (-want +got):\n%s", name, diff)
		}
		if got := string(msg.Data); !strings.Contains(got, `"drain":true`) || !strings.Contains(got, `"reason":"why"`) {
			t.Errorf("%s: got answer %s", name, got)
		}
	}
}

// TestUnknownCallsAreRefused makes a call that only a newer master knows. Heartbeats still work.
func TestUnknownCallsAreRefused(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	recordHeartbeats(t, l.store, Directives{Reason: "still there"})
	w := l.connect("w")
	if _, err := w.request(t.Context(), "unheard", &nats.Msg{Data: []byte("{}")}); err == nil ||
		!strings.Contains(err.Error(), "update the master") {
		t.Errorf("got %v, want the advice to update the master", err)
	}
	if o, err := w.SendHeartbeat(t.Context(), Heartbeat{Start: "x"}); err != nil || o.Reason != "still there" {
		t.Errorf("got %+v, %v", o, err)
	}
}

// TestDirectivesOfOtherVersions sends a node the directives of an older and a newer master.
func TestDirectivesOfOtherVersions(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	l.store.callServer.close() // another version answers
	var answer string
	sub, err := l.store.conn.Subscribe(callSubject("w", callHeartbeat), func(m *nats.Msg) {
		_ = m.Respond([]byte(answer))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	w := l.connect("w")
	for text, want := range map[string]Directives{
		`{}`:                   {},
		`{"v":1,"stop":["a"]}`: {V: 1, Stop: []grid.LeaseID{"a"}},
		`{"v":9,"stop":["a"],` + unknownFields + `}`: {V: 9, Stop: []grid.LeaseID{"a"}},
	} {
		answer = text
		got, err := w.SendHeartbeat(t.Context(), Heartbeat{Start: "x"})
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: got %v (-want +got):\n%s", text, err, diff)
		}
	}
}

// putRaw stores a raw message, as a program of another version would.
func putRaw(t *testing.T, s *Store, subject, text string) {
	t.Helper()
	if _, err := s.js.Publish(t.Context(), subject, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// TestLeasesOfOtherVersions checks that unknown fields do no harm, and that a lease of a newer
// version is neither run nor lost.
func TestLeasesOfOtherVersions(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	text := func(v int) string {
		b, err := json.Marshal(Lease{Level: v, Sweep: "a-1", Lo: 0, Hi: 5, Attempt: 1})
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(string(b), "}") + "," + unknownFields + "}"
	}
	putRaw(t, s, leaseSubject("c1"), text(leaseVersion+1))
	putRaw(t, s, leaseSubject("c1"), text(leaseVersion))
	if _, err := s.Queue.Publish(t.Context(),
		Lease{Sweep: "b-1", Hi: 1, Attempt: 1, Shape: "c2", Level: leaseVersion}); err != nil {
		t.Fatal(err)
	}
	raw, err := s.js.Stream(t.Context(), leaseStream)
	if err != nil {
		t.Fatal(err)
	}
	if msg, err := raw.GetLastMsgForSubject(t.Context(), leaseSubject("c2")); err != nil ||
		!strings.Contains(string(msg.Data), fmt.Sprintf(`"v":%d`, leaseVersion)) {
		t.Errorf("lease of a task that older nodes can't run: got %s, %v; want version %d", msg.Data, err, leaseVersion)
	}
	if err := s.Queue.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustTake(t, s.Queue, "c1", 2, 0)
	if got := s.Queue.leases["#2"]; got == nil || got.Sweep != "a-1" || got.Hi != 5 {
		t.Errorf("got lease %+v, want one with an ID made of its sequence, since its master gave it none", got)
	}
	all, err := s.Queue.List(t.Context())
	if err != nil || len(all) != 3 {
		t.Errorf("in the queue: got %v, %v, want all", all, err)
	}
}

// TestEventsOfOtherVersions checks that fields that a newer node adds to its events are ignored,
// and that the rest counts.
func TestEventsOfOtherVersions(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	putRaw(t, s, eventSubject("n1", "a-1"), `{"v":1,"s":"a-1","n":"n1",`+unknownFields+`,"e":[`+
		`{"k":"unheard","i":1,"r":"n1.1.1","t":1,`+unknownFields+`},`+
		`{"k":"finished","i":2,"a":1,"r":"n1.1.2","t":2,`+unknownFields+`,"x":{"c":"brand-new class","s":1,"u":{"w":5,`+
		unknownFields+`},`+unknownFields+`}}]}`)
	if _, err := s.Events.Publish(t.Context(), batch("a-1", 3, 1)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var got []grid.Event
	_ = s.Events.Read(ctx, 1, func(stored []StoredBatch) error {
		for _, st := range stored {
			got = append(got, st.Batch.Events...)
			if st.Seq == 2 {
				stop()
			}
		}
		return nil
	})
	if len(got) != 3 || got[0].Kind != "unheard" || got[1].Result == nil ||
		got[1].Result.Usage.Wall != 5 || got[2].Index != 3 {
		t.Errorf("got %+v", got)
	}
}

// TestEventsOfNewerVersions stores and reports events that only a newer program can read. The
// reader gets what precedes them, and ends with an error that says what to do. The reported ones
// are not stored, so that their node keeps them.
func TestEventsOfNewerVersions(t *testing.T) {
	t.Parallel()
	for name, newer := range map[string]string{
		"of another form": `{"v":99,"s":"a-1","n":"n1","e":"of another form"}`,
		"of the same":     `{"v":99,"s":"a-1","n":"n1","e":[{"k":"finished","i":1,"a":1,"r":"n1.1.1","t":1}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestServer(t)
			s := l.store
			if _, err := s.Records.Create(t.Context(), sweep("a-1")); err != nil {
				t.Fatal(err)
			}
			m, err := l.natsClient("n1").Request(callSubject("n1", callEvents), []byte(newer), time.Minute)
			if err != nil || !errors.Is(errorOf(m), errRefused) ||
				!strings.Contains(string(m.Data), "update mlfnode on the master") {
				t.Errorf("a node that reports them: got %s, %v; want the advice to update", m.Data, err)
			}
			if _, err := s.Events.Publish(t.Context(), batch("a-1", 0, 1)); err != nil {
				t.Fatal(err)
			}
			putRaw(t, s, eventSubject("n1", "a-1"), newer)
			if _, err := s.Events.Publish(t.Context(), batch("a-1", 1, 1)); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			last := uint64(0)
			err = s.Events.Read(ctx, 1, func(stored []StoredBatch) error {
				last = stored[len(stored)-1].Seq
				return nil
			})
			if err == nil || !strings.Contains(err.Error(), "version 99") ||
				!strings.Contains(err.Error(), "update mlfnode") || last != 1 {
				t.Errorf("read up to %d, %v; want the message before them, and the advice", last, err)
			}
		})
	}
}

// TestForgedVersionsAreSkipped stores messages of a newer version that no program has stored under
// its own name: they hide nothing, so that a master can start.
func TestForgedVersionsAreSkipped(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	for _, forged := range []string{
		`{"v":99,"s":"a-1","n":"n2","e":[]}`, `{"v":99,"s":"a-1","e":[]}`, `{"v":99,"s":"a-1","n":7}`,
		`{"v":99,"s":"a-1","n":"n1"`,
	} {
		putRaw(t, s, eventSubject("n1", "a-1"), forged)
	}
	last, err := s.Events.Publish(t.Context(), batch("a-1", 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	read := 0
	err = s.Events.Read(ctx, 1, func(stored []StoredBatch) error {
		for _, st := range stored {
			if read += len(st.Batch.Events); st.Seq == last {
				stop()
			}
		}
		return nil
	})
	if read != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %d events and %v, want the one of the next message", read, err)
	}
}

// TestRecordsOfOtherVersions checks that a sweep of a newer version is left out, with the reason,
// and hides no other.
func TestRecordsOfOtherVersions(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	putRaw(t, s, recordSubject("a-1"), `{"v":99,"id":"a-1","state":{"of":"another form"}}`)
	putRaw(t, s, recordSubject("a-2"), `{"v":2,"id":"a-2","project":"p"}`)
	putRaw(t, s, recordSubject("a-3"), `{"v":1,"id":"a-3","project":"p","state":"running",`+unknownFields+`}`)
	all, err := s.Records.All(t.Context())
	if err != nil || len(all) != 1 || all[0].Sweep.ID != "a-3" || all[0].Sweep.Project != "p" {
		t.Errorf("all: got %+v, %v, want a-3 alone", all, err)
	}
	if _, err := s.Records.Load(t.Context(), "a-2"); err == nil || !strings.Contains(err.Error(), "update mlfnode") {
		t.Errorf("load: got %v, want the advice to update", err)
	}
}

// TestOutputOfOtherVersionsIsSkipped checks that a message in another format hides no other.
func TestOutputOfOtherVersionsIsSkipped(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	putRaw(t, s, logSubject("n1", "a-1"), string([]byte{chunkVersion + 1, 1, 2, 3}))
	if _, _, err := s.Logs.Publish(t.Context(), "a-1",
		[]Chunk{{Index: 4, Run: "n1-1-2", Stream: 1, Data: []byte("text")}}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var got []Chunk
	_ = s.Logs.Read(ctx, "a-1", LogRange{Follow: true}, func(_ uint64, chunks []Chunk) error {
		got = append(got, chunks...)
		stop()
		return nil
	})
	if len(got) != 1 || string(got[0].Data) != "text" {
		t.Errorf("got %+v, want the one that can be read", got)
	}
}
