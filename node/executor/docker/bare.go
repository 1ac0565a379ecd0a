package docker

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

// bareOutput is the way that the output of an image without a shell takes: through the engine. It is attached to before the start, so
// nothing is missed, and the engine holds the program back when we are slow. Where that breaks off, the engine's log of the container
// goes on after what is stored.
type bareOutput struct {
	out    *output
	engine *Engine
	name   string // of the container

	mu     sync.Mutex
	conn   io.Closer // nil while nothing comes
	stored [2]int64
}

// attach begins before the start of the container.
func (b *bareOutput) attach(ctx context.Context) error {
	conn, err := b.engine.client.ContainerAttach(ctx, b.name, container.AttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		return err
	}
	b.carry(conn.Conn, conn.Reader, nil)
	return nil
}

// resume goes on where output broke off, if it did, and then follows what the container prints.
func (b *bareOutput) resume(ctx context.Context) error {
	b.mu.Lock()
	going := b.conn != nil
	b.mu.Unlock()
	if going {
		return nil
	}
	return b.read(ctx, true)
}

// finish stores what is missing once the container has ended.
func (b *bareOutput) finish(ctx context.Context) error {
	if err := b.read(ctx, false); err != nil {
		return err
	}
	b.out.await()
	return nil
}

// read reads the engine's log of the container from its beginning, and leaves out what is stored.
func (b *bareOutput) read(ctx context.Context, follow bool) error {
	logs, err := b.engine.client.ContainerLogs(ctx, b.name, container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: follow})
	if err != nil {
		return fmt.Errorf("read the log of a container: %w", err)
	}
	b.mu.Lock()
	skip := b.stored
	b.mu.Unlock()
	b.carry(logs, logs, &skip)
	return nil
}

func (b *bareOutput) carry(conn io.Closer, from io.Reader, skip *[2]int64) {
	b.mu.Lock()
	b.conn = conn
	b.mu.Unlock()
	b.out.work.Go(func() {
		_, _ = stdcopy.StdCopy(&bareStream{b, 0, skip}, &bareStream{b, 1, skip}, from) // it ends with the container, or is resumed
		conn.Close()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.conn = nil
	})
}

func (b *bareOutput) close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		b.conn.Close()
	}
}

// bareStream stores one stream.
type bareStream struct {
	to     *bareOutput
	stream int
	skip   *[2]int64 // nil for none
}

func (s *bareStream) Write(b []byte) (int, error) {
	n := len(b)
	if s.skip != nil {
		old := min(s.skip[s.stream], int64(n))
		s.skip[s.stream] -= old
		b = b[old:]
	}
	s.to.mu.Lock()
	s.to.stored[s.stream] += int64(len(b))
	s.to.mu.Unlock()
	s.to.out.store(s.stream, b)
	return n, nil
}
