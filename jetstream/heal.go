package jetstream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// healInterval is how often a folder that could not be written is tried again.
	healInterval = 500 * time.Millisecond
	// healBytes must be writable before JetStream is opened again: room for its own files and some messages.
	healBytes = 4 << 20
)

// tend waits for error reports of nats-server. When a stream has stopped for a write error, operations fail with ErrDisk
// until the folder can be written again and JetStream is reopened.
func (s *Server) tend(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.suspect:
		}
		if h := s.nats.Healthz(nil); h.Error != "" {
			s.failed(h.Error)
			s.heal(ctx)
		}
	}
}

// failed lets everything that waits for the server return at once.
func (s *Server) failed(msg string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(&diskError{reason: reason(msg)})
}

// reason shortens nats-server's message to the system's words, which come last.
func reason(msg string) string {
	return strings.TrimSpace(msg[strings.LastIndexByte(msg, ':')+1:])
}

func (s *Server) heal(ctx context.Context) {
	tick := time.NewTicker(healInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := probe(s.dir); err != nil {
			continue
		}
		if err := s.reopen(); err != nil {
			s.log.Warn("store can't be opened again yet", "err", err)
			continue
		}
		s.log.Info("store can be written again")
		return
	}
}

// blame puts the state of the disk in the place of an error that it explains: nats-server's own words hide it.
func (s *Server) blame(err error) error {
	if bad := probe(s.dir); bad != nil {
		return &diskError{reason: reason(bad.Error())}
	}
	return err
}

// probe writes and flushes healBytes in the folder.
func probe(dir string) error {
	name := filepath.Join(dir, "probe")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, healBytes))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(name))
}

// reopen closes and opens JetStream; connections stay.
func (s *Server) reopen() error {
	if err := s.nats.ShutdownJetStream(); err != nil {
		return fmt.Errorf("close JetStream: %w", err)
	}
	select { // reports from before
	case <-s.suspect:
	default:
	}
	if err := mend(s.opts.StoreDir); err != nil {
		return err
	}
	err := s.nats.EnableJetStream(&server.JetStreamConfig{
		StoreDir: s.opts.StoreDir, SyncAlways: s.opts.SyncAlways, MaxMemory: s.opts.JetStreamMaxMemory,
		MaxStore: s.opts.JetStreamMaxStore, Strict: true,
	})
	if err == nil {
		err = s.checkStreams()
	}
	if err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alive, s.end = context.WithCancelCause(context.Background()) // ends with Close
	return nil
}
