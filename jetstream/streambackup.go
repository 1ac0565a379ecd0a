package jetstream

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/node/poll"
)

// The calls of nats-server that read a whole stream, and write it again:
// https://docs.nats.io/reference/reference-protocols/nats_api_reference
const (
	snapshotCall = "$JS.API.STREAM.SNAPSHOT."
	restoreCall  = "$JS.API.STREAM.RESTORE."
)

const (
	// restoreChunk is how many bytes of a stream one message of a restore holds.
	restoreChunk = 128 << 10
	// snapshotStall is how long a snapshot may stay unread before nats-server is asked for one more
	// chunk, and snapshotAhead bounds such chunks. nats-server abandons a snapshot that asks for
	// nothing for five seconds.
	snapshotStall = time.Second
	snapshotAhead = 120
)

// BackupStreams returns the names of the streams in a backup, in the order in which they must be
// read while the store is in use: a record refers only to events that were stored before it, and an
// event only to output and artifacts that were. Leases are not backed up: the master creates them
// again.
func BackupStreams() []string {
	return []string{recordStream, eventStream, logStream, bundleBucket, artifactBucket}
}

// OpenForBackup returns a Store for a backup. It opens the streams that exist and leaves their
// settings alone, whereas OpenStore would shorten a stream that exceeds this process's limits. Of
// the Store's parts only Records is set.
func (s *Server) OpenForBackup(ctx context.Context) (*Store, error) {
	c, err := s.open()
	if err != nil {
		return nil, err
	}
	st := &Store{connection: c}
	st.Records = &Records{store: st}
	for _, name := range BackupStreams() {
		if st.streams[name], err = st.js.Stream(ctx, name); err != nil {
			st.Close()
			return nil, fmt.Errorf("open stream %s: %w", name, s.Diagnose(err))
		}
	}
	return st, nil
}

// streamReply is the answer to both calls.
type streamReply struct {
	Config  json.RawMessage `json:"config,omitempty"`
	State   json.RawMessage `json:"state,omitempty"`
	Deliver string          `json:"deliver_subject,omitempty"`
	Error   *js.APIError    `json:"error,omitempty"`
}

// streamHead describes a stream to a restore before its content follows.
type streamHead struct {
	Config json.RawMessage `json:"config"`
	State  json.RawMessage `json:"state"`
}

// Backup writes the messages that a stream has now, with their sequences and times. It first calls
// head with the description that Restore needs. Messages that are stored in the meantime are left
// out.
func (s *Store) Backup(ctx context.Context, stream string, head func(about []byte) error, w io.Writer) error {
	ctx, stop := s.whileAvailable(ctx)
	defer stop()
	to := s.conn.NewInbox()
	chunks, err := s.conn.SubscribeSync(to)
	if err != nil {
		return fmt.Errorf("back up %s: %w", stream, err)
	}
	defer func() { _ = chunks.Unsubscribe() }() // the connection has ended if this fails
	request := map[string]any{"deliver_subject": to, "no_consumers": true}
	reply, err := requestStreamAPI(ctx, s.conn, snapshotCall+stream, request)
	if err != nil {
		return s.explain(ctx, "back up "+stream, err)
	}
	about, err := json.Marshal(streamHead{reply.Config, reply.State})
	if err != nil {
		return fmt.Errorf("back up %s: %w", stream, err)
	}
	if err := head(about); err != nil {
		return err
	}
	pace := &snapshotPace{conn: s.conn}
	defer pace.start()()
	for {
		msg, err := chunks.NextMsgWithContext(ctx)
		if err != nil {
			return s.explain(ctx, "back up "+stream, err)
		}
		if len(msg.Data) == 0 {
			if status := msg.Header.Get("Status"); status != "" && status != "204" {
				return fmt.Errorf("back up %s: the store gave up: %s", stream, msg.Header.Get("Description"))
			}
			return nil
		}
		pace.more.Store(&msg.Reply)
		if _, err := w.Write(msg.Data); err != nil {
			return err
		}
		if err := pace.written(msg); err != nil {
			return s.explain(ctx, "back up "+stream, err)
		}
	}
}

// requestStreamAPI makes one of the calls.
func requestStreamAPI(ctx context.Context, conn *nats.Conn, subject string, request any) (*streamReply, error) {
	b, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(ctx, callLimit)
	defer stop()
	msg, err := conn.RequestWithContext(ctx, subject, b)
	if err != nil {
		return nil, err
	}
	return readReply(msg.Data)
}

