package monitor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"mlfnode/jetstream"
	"mlfnode/node/master"
)

const (
	// healthTimeout bounds the round trip for an answer: a flush on a busy disk may take seconds.
	healthTimeout = 5 * time.Second
	// healthAge is how long an answer is reused: anyone may ask, and each round trip costs a flush.
	healthAge = time.Second
)

// health answers a yes-or-no question of unauthenticated clients. At most one probe runs at a time.
type health struct {
	probe   func(context.Context) error
	timeout time.Duration // for the round trip
	log     *slog.Logger

	mu  sync.Mutex // held during a probe
	at  time.Time  // of the answer; zero before the first
	err error
}

// check returns the answer; nil means yes.
func (h *health) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.at.IsZero() && time.Since(h.at) < healthAge {
		return h.err
	}
	ctx, stop := context.WithTimeout(context.Background(), h.timeout) // other clients get the answer, too
	defer stop()
	err := h.probe(ctx)
	if (err == nil) != (h.err == nil) {
		h.log.Warn("health has changed", "yes", err == nil, "err", err)
	}
	h.at, h.err = time.Now(), err
	return err
}

// serve answers without a reason.
func (h *health) serve(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", mediaText)
	w.Header().Set("Cache-Control", "no-store")
	text := "ok\n"
	if h.check() != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		text = "not ok\n"
	}
	_, _ = io.WriteString(w, text) // the client has gone if this fails
}

// nodeHealth checks the parts of a node.
type nodeHealth struct {
	master  *master.Master
	store   *jetstream.Store
	working func() bool // nil on a node that takes trials from the start
}

// check reports whether the parts of the node respond. A full disk is no reason to restart the
// node.
func (n *nodeHealth) check(ctx context.Context) error {
	if n.master == nil {
		return nil
	}
	if _, err := n.master.Outstanding(ctx, ""); err != nil {
		return err
	}
	return n.store.Ping(ctx)
}

// checkReady reports whether the store can also write.
func (n *nodeHealth) checkReady(ctx context.Context) error {
	if n.working != nil && !n.working() {
		return errors.New("the node has not met its master yet")
	}
	if err := n.check(ctx); err != nil || n.master == nil {
		return err
	}
	return n.store.Probe(ctx)
}
