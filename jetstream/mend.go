package jetstream

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server"
)

// mend brings the folders of streams in order that a kill has left half made or half changed, which nats-server refuses. It
// writes a stream's settings and then their checksum, each whole or not at all: so without settings the stream was never used,
// and settings that are whole are good without their checksum.
//
// The lease queue is not synced, so a power cut may leave anything of it. Without whole settings it starts empty: the master makes
// leases again that are gone.
func mend(dir string) error {
	if err := removeProbes(dir); err != nil {
		return fmt.Errorf("clean the store: %w", err)
	}
	folders, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "*"))
	if err != nil {
		return err
	}
	for _, folder := range folders {
		settings, err := os.ReadFile(filepath.Join(folder, server.JetStreamMetaFile))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = removeUnused(folder)
		case err == nil && complete(settings, filepath.Base(folder)):
			err = writeChecksum(folder, settings)
		case err == nil && filepath.Base(folder) == leaseStream:
			err = os.RemoveAll(folder)
		}
		if err != nil {
			return fmt.Errorf("repair stream %s: %w", filepath.Base(folder), err)
		}
	}
	return nil
}

// removeProbes removes what nats-server makes to see whether it can write, and would take for the folder of an account.
func removeProbes(dir string) error {
	probes, err := filepath.Glob(filepath.Join(dir, "jetstream", "_test_*"))
	for _, probe := range probes {
		err = errors.Join(err, os.RemoveAll(probe))
	}
	return err
}

// removeUnused removes the folder of a stream, unless it has messages.
func removeUnused(folder string) error {
	blocks, err := filepath.Glob(filepath.Join(folder, "msgs", "*.blk"))
	if err != nil {
		return err
	}
	for _, block := range blocks {
		if info, err := os.Stat(block); err != nil || info.Size() > 0 {
			return err
		}
	}
	return os.RemoveAll(folder)
}

// complete reports whether settings are those of the stream, from the first byte to the last.
func complete(settings []byte, stream string) bool {
	var info server.FileStreamInfo
	d := json.NewDecoder(bytes.NewReader(settings))
	d.DisallowUnknownFields()
	return d.Decode(&info) == nil && info.Name == stream
}

// writeChecksum writes the checksum of a stream's settings if there is none or another one.
func writeChecksum(folder string, settings []byte) error {
	key := sha256.Sum256([]byte(filepath.Base(folder)))
	hash, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		return err
	}
	hash.Write(settings)
	sum := []byte(hex.EncodeToString(hash.Sum(nil)))
	path := filepath.Join(folder, server.JetStreamMetaFileSum)
	if was, err := os.ReadFile(path); err == nil && bytes.Equal(was, sum) {
		return nil
	}
	return os.WriteFile(path, sum, 0o600)
}