func readReply(data []byte) (*streamReply, error) {
	var reply streamReply
	if err := json.Unmarshal(data, &reply); err != nil {
		return nil, fmt.Errorf("read the answer of the store: %w", err)
	}
	if e := reply.Error; e != nil && strings.HasSuffix(e.Description, syscall.ENOSPC.Error()) { // it comes as text only
		return nil, syscall.ENOSPC
	}
	if reply.Error != nil {
		return nil, reply.Error
	}
	return &reply, nil
}

// snapshotPace requests the chunks of a snapshot: one for each that is written. While nothing is
// written, it requests some ahead, which wait in the subscription.
type snapshotPace struct {
	conn  *nats.Conn
	more  atomic.Pointer[string] // the subject that requests the next chunk
	idle  atomic.Bool            // nothing has been written since the last tick
	ahead atomic.Int64
}

func (p *snapshotPace) written(msg *nats.Msg) error {
	p.idle.Store(false)
	if msg.Reply == "" { // the last one
		return nil
	}
	if p.ahead.Add(-1) >= 0 {
		return nil // it has been requested ahead
	}
	p.ahead.Add(1)
	return p.conn.Publish(msg.Reply, nil)
}

// start requests chunks ahead until stop is called, which waits for the goroutine to end.
func (p *snapshotPace) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background()) // ends with stop
	var requesting sync.WaitGroup
	requesting.Go(func() {
		for poll.Sleep(ctx, snapshotStall) {
			more := p.more.Load()
			if p.idle.Swap(true) && more != nil && *more != "" && p.ahead.Load() < snapshotAhead {
				p.ahead.Add(1)
				_ = p.conn.Publish(*more, nil) // if this fails, the snapshot ends with an error
			}
		}
	})
	return func() {
		cancel()
		requesting.Wait()
	}
}

// Restore creates a stream from the output of Backup. The store must not have a stream of this
// name.
func (s *Server) Restore(ctx context.Context, stream string, about []byte, content io.Reader) error {
	conn, err := s.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	var head streamHead
	if err := json.Unmarshal(about, &head); err != nil {
		return fmt.Errorf("read the description of stream %s: %w", stream, err)
	}
	begun, err := requestStreamAPI(ctx, conn, restoreCall+stream, head)
	if err != nil {
		return fmt.Errorf("restore %s: %w", stream, err)
	}
	send := func(chunk []byte) error { // the answers limit the pace to the server's
		msg, err := conn.RequestWithContext(ctx, begun.Deliver, chunk)
		if err == nil && len(msg.Data) > 0 {
			_, err = readReply(msg.Data)
		}
		if err != nil {
			return fmt.Errorf("restore %s: %w", stream, err)
		}
		return nil
	}
	for chunk := make([]byte, restoreChunk); ; {
		n, err := content.Read(chunk)
		if n > 0 {
			if err := send(chunk[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if err := send(nil); err != nil {
				return err
			}
			return markRestored(ctx, conn, stream)
		case err != nil:
			return err
		}
	}
}

// markRestored begins a new epoch of a stream: the sequences after the backup are assigned again.
func markRestored(ctx context.Context, conn *nats.Conn, stream string) error {
	api, err := js.New(conn, js.WithDefaultTimeout(callLimit))
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	restored, err := api.Stream(ctx, stream)
	if err == nil {
		config := restored.CachedInfo().Config
		if config.Metadata == nil {
			config.Metadata = map[string]string{}
		}
		config.Metadata[restoredKey] = rand.Text()
		_, err = api.UpdateStream(ctx, config)
	}
	if err != nil {
		return fmt.Errorf("mark %s as restored: %w", stream, err)
	}
	return nil
}

// SkipNumbers skips count sweep numbers of each project: they may have been assigned since the
// backup was made.
func (r *Records) SkipNumbers(ctx context.Context, count int) error {
	t := &streamReader{store: r.store, stream: recordStream, subject: numberSubjects}
	return t.read(ctx, func(batch []message) error {
		for _, e := range batch {
			n, err := strconv.Atoi(string(e.Data))
			if err != nil {
				return fmt.Errorf("read the sweep number of %s: %w", lastToken(e.Subject), err)
			}
			if _, err := r.compareAndSwap(ctx, e.Subject, []byte(strconv.Itoa(n+count)), e.seq); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}
