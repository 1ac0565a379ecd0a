package natsd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"mlfnode/node/poll"
)

const (
	// recoverInterval is the pause between two attempts to reopen JetStream.
	recoverInterval = 500 * time.Millisecond
	// probeBytes must be writable before JetStream is reopened: room for its own files and some
	// messages.
	probeBytes = 4 << 20
)

// watchHealth waits for errors that nats-server reports. When a stream has stopped after a write
// error, operations fail with ErrDisk until the folder can be written again and JetStream is
// reopened.
func (s *Server) watchHealth(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.errorReported:
		}
		if h := s.nats.Healthz(nil); h.Error != "" {
			s.writable.End(DiskError(h.Error))
			s.recoverStore(ctx)
		}
	}
}

// recoverStore reopens JetStream once the folder can be written, or returns when ctx ends.
func (s *Server) recoverStore(ctx context.Context) {
	for poll.Sleep(ctx, recoverInterval) {
		if probe(s.dir) != nil {
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

// Diagnose returns ErrDisk, with the system's reason, if the folder can't be written, and err
// otherwise. nats-server's own errors hide a full disk.
func (s *Server) Diagnose(err error) error {
	if probeErr := probe(s.dir); probeErr != nil {
		return DiskError(probeErr.Error())
	}
	return err
}

// probe writes and flushes probeBytes in the folder.
func probe(dir string) error {
	name := filepath.Join(dir, "probe")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, probeBytes))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(name))
}

// reopen closes and opens JetStream; connections stay.
func (s *Server) reopen() error {
	if err := s.nats.ShutdownJetStream(); err != nil {
		return fmt.Errorf("close JetStream: %w", err)
	}
	select { // discard earlier reports
	case <-s.errorReported:
	default:
	}
	if err := repair(s.opts.StoreDir, s.disposable); err != nil {
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
	s.writable.Begin(context.Background()) // ends with Close
	return nil
}

// StreamFull reports whether nats-server's description of a refused write says that the stream has
// reached its limit.
func StreamFull(description string) bool {
	return strings.Contains(description, server.ErrMaxBytes.Error())
}

// DiskError returns ErrDisk with the operating system's part of nats-server's description of a
// failed write, which comes last.
func DiskError(description string) error {
	return &diskError{strings.TrimSpace(description[strings.LastIndexByte(description, ':')+1:])}
}

// diskError is ErrDisk with the system's reason.
type diskError struct{ reason string }

func (e *diskError) Error() string {
	return fmt.Sprintf("%v (%s). Make room or fix the disk; the store then recovers by itself", ErrDisk, e.reason)
}

func (e *diskError) Is(target error) bool { return target == ErrDisk }
