package monitor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"mlfnode/node/api"
)

const (
	// healthTime bounds the round trip behind an answer: a flush on a busy disk may take seconds.
	healthTime = 5 * time.Second
	// healthAge is how long an answer is given again: anybody may ask, and each round trip costs a flush.
	healthAge = time.Second
)

// rootRoutes are what other programs than ours call, below no prefix.
func (m *Monitor) rootRoutes() []route {
	return []route{
		{method: "GET", pattern: api.PathHealthy, root: true, access: mayNothing, topic: topicOthers, everywhere: true,
			summary: "Say whether the node works: if not for long, it has to be started again", call: call{handler: m.healthy.answer, media: []string{mediaText}}},
		{method: "GET", pattern: api.PathMetrics, root: true, access: mayRead, topic: topicOthers,
			summary: "Give metrics to Prometheus", call: call{handler: m.scrape, media: []string{mediaText}}},
		{method: "GET", pattern: api.PathReady, root: true, access: mayNothing, topic: topicOthers, everywhere: true,
			summary: "Say whether the node can store what it is sent, or take trials", call: call{handler: m.ready.answer, media: []string{mediaText}}},
	}
}

// health answers a question of strangers with yes or no. One round trip at a time finds the answer.
type health struct {
	ask   func(context.Context) error
	limit time.Duration // for the round trip
	log   *slog.Logger

	mu  sync.Mutex // held while it is asked
	at  time.Time  // of the answer; zero before the first
	err error
}

// check gives the answer, nil for yes.
func (h *health) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.at.IsZero() && time.Since(h.at) < healthAge {
		return h.err
	}
	ctx, stop := context.WithTimeout(context.Background(), h.limit) // others than who asks are given the answer, too
	defer stop()
	err := h.ask(ctx)
	if (err == nil) != (h.err == nil) {
		h.log.Warn("the answer to whether the node works is another one", "yes", err == nil, "err", err)
	}
	h.at, h.err = time.Now(), err
	return err
}

// answer tells nobody why.
func (h *health) answer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", mediaText)
	w.Header().Set("Cache-Control", "no-store")
	text := "ok\n"
	if h.check() != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		text = "not ok\n"
	}
	_, _ = io.WriteString(w, text) // the client has gone if this fails
}

// isHealthy checks that the parts of the node answer each other. A full disk is no reason to restart it.
func (m *Monitor) isHealthy(ctx context.Context) error {
	if m.cfg.Master == nil {
		return nil
	}
	if _, err := m.cfg.Master.Outstanding(ctx, ""); err != nil {
		return err
	}
	return m.cfg.Store.Ping(ctx)
}

// isReady has the store write.
func (m *Monitor) isReady(ctx context.Context) error {
	if m.cfg.Working != nil && !m.cfg.Working() {
		return errors.New("the node has not met its master yet")
	}
	if err := m.isHealthy(ctx); err != nil || m.cfg.Master == nil {
		return err
	}
	return m.cfg.Store.Probe(ctx)
}
