package filelock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestTryLockKeepsOthersOut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	f, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a file for this user alone", info, err)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v for a locked file, want ErrLocked", err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if !IsLocked(reader) {
		t.Error("a locked file is reported as free")
	}
	f.Close()
	if IsLocked(reader) {
		t.Error("a file whose lock has ended is reported as locked")
	}
	again, err := TryLock(path) // although IsLocked has tried it
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if _, err := TryLock(filepath.Join(t.TempDir(), "none", "lock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v without a folder, want fs.ErrNotExist", err)
	}
}

func TestLockWaitsForTheHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "lock")
		holder, err := TryLock(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Lock(t.Context(), path, time.Second); !errors.Is(err, ErrLocked) {
			t.Errorf("got %v after the limit, want ErrLocked", err)
		}
		stopped := errors.New("stopped")
		ctx, stop := context.WithTimeoutCause(t.Context(), time.Second, stopped)
		defer stop()
		if _, err := Lock(ctx, path, time.Minute); !errors.Is(err, stopped) {
			t.Errorf("got %v, want the cause of the context's end", err)
		}
		time.AfterFunc(time.Second, func() { holder.Close() })
		f, err := Lock(t.Context(), path, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
}
