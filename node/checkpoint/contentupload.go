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
	u := &upload{k, m, filepath.Join(k.dir, "parts", m.Hash)}
	there, err := u.write(ctx, r)
	if err == nil {
		return nil
	}
	if there == 0 {
		err = errors.Join(err, s.removed.moveIn(u.part))
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

// upload is a content that is being sent.
type upload struct {
	*storedTrial
	content Missing
	part    string // the file that it is written to
}

// write writes the content and returns how many bytes of it are usable: all of one that is now
// stored, else those from which the upload can continue.
func (u *upload) write(ctx context.Context, r io.Reader) (there int64, err error) {
	f, err := u.open()
	if err != nil {
		return 0, fmt.Errorf("store a checkpoint's file: %w", err)
	}
	defer f.Close()
	m := u.content
	if info, err := f.Stat(); err != nil || info.Size() < m.Have {
		return 0, errors.Join(err, errors.New("the upload does not begin where the last one was cut off"))
	}
	if err := f.Truncate(m.Have); err != nil {
		return 0, fmt.Errorf("store a checkpoint's file: %w", err)
	}
	n, err := io.Copy(io.NewOffsetWriter(f, m.Have), io.LimitReader(&contextReader{ctx, r}, m.Size-m.Have+1))
	switch err = errors.Join(err, f.Sync()); {
	case m.Have+n > m.Size, err == nil && m.Have+n < m.Size:
		return 0, ErrChanged
	case err != nil:
		return m.Have + n, fmt.Errorf("store a checkpoint's file: %w", err)
	}
	if err := u.commit(f); err != nil {
		return 0, err
	}
	return m.Size, nil
}

// open opens the part of the content that is there.
func (u *upload) open() (*os.File, error) {
	u.diskMu.Lock()
	defer u.diskMu.Unlock()
	if u.discarded {
		return nil, errRemoved
	}
	for _, dir := range []string{"parts", "files"} {
		if err := os.MkdirAll(filepath.Join(u.dir, dir), 0o700); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(u.part, os.O_CREATE|os.O_RDWR, 0o600)
}

var errRemoved = errors.New("the trial's snapshots were removed meanwhile")

// commit turns the part into the content, if its hash is right.
func (u *upload) commit(f *os.File) error {
	m, sum := u.content, sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, m.Size)); err != nil {
		return fmt.Errorf("check a checkpoint's file: %w", err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != m.Hash {
		return ErrChanged
	}
	name := filepath.Join(u.dir, "files", m.Hash)
	u.diskMu.Lock()
	defer u.diskMu.Unlock()
	if u.discarded {
		return errRemoved
	}
	if err := os.Rename(u.part, name); err != nil {
		return fmt.Errorf("store a checkpoint's file: %w", err)
	}
	if err := durable.SyncFolder(filepath.Dir(name)); err != nil {
		return err
	}
	u.table.mu.Lock()
	defer u.table.mu.Unlock()
	u.files[m.Hash] = m.Size
	delete(u.parts, m.Hash)
	delete(u.writing, m.Hash)
	return nil
}
