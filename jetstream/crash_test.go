package jetstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// writerEnv makes the test binary a process that writes to the folder that it names until it is killed.
const writerEnv = "MLF_TEST_WRITER"

// TestWriter is the process that TestKillLosesNothing kills.
func TestWriter(t *testing.T) {
	dir := os.Getenv(writerEnv)
	if dir == "" {
		t.Skip("runs as a child of TestKillLosesNothing")
	}
	s := open(t, dir, Limits{})
	for {
		writeRound(t, s)
	}
}

// writeRound stores one of each kind and says on stdout what was acknowledged, one line each.
func writeRound(t *testing.T, s *Store) {
	ctx := t.Context()
	i, err := s.Records.NextNumber(ctx, "p")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("+number %d\n", i)
	id := fmt.Sprintf("a-%d", i)
	if _, err := s.Records.Create(ctx, sweep(id)); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("+record %s\n", id)
	_, seq, err := s.Logs.Publish(ctx, "logs", []Chunk{{Index: int64(i), Run: id, Data: make([]byte, 20<<10)}})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("+log %d %d\n", seq, i)
	if seq, err = s.Events.Publish(ctx, batch("events", i, 20)); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("+event %d %d\n", seq, i)
	name := fmt.Sprintf("objects/%d", i)
	if err := s.Artifacts.Put(ctx, name, strings.NewReader(strings.Repeat("x", 1000*(i%900))), nil); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("+object %s %d\n", name, 1000*(i%900))
	if _, err := s.Queue.Publish(ctx, lease("s", int64(i))); err != nil { // may be lost
		t.Fatal(err)
	}
}

// TestKillLosesNothing kills a writing process at random moments and finds everything that it acknowledged, each time.
func TestKillLosesNothing(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	acked := map[string]bool{}
	for round := range rounds {
		killWriter(t, dir, acked)
		have := stored(t, dir)
		for line := range acked {
			if !have[line] {
				t.Errorf("round %d: acknowledged and lost: %s", round, line)
			}
		}
	}
	if len(acked) < 10*rounds {
		t.Errorf("only %d acknowledgements in %d rounds; the writers hardly wrote", len(acked), rounds)
	}
	t.Logf("%d acknowledgements, none lost", len(acked))
}

// killWriter lets a process write for a while and adds what it acknowledged.
func killWriter(t *testing.T, dir string, acked map[string]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestWriter$")
	cmd.Env = append(os.Environ(), writerEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after := time.Duration(20+rand.IntN(400)) * time.Millisecond
	var timer *time.Timer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "+") {
			acked[lines.Text()] = true
		}
		if timer == nil { // counts from the first acknowledgement
			timer = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the writer ended by itself: %v", err)
	}
}

