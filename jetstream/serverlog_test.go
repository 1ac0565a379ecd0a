package jetstream

import (
	"bytes"
	"log/slog"
	"testing"
)

// TestServerLogIsQuietAboutWhatIsMeant holds that a healthy start complains of nothing, and that a real complaint is passed on.
func TestServerLogIsQuietAboutWhatIsMeant(t *testing.T) {
	var out bytes.Buffer
	suspect := make(chan struct{}, 1)
	l := &serverLog{log: slog.New(slog.NewTextHandler(&out, nil)), suspect: suspect}
	l.Warnf("Clients that are not using \"TLS Handshake First\" option will fail to connect")
	l.Errorf("Address %q can not be resolved properly", "0.0.0.0")
	if out.Len() > 0 || len(suspect) > 0 {
		t.Errorf("got %q, %d suspicions, want silence", out.String(), len(suspect))
	}
	l.Errorf("JetStream failed to store a msg on stream %q", "events")
	if out.Len() == 0 || len(suspect) != 1 {
		t.Errorf("got %q, %d suspicions, want both", out.String(), len(suspect))
	}
}
