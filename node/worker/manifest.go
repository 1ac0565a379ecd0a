package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"mlfnode/grid"
	"mlfnode/node/worker/allocator"
)

// manifest is what a spool says of its attempt, for the next start after a crash.
type manifest struct {
	Sweep   grid.SweepID `json:"sweep"`
	Index   int64        `json:"index,omitempty"`
	Attempt int          `json:"attempt,omitempty"`
	Run     string       `json:"run,omitempty"`
	Started int64        `json:"started,omitempty"` // microseconds since 1970
	Result  *grid.Result `json:"result,omitempty"`  // once the attempt has ended
	Cut     *cutOutput   `json:"cut,omitempty"`     // of the output of an attempt that has ended
	// the lease under which it runs, for an attempt that outlives its agent
	Lease  *leaseRecord `json:"lease,omitempty"`
	Boot   string       `json:"boot,omitempty"`   // the start of the machine in which it ran
	Synced bool         `json:"synced,omitempty"` // the result is on the disk with all that belongs to it

	Allocation *allocator.Allocation `json:"allocation,omitempty"` // what it holds of the node
	Image      string                `json:"image,omitempty"`      // the pinned reference of its image
}

// leaseRecord is the lease of an attempt as its manifest holds it.
type leaseRecord struct {
	ID         grid.LeaseID `json:"id,omitempty"` // "" from an agent that knew only sequences
	Seq        uint64       `json:"seq"`
	Lo         int64        `json:"lo"`
	Hi         int64        `json:"hi"`
	Attempt    int          `json:"attempt"`
	Deliveries int          `json:"deliveries"`
	Shape      string       `json:"shape"`
}

// readManifest returns nil for a spool that names no attempt, including one that an agent was
// creating or removing when it was killed.
func readManifest(path string) (*manifest, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || len(b) == 0 {
		return nil, err
	}
	b, _, _ = bytes.Cut(b, []byte("\n"))
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return &m, nil
}

// predatesBoot reports whether the machine has been rebooted since the attempt ran, so that its
// result may be on the disk without a part of its output.
func (m *manifest) predatesBoot(boot string) bool {
	return m.Boot != "" && boot != "" && m.Boot != boot && !m.Synced
}

// manifestTemplate is the part of the manifest that all attempts of an assignment share, encoded
// once: a sweep of short trials writes thousands of manifests a second.
type manifestTemplate struct {
	shared  manifest // without what one attempt adds
	encoded []byte   // shared, without the closing brace
}

func newManifestTemplate(shared manifest) (*manifestTemplate, error) {
	b, err := json.Marshal(shared)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return &manifestTemplate{shared, b[:len(b)-1]}, nil
}

// manifest returns the manifest of an attempt.
func (t *manifestTemplate) manifest(a *attempt) *manifest {
	m := t.shared
	m.Index, m.Attempt, m.Run, m.Started, m.Image = a.id.Index, a.number, a.run, a.started.UnixMicro(), a.imagePin()
	return &m
}

// write is spool.writeManifest for an attempt that starts.
func (t *manifestTemplate) write(s *spool, a *attempt) error {
	b := append(s.line[:0], t.encoded...)
	b = strconv.AppendInt(append(b, `,"index":`...), a.id.Index, 10)
	b = strconv.AppendInt(append(b, `,"attempt":`...), int64(a.number), 10)
	b = strconv.AppendQuote(append(b, `,"run":`...), a.run) // a node's name and numbers, which Go and JSON quote alike
	b = strconv.AppendInt(append(b, `,"started":`...), a.started.UnixMicro(), 10)
	if image := a.imagePin(); image != "" {
		b = strconv.AppendQuote(append(b, `,"image":`...), image) // ASCII, like every reference of an image
	}
	s.line = append(b, "}\n"...)
	return s.writeManifestLine(s.line)
}