// stored opens the folder and lists what is there, in the words of writeRound.
func stored(t *testing.T, dir string) map[string]bool {
	t.Helper()
	server, err := Start(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("start after a kill: %v", err)
	}
	defer server.Close()
	s, err := server.Store(t.Context())
	if err != nil {
		t.Fatalf("open after a kill: %v", err)
	}
	defer s.Close()
	have := map[string]bool{}
	records, err := s.Records.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		have["+record "+string(r.Sweep.ID)] = true
	}
	last, _, err := s.Records.number(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	for n := range last + 1 {
		have[fmt.Sprintf("+number %d", n)] = true
	}
	err = s.Logs.Read(t.Context(), "logs", LogRange{}, func(seq uint64, c []Chunk) error {
		have[fmt.Sprintf("+log %d %d", seq, c[0].Index)] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	storedEvents(t, s, have)
	objects, err := s.Artifacts.List(t.Context(), "objects/")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		r, err := s.Artifacts.Open(t.Context(), o.Name)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		if err != nil {
			t.Errorf("object %s: %v", o.Name, err)
		}
		r.Close()
		have[fmt.Sprintf("+object %s %d", o.Name, n)] = true
	}
	if err := s.Queue.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	return have
}

func storedEvents(t *testing.T, s *Store, have map[string]bool) {
	t.Helper()
	_, last, err := s.Events.Bounds(t.Context())
	if err != nil || last == 0 {
		return
	}
	end := errors.New("end")
	err = s.Events.Read(t.Context(), 1, func(stored []Stored) error {
		for _, st := range stored {
			if len(st.Batch.Events) == 20 {
				have[fmt.Sprintf("+event %d %d", st.Seq, st.Batch.Events[0].Index)] = true
			}
			if st.Seq >= last {
				return end
			}
		}
		return nil
	})
	if !errors.Is(err, end) {
		t.Fatal(err)
	}
}

// mount puts a small tmpfs on a folder, for tests of a full disk.
func mount(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Skipf("a small file system can't be mounted here, which takes root: %v", err)
	}
	t.Cleanup(func() { // nats-server keeps a file open when it can't make a stream, so the mount may be in use
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := mount(t, "24m")
	s := open(t, filepath.Join(dir, "store"), Limits{})
	ctx := t.Context()
	if _, err := s.Records.Create(ctx, sweep("before-1")); err != nil {
		t.Fatal(err)
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	changes := make(chan Change, 16)
	watched := make(chan error, 1)
	go func() { watched <- s.Records.Watch(watching, func(c Change) { changes <- c }) }()
	<-changes
	<-changes
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	kept := 0
	var err error
	for begun := time.Now(); err == nil; kept++ {
		begun = time.Now()
		_, _, err = s.Logs.Publish(ctx, "a-1", []Chunk{{Index: int64(kept), Data: bytes.Repeat([]byte("x"), 300_000)}})
		if d := time.Since(begun); d > time.Second {
			t.Errorf("publish on a full disk took %v, want an answer at once", d)
		}
		if kept > 100 {
			t.Fatal("the disk does not fill")
		}
	}
	kept--
	if !errors.Is(err, ErrDisk) || !strings.Contains(err.Error(), "no space left on device") {
		t.Fatalf("got %v, want ErrDisk with the reason", err)
	}
	if _, err := s.Events.Publish(ctx, batch("a-1", 0, 10)); !errors.Is(err, ErrDisk) {
		t.Errorf("events on a full disk: got %v, want ErrDisk", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	insist(t, func() error { _, err := s.Events.Publish(ctx, batch("a-1", 0, 10)); return err })
	insist(t, func() error { _, err := s.Records.Create(ctx, sweep("after-1")); return err })
	for c := range changes {
		if c.ID == "after-1" {
			break
		}
	}
	insist(t, func() error { _, err := s.Queue.Publish(ctx, lease("s", 1)); return err })
	mustPull(t, s.Queue, "s", 1, 1)
	got := 0
	err = s.Logs.Read(ctx, "a-1", LogRange{}, func(uint64, []Chunk) error { got++; return nil })
	if err != nil || got < kept {
		t.Errorf("after healing: got %d messages, %v; want the %d that were acknowledged", got, err, kept)
	}
	stopWatching()
	if err := <-watched; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v, want canceled: it must outlive a full disk", err)
	}
}

// insist tries until it works, as the worker's outbox does.
func insist(t *testing.T, try func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("still: %v", err)
		}
	}
}

func TestStartOnAFullDisk(t *testing.T) {
	dir := mount(t, "1m")
	fill, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(fill, io.LimitReader(zeros{}, 2<<20)) // ends when the disk is full
	fill.Close()
	server, err := Start(Config{Dir: filepath.Join(dir, "store"), Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		defer server.Close()
		_, err = server.Store(t.Context())
	}
	if !errors.Is(err, ErrDisk) {
		t.Errorf("got %v, want ErrDisk", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestDamagedFolders truncates or garbles each file of a store in turn: it must open with what is left, or say what is wrong.
func TestDamagedFolders(t *testing.T) {
	origin := filepath.Join(t.TempDir(), "store")
	fill := func() {
		server, err := Start(Config{Dir: origin, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		s, err := server.Store(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i := range 10 {
			if _, err := s.Events.Publish(t.Context(), batch("a-1", i, 20)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Records.Create(t.Context(), sweep("a-1")); err != nil {
			t.Fatal(err)
		}
	}
	fill()
	var files []string
	err := filepath.WalkDir(origin, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (strings.Contains(path, eventStream) || strings.Contains(path, recordStream)) {
			rel, _ := filepath.Rel(origin, path)
			files = append(files, rel)
		}
		return err
	})
	if err != nil || len(files) < 6 {
		t.Fatalf("got files %v, %v", files, err)
	}
	for _, file := range files {
		for name, damage := range map[string]func([]byte) []byte{
			"half":  func(b []byte) []byte { return b[:len(b)/2] },
			"empty": func([]byte) []byte { return nil },
			"noise": func(b []byte) []byte {
				for i := len(b) / 3; i < len(b); i += 5 {
					b[i] ^= 0x5a
				}
				return b
			},
		} {
			t.Run(filepath.Base(filepath.Dir(filepath.Dir(file)))+"/"+filepath.Base(file)+"/"+name, func(t *testing.T) {
				openDamaged(t, origin, file, damage)
			})
		}
	}
}

func openDamaged(t *testing.T, origin, file string, damage func([]byte) []byte) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(dir, os.DirFS(origin)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), damage(b), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := Start(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Logf("refused: %v", err)
		return
	}
	defer server.Close()
	s, err := server.Store(t.Context())
	if err != nil {
		t.Logf("refused: %v", err)
		return
	}
	defer s.Close()
	_, last, err := s.Events.Bounds(t.Context())
	if err != nil {
		t.Fatalf("bounds: %v", err)
	}
	have := map[string]bool{}
	storedEvents(t, s, have)
	records, err := s.Records.All(t.Context())
	t.Logf("recovered %d of 10 batches (last %d), %d of 1 records, %v", len(have), last, len(records), err)
	if _, err := s.Events.Publish(t.Context(), batch("a-1", 100, 1)); err != nil {
		t.Errorf("publish: %v", err)
	}
}
