package natsd

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestClientsCanNotFillTheLog logs a thousand refused connections, and then an error of the
// server's own.
func TestClientsCanNotFillTheLog(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	reported := make(chan struct{}, 1)
	l := &serverLog{log: slog.New(slog.NewTextHandler(&text, nil)), errorReported: reported}
	for i := range 1000 {
		l.Errorf("10.0.0.9:4%03d - cid:%d - TLS handshake error: %s", i, i, "bad certificate")
	}
	if n := strings.Count(text.String(), "\n"); n != 1 || len(reported) != 0 {
		t.Errorf("got %d lines and %d reports, want one line", n, len(reported))
	}
	l.Errorf("Filestore write: %s", "no space left on device")
	if n := strings.Count(text.String(), "\n"); n != 2 || len(reported) != 1 {
		t.Errorf("got %d lines and %d reports, want two and one", n, len(reported))
	}
}

// TestIntendedSettingsAreNotLogged checks that a healthy start logs nothing, and that a real
// complaint is passed on.
func TestIntendedSettingsAreNotLogged(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	reported := make(chan struct{}, 1)
	l := &serverLog{log: slog.New(slog.NewTextHandler(&out, nil)), errorReported: reported}
	l.Warnf("Clients that are not using \"TLS Handshake First\" option will fail to connect")
	l.Errorf("Address %q can not be resolved properly", "0.0.0.0")
	if out.Len() > 0 || len(reported) > 0 {
		t.Errorf("got %q, %d reports, want silence", out.String(), len(reported))
	}
	l.Errorf("JetStream failed to store a msg on stream %q", "events")
	if out.Len() == 0 || len(reported) != 1 {
		t.Errorf("got %q, %d reports, want both", out.String(), len(reported))
	}
}

// TestRepeatedMessages logs the same message repeatedly, and reports an error each time.
func TestRepeatedMessages(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	reported := make(chan struct{}, 1000)
	l := &serverLog{log: slog.New(slog.NewTextHandler(&out, nil)), errorReported: reported}
	for range 100 {
		l.Errorf("JetStream failed to store a msg on stream %q", "events")
		l.Errorf("JetStream failed to store a msg on stream %q", "logs")
		l.Warnf("Filestore is slow")
	}
	if n := strings.Count(out.String(), "\n"); n != 3 || len(reported) != 200 {
		t.Errorf("got %d lines and %d reports, want 3 and 200:\n%s", n, len(reported), out.String())
	}
	for i := range 1000 {
		l.Warnf("message %d", i)
	}
	if len(l.repeated) > maxRepeated {
		t.Errorf("%d messages are remembered, want at most %d", len(l.repeated), maxRepeated)
	}
}

// TestLevelsAfterAKill checks that messages about what nats-server rebuilds on its own have level
// Info, and that those about a loss have level Warn.
func TestLevelsAfterAKill(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := &serverLog{log: slog.New(slog.NewTextHandler(&out, nil)), errorReported: make(chan struct{}, 1),
		disposable: []string{"leases"}}
	for _, c := range []struct{ msg, level string }{
		{"Filestore [events] Stream state outdated, last block has additional entries, will rebuild", "INFO"},
		{"Filestore [events] Stream state outdated, found extra blocks, will rebuild", "INFO"},
		{"Filestore [logs] Stream state too short (12 bytes)", "INFO"},
		{"Filestore [logs] Stream state checksum did not match", "INFO"},
		{"Filestore [events] Recovering stream state from index errored: prior state file", "INFO"},
		{"Filestore [logs] Recovering stream state from index errored: corrupt state file", "INFO"},
		{"Filestore [records] TTL state is outdated; attempting to recover using linear scan (seq 3 to 4)", "INFO"},
		{"JetStream consumer '$G > leases > x1' delivered sequence 9 past last stream sequence of 7", "INFO"},
		{"JetStream consumer '$G > events > x1' delivered sequence 9 past last stream sequence of 7", "WARN"},
		{"Filestore [events] Stream state detected prior state, could not locate msg block 3", "WARN"},
		{"Filestore [events] Recovering stream state from index errored: permission denied", "WARN"},
		{"Filestore [events] Stream state corrupt subject detected", "WARN"},
		{"Filestore [events] loadBlock error: input/output error", "WARN"},
		{"Stream state outdated, last block has additional entries, will rebuild", "WARN"},
	} {
		out.Reset()
		if l.Warnf("%s", c.msg); !strings.Contains(out.String(), "level="+c.level) {
			t.Errorf("%s: got %q, want level %s", c.msg, out.String(), c.level)
		}
	}
}
