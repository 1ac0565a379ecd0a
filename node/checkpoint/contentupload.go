package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// Put implements Remote. A content counts only once all of it is on the disk and has the hash of
// its name.
func (s *Store) Put(ctx context.Context, id grid.TrialID, m Missing, r io.Reader) error {
	if !IsHash(m.Hash) || m.Size < 0 || m.Have < 0 || m.Have > m.Size {
		return fmt.Errorf("%w: a content is named by its SHA-256, 64 hex digits in lower case", ErrUnfit)
	}
	k, err := s.beginUpload(id, m)
	if err != nil || k == nil {
		return err
	}
	part := filepath.Join(s.folder(id), "parts", m.Hash)
	there, err := s.writePart(ctx, id, k, m, part, r)
	if err == nil {
		return nil
	}
	if there == 0 {
		err = errors.Join(err, s.moveToRemoved(part))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(k.writing, m.Hash)
	if k.parts[m.Hash] = there; there == 0 {
		delete(k.parts, m.Hash)
	}
	if !k.discarded {
		s.bytes -= m.Size - there
	}
	return err
}

// beginUpload makes the caller the only writer of a content, and reserves the room for it; nil for
// one that is stored already.
func (s *Store) beginUpload(id grid.TrialID, m Missing) (k *storedTrial, err error) {
	full := s.reserveRoom(func() int64 {
		k, err = s.trials[id], nil
		switch {
		case k == nil:
			err = fmt.Errorf("%w: the file belongs to no snapshot that was offered", ErrUnfit)
			return 0
		case k.writing[m.Hash]:
			err = errors.New("the file is being sent already")
			return 0
		case m.Have > k.parts[m.Hash]:
			err = errors.New("the upload does not begin where the last one was cut off")
			return 0
		}
		if _, ok := k.files[m.Hash]; ok {
			k = nil
			return 0
		}
		return m.Size - k.parts[m.Hash]
	}, func() {
		if err == nil && k != nil {
			s.bytes += m.Size - k.parts[m.Hash]
			k.writing[m.Hash], k.parts[m.Hash] = true, m.Size
		}
	})
	return k, errors.Join(err, full)
}

// writePart writes a content and returns how many bytes of it are usable: all of one that is now
// stored, else those from which the upload can continue.
func (s *Store) writePart(
	ctx context.Context, id grid.TrialID, k *storedTrial, m Missing, part string, r io.Reader,
) (there int64, err error) {
	f, err := s.openPart(id, k, part)
	if err != nil {
		return 0, fmt.Errorf("store a checkpoint's file: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() < m.Have {
		return 0, errors.Join(err, errors.New("the upload does not begin where the last one was cut off"))
	}
	if err := errors.Join(f.Truncate(m.Have), seek(f, m.Have)); err != nil {
		return 0, fmt.Errorf("store a checkpoint's file: %w", err)
	}
	n, err := io.Copy(f, io.LimitReader(&contextReader{ctx, r}, m.Size-m.Have+1))
	switch err = errors.Join(err, f.Sync()); {
	case m.Have+n > m.Size, err == nil && m.Have+n < m.Size:
		return 0, ErrChanged
	case err != nil:
		return m.Have + n, fmt.Errorf("store a checkpoint's file: %w", err)
	}
	if err := s.commitPart(id, k, m, f, part); err != nil {
		return 0, err
	}
	return m.Size, nil
}

// openPart opens the part of a content that is being uploaded.
func (s *Store) openPart(id grid.TrialID, k *storedTrial, part string) (*os.File, error) {
	k.diskMu.Lock()
	defer k.diskMu.Unlock()
	if k.discarded {
		return nil, errRemoved
	}
	if err := errors.Join(
		os.MkdirAll(filepath.Dir(part), 0o700), os.MkdirAll(filepath.Join(s.folder(id), "files"), 0o700),
	); err != nil {
		return nil, err
	}
	return os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o600)
}

var errRemoved = errors.New("the trial's snapshots were removed meanwhile")

func seek(f *os.File, at int64) error {
	_, err := f.Seek(at, io.SeekStart)
	return err
}

// commitPart turns a part into the content, if its hash is right.
func (s *Store) commitPart(id grid.TrialID, k *storedTrial, m Missing, f *os.File, part string) error {
	sum := sha256.New()
	if err := seek(f, 0); err != nil {
		return err
	}
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("check a checkpoint's file: %w", err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != m.Hash {
		return ErrChanged
	}
	name := filepath.Join(s.folder(id), "files", m.Hash)
	k.diskMu.Lock()
	defer k.diskMu.Unlock()
	if k.discarded {
		return errRemoved
	}
	if err := os.Rename(part, name); err != nil {
		return fmt.Errorf("store a checkpoint's file: %w", err)
	}
	if err := durable.SyncFolder(filepath.Dir(name)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k.files[m.Hash] = m.Size
	delete(k.parts, m.Hash)
	delete(k.writing, m.Hash)
	return nil
}
