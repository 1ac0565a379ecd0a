package natsd

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
	"slices"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server"
)

// repair makes the folders of streams readable again that a kill has left half created or half
// changed, which nats-server refuses to open. nats-server writes the settings of a stream and then
// their checksum, each atomically. So a stream without settings was never used, and complete
// settings are good even without their checksum.
//
// Disposable streams are not synced, so a power cut may leave any state. Without complete settings,
// they start empty.
func repair(dir string, disposable []string) error {
	// nats-server creates folders to find out whether it can write. It would take one that is left
	// over for the folder of an account.
	probes, err := filepath.Glob(filepath.Join(dir, "jetstream", "_test_*"))
	for _, probe := range probes {
		err = errors.Join(err, os.RemoveAll(probe))
	}
	if err != nil {
		return fmt.Errorf("clean the store: %w", err)
	}
	folders, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "*"))
	if err != nil {
		return err
	}
	for _, folder := range folders {
		stream := filepath.Base(folder)
		settings, err := os.ReadFile(filepath.Join(folder, server.JetStreamMetaFile))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = removeUnused(folder)
		case err == nil && complete(settings, stream):
			err = writeChecksum(folder, settings)
		case err == nil && slices.Contains(disposable, stream):
			err = os.RemoveAll(folder)
		}
		if err != nil {
			return fmt.Errorf("repair stream %s: %w", stream, err)
		}
	}
	return nil
}

// removeUnused removes the folder of a stream unless it holds messages.
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

// complete reports whether settings are the whole settings of the stream.
func complete(settings []byte, stream string) bool {
	var info server.FileStreamInfo
	d := json.NewDecoder(bytes.NewReader(settings))
	d.DisallowUnknownFields()
	return d.Decode(&info) == nil && info.Name == stream
}

// writeChecksum writes the checksum of a stream's settings if it is missing or wrong.
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
