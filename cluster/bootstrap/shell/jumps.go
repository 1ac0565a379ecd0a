package shell

import (
	"context"
	"errors"
	"sync"

	"mlfnode/node/poll"
)

// maxJumps is how many jump hosts may stand before a machine.
const maxJumps = 8

// errJumpLoop is returned for jump hosts that need each other.
var errJumpLoop = errors.New("pass jump hosts: too many")

// errUnused cancels the dial of a jump host that nobody waits for any more.
var errUnused = errors.New("dial jump host: nobody needs it")

// jumpPath returns the jump hosts before a machine, in order. The first one that the configuration
// names may have jump hosts of its own.
func (d *Dialer) jumpPath(r route, depth int) ([]route, error) {
	if len(r.jumps) == 0 {
		return nil, nil
	}
	if len(r.jumps) > depth {
		return nil, errJumpLoop
	}
	var way []route
	for i, t := range r.jumps {
		jump, err := d.route(t)
		if err != nil {
			return nil, wrapJumpError(r, route{name: t.Host}, err)
		}
		if i == 0 {
			if way, err = d.jumpPath(jump, depth-len(r.jumps)); err != nil {
				return nil, err
			}
		}
		way = append(way, jump)
	}
	return way, nil
}

func wrapJumpError(r, jump route, err error) error {
	if errors.As(err, new(*Problem)) {
		return jumpProblem(r, jump, err)
	}
	return err
}

// jumpConnections are the connections to jump hosts. All machines behind one share its connection,
// which is closed with the last of them.
type jumpConnections struct {
	mu     sync.Mutex
	byPath map[string]*jumpConnection
}

// jumpConnection is the connection to a jump host, or its dial.
type jumpConnection struct {
	users  int           // guarded by jumps.mu
	cancel func()        // ends the dial
	done   chan struct{} // closed when the dial has ended
	conn   *Connection   // set before done
	err    error         // set before done
}

// acquire returns the connection of that name. The first caller dials it, and others wait for the
// same dial.
func (j *jumpConnections) acquire(ctx context.Context, name string,
	dial func(context.Context) (*Connection, error)) (c *Connection, leave func() error, err error) {
	p := j.join(ctx, name, dial)
	leave = sync.OnceValue(func() error { return j.release(name, p) })
	select {
	case <-p.done:
	case <-ctx.Done():
		_ = leave() // the end of ctx matters
		return nil, nil, context.Cause(ctx)
	}
	if p.err != nil {
		_ = leave() // there is no connection to close
		return nil, nil, p.err
	}
	return p.conn, leave, nil
}

// join adds a user of the connection, and dials a new one if there is none or it is unusable.
func (j *jumpConnections) join(
	ctx context.Context, name string, dial func(context.Context) (*Connection, error),
) *jumpConnection {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.byPath[name]
	if p == nil || poll.Closed(p.done) && (p.err != nil || p.conn.lost()) {
		p = &jumpConnection{done: make(chan struct{})}
		// The dial outlives the caller that began it while others wait, and ends with the last of
		// them: see release.
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		p.cancel = func() { cancel(errUnused) }
		j.byPath[name] = p
		go func() {
			defer close(p.done)
			p.conn, p.err = dial(ctx)
		}()
	}
	p.users++
	return p
}

// release removes a user. The last one closes the connection.
func (j *jumpConnections) release(name string, p *jumpConnection) error {
	j.mu.Lock()
	p.users--
	last := p.users == 0
	if last && j.byPath[name] == p {
		delete(j.byPath, name)
	}
	j.mu.Unlock()
	if !last {
		return nil
	}
	p.cancel()
	<-p.done
	if p.conn == nil {
		return nil
	}
	return p.conn.Close()
}
