package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid"
	"mlfnode/node/durable"
	"mlfnode/node/filelock"
)

func lockFile(p protocol.Layout) string       { return filepath.Join(p.Root, ".lock") }
func supervisorLock(p protocol.Layout) string { return filepath.Join(p.Root, "supervisor.lock") }
func supervisorID(p protocol.Layout) string   { return filepath.Join(p.Root, "supervisor.id") }
func recordFile(p protocol.Layout) string     { return filepath.Join(p.Root, "up.json") }

// lock creates the root folder if necessary, and locks it for this action.
func lock(ctx context.Context, p protocol.Layout) (unlock func(), err error) {
	if err := os.MkdirAll(p.Root, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the node: %w", err)
	}
	f, err := filelock.Lock(ctx, lockFile(p), lockTimeout)
	if errors.Is(err, filelock.ErrLocked) {
		return nil, &protocol.Problem{Cause: "another mlfnode is working in " + p.Root,
			Cure: "wait until it is done, then run this again"}
	}
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// digestFile returns the digest of a file, or "" if it can't be read.
func digestFile(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// cachedDigest is the digest of a file, with the file's metadata at the time.
type cachedDigest struct {
	info   os.FileInfo // nil for none
	digest string
}

// programDigest returns the digest of the program, or "" if there is none. The program has some 50
// MB, so it is read again only when the file has changed.
func (i *installation) programDigest() string {
	info, err := os.Stat(i.Program())
	if err != nil {
		return ""
	}
	last := i.cached.info
	if last == nil || !os.SameFile(last, info) || !last.ModTime().Equal(info.ModTime()) || last.Size() != info.Size() {
		i.cached = cachedDigest{info, digestFile(i.Program())}
	}
	return i.cached.digest
}

// startRecord records what start has started. The digests are added once it runs.
type startRecord struct {
	Role    grid.NodeRole `json:"role"`
	Service string        `json:"service"`
	Program string        `json:"program,omitempty"` // digests
	Config  string        `json:"config,omitempty"`
}

// readRecord returns the record, an empty one if there is none.
func readRecord(p protocol.Layout) startRecord {
	var r startRecord
	if b, err := os.ReadFile(recordFile(p)); err == nil {
		_ = json.Unmarshal(b, &r) // a damaged one counts as missing
	}
	return r
}

func writeRecord(p protocol.Layout, r startRecord) error {
	b, err := json.Marshal(r)
	if err == nil {
		err = durable.WriteFile(recordFile(p), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("record what was started: %w", err)
	}
	return nil
}
