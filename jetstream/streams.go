package jetstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
	"mlfnode/jetstream/natsd"
)

const (
	// maxPayload bounds a message. Larger content is split.
	maxPayload = natsd.MaxPayload
	// splitBytes is the size at which batches of events and chunks of output are split. Half of
	// maxPayload leaves room for headers and for one oversized event, and larger messages gain
	// nothing over the cost of a flush.
	splitBytes = 512 << 10

	// eventWindow is how long nats-server recognizes an event batch that is published twice. A
	// worker retries every second, and the fold ignores later repetitions. A longer window slows
	// the start down: nats-server reads all messages of the window.
	eventWindow = 5 * time.Second
	// shortWindow is nats-server's smallest window (0 means 2 minutes). It switches recognition off
	// where repetitions are harmless.
	shortWindow = 100 * time.Millisecond

	// queueBytes bounds the lease queue. The master keeps a few hundred leases of some 200 bytes,
	// so the queue only gets there if something is broken. Then publishing fails, and the disk does
	// not fill.
	queueBytes = 64 << 20
	// recordBytes bounds sweep records: 1,000 kept sweeps of at most maxPayload.
	recordBytes = 2 << 30
	// markerAge is how long the removal of a record is visible to a watcher that has lost its
	// connection.
	markerAge = time.Hour
)

// streams returns the configuration of all streams, with every setting that differs from "one
// replica, in files, no other limits".
func streams(l Limits) []js.StreamConfig {
	return []js.StreamConfig{
		{
			// Synced: a submitted sweep is never lost. One message per record; a new version
			// replaces the old one.
			Name: recordStream, Subjects: []string{recordSubjects, numberSubjects, probeSubject, cutSubjects},
			MaxMsgsPerSubject: 1, MaxBytes: recordBytes,
			Discard: js.DiscardNew, Duplicates: shortWindow, AllowMsgTTL: true, AllowDirect: true,
		},
		{
			// Not synced: a lost lease is leased again. Work queue: a lease leaves when it is
			// acknowledged, so the stream is the list of what is leased.
			Name: leaseStream, Subjects: []string{leaseSubjects},
			Retention: js.WorkQueuePolicy, PersistMode: js.AsyncPersistMode,
			MaxBytes: queueBytes, Discard: js.DiscardNew, Duplicates: shortWindow, AllowDirect: true,
		},
		{
			// Synced, and never shortened by itself: events are the truth. When the stream is full,
			// trials wait until old sweeps are removed.
			Name: eventStream, Subjects: []string{eventSubjects}, MaxBytes: l.EventBytes, Discard: js.DiscardNew,
			Duplicates: eventWindow, AllowDirect: true,
		},
		{
			// Synced: the worker gives up its spool file once output is acknowledged. The oldest
			// output is removed first.
			Name: logStream, Subjects: []string{logSubjects},
			MaxBytes: l.LogBytes, Discard: js.DiscardOld, Duplicates: shortWindow,
			AllowDirect: true,
		},
		objectStream(bundleBucket, l.BundleBytes),
		objectStream(artifactBucket, l.ArtifactBytes),
	}
}

// objectStream returns the configuration of a bucket of objects. It is synced. A new meta message
// of a name replaces the older ones by a rollup.
func objectStream(bucket string, limit int64) js.StreamConfig {
	return js.StreamConfig{
		Name: bucket, Subjects: []string{"mlf." + bucket + ".meta.>", "mlf." + bucket + ".data.>"}, MaxBytes: limit,
		Discard: js.DiscardNew, Duplicates: shortWindow, AllowRollup: true, AllowDirect: true,
	}
}

// Keys of a stream's metadata. The value of settingsKey is a digest of the settings that the stream
// was created with, and that of restoredKey is random and new with each restore.
const (
	settingsKey = "mlf.settings"
	restoredKey = "mlf.restored"
)

// epochOf names the epoch of a stream, within which a sequence means one message: sequences go back
// when the stream is restored or created again.
func epochOf(info *js.StreamInfo) string {
	return strconv.FormatInt(info.Created.UnixNano(), 36) + "." + info.Config.Metadata[restoredKey]
}

// makeStreams creates missing streams and updates the settings of the others. It leaves a stream
// alone that already has the settings: an update costs a flush.
func (s *Store) makeStreams(ctx context.Context) error {
	for _, want := range streams(s.limits) {
		want.Storage, want.Replicas, want.MaxMsgSize = js.FileStorage, 1, maxPayload
		b, err := json.Marshal(want)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		settings := hex.EncodeToString(sum[:8])
		want.Metadata = map[string]string{settingsKey: settings}
		str, err := s.js.Stream(ctx, want.Name)
		if errors.Is(err, js.ErrStreamNotFound) {
			str, err = s.js.CreateStream(ctx, want)
		} else if err == nil {
			have := str.CachedInfo().Config.Metadata
			if restored := have[restoredKey]; restored != "" {
				want.Metadata[restoredKey] = restored
			}
			if have[settingsKey] != settings {
				str, err = s.js.UpdateStream(ctx, want)
			}
		}
		if err != nil {
			return fmt.Errorf("open stream %s: %w", want.Name, err)
		}
		s.streams[want.Name] = str
	}
	return nil
}

// BundlePart is the name of the bundles in Usage.
const BundlePart = bundleBucket

// Usage is how much one stream of the store holds.
type Usage struct {
	Name  string
	Bytes int64 // without what was removed but is not yet compacted on disk
	Limit int64
	// OverShare are the nodes that have used their share of what is left, while others may still
	// store more.
	OverShare []grid.NodeID
}

// Usage returns how much each stream holds, and how much it may hold.
func (s *Store) Usage(ctx context.Context) ([]Usage, error) {
	var all []Usage
	for _, c := range streams(s.limits) {
		if c.Name == leaseStream {
			continue
		}
		info, err := s.streamInfo(ctx, c.Name)
		if err != nil {
			return nil, err
		}
		u := Usage{Name: c.Name, Bytes: int64(info.State.Bytes), Limit: info.Config.MaxBytes}
		switch c.Name {
		case eventStream:
			u.OverShare = s.Events.quota.refusedNodes()
		case artifactBucket:
			u.OverShare = s.Artifacts.quota.refusedNodes()
		}
		all = append(all, u)
	}
	return all, nil
}

// NearlyFull reports whether a stream that accepts nothing more when it is full has little room
// left: less than a twentieth, less than a few messages take, or none for some nodes.
func (u Usage) NearlyFull() bool {
	room, low := u.Limit-u.Bytes, max(u.Limit/20, min(maxPayload, u.Limit/4))
	return u.Name != logStream && u.Limit > 0 && (len(u.OverShare) > 0 || room < low)
}

func (s *connection) streamInfo(ctx context.Context, stream string) (*js.StreamInfo, error) {
	ctx, stop := s.withTimeout(ctx)
	defer stop()
	info, err := s.streams[stream].Info(ctx)
	if err != nil {
		return nil, s.explain(ctx, "look at "+stream, err)
	}
	return info, nil
}
