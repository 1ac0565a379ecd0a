package jetstream

import (
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
)

// Progress carries the metrics of running attempts from nodes to the master. They are a state, not an event: only the newest counts, and
// the result holds the last ones. So nothing of them is stored in a stream, however long an attempt runs; a node says them again from
// time to time, which makes a lost message good.
type Progress struct{ store *Store }

// Publish tells the metrics of running attempts of one sweep, without waiting for the master.
func (p *Progress) Publish(b *grid.Batch) error {
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode metrics of %s: %w", b.Sweep, err)
	}
	subject := progressSubject(b.Node, b.Sweep)
	if err := checkSubject(subject); err != nil {
		return err
	}
	if len(data) > maxPayload {
		return ErrTooLarge
	}
	if err := p.store.conn.Publish(subject, data); err != nil {
		return fmt.Errorf("tell metrics of %s: %w", b.Sweep, err)
	}
	return nil
}

// Serve calls fn with what nodes tell, until stop is called. What a node may not state is left out. fn must be quick.
func (p *Progress) Serve(fn func(*grid.Batch)) (stop func(), err error) {
	events := &Events{store: p.store}
	sub, err := p.store.conn.Subscribe(progressSubjects, func(m *nats.Msg) {
		b := events.decode(&entry{Msg: m})
		kept := b.Events[:0]
		for _, e := range b.Events {
			if e.Kind == grid.Metrics {
				kept = append(kept, e)
			}
		}
		if b.Events = kept; len(kept) > 0 {
			fn(b)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
