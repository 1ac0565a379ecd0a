package jetstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// writerEnv turns the test binary into a process that writes to the folder named by the variable,
// until it is killed.
const writerEnv = "MLF_TEST_WRITER"

// TestWriterChild is the process that TestKillLosesNothing kills.
func TestWriterChild(t *testing.T) {
	dir := os.Getenv(writerEnv)
	if dir == "" {
		t.Skip("runs as a child of TestKillLosesNothing")
	}
	s := open(t, dir, Limits{})
	for {
		writeOneOfEach(t, s)
	}
}

// openerEnv turns the test binary into a process that opens the folder with different settings each
// time, until it is killed.
const openerEnv = "MLF_TEST_OPENER"

// TestOpenerChild is the process that TestKillAtStart kills.
func TestOpenerChild(t *testing.T) {
	dir := os.Getenv(openerEnv)
	if dir == "" {
		t.Skip("runs as a child of TestKillAtStart")
	}
	fmt.Println("+ready")
	for i := range int64(1000) {
		server, err := Start(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler),
			Limits: Limits{EventBytes: 1<<30 + i, LogBytes: 1<<30 + i}})
		if err != nil {
			t.Fatal(err)
		}
		s, err := server.OpenStore(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		server.Close()
	}
}

// TestKillAtStart kills a process that creates streams or changes their settings, in new folders
// and in one that holds events.
func TestKillAtStart(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 6
	}
	used := t.TempDir()
	fillStore(t, used, 5)
	for range rounds {
		for _, dir := range []string{t.TempDir(), used} {
			killChild(t, "TestOpenerChild", openerEnv+"="+dir, time.Duration(rand.IntN(40))*time.Millisecond,
				func(string) {})
			openAndList(t, dir)
		}
	}
	have := openAndList(t, used)
	for i := range 5 {
		if line := fmt.Sprintf("+event %d %d", i+1, i); !have[line] {
			t.Errorf("stored before the kills and lost: %s", line)
		}
	}
}

// writeOneOfEach stores one item of each kind, and prints what was acknowledged, one line each.
func writeOneOfEach(t *testing.T, s *Store) {
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
	if err := s.Artifacts.Put(ctx, name, strings.NewReader(strings.Repeat("x", 1000*(i%900)))); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("+object %s %d\n", name, 1000*(i%900))
	if _, err := s.Queue.Publish(ctx, lease("s", int64(i))); err != nil { // may be lost
		t.Fatal(err)
	}
}

// TestKillLosesNothing kills a writing process at random moments, and finds everything that the
// process has acknowledged.
func TestKillLosesNothing(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	acked := map[string]bool{}
	for round := range rounds {
		killWriter(t, dir, acked)
		have := openAndList(t, dir)
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

// killWriter lets a process write for a while and then kills it; it collects what was acknowledged.
func killWriter(t *testing.T, dir string, acked map[string]bool) {
	t.Helper()
	after := time.Duration(20+rand.IntN(400)) * time.Millisecond
	killChild(t, "TestWriterChild", writerEnv+"="+dir, after, func(line string) { acked[line] = true })
}

// killChild runs a test of this binary as a process, and kills it some time after its first line
// that starts with a plus. It calls said with these lines.
func killChild(t *testing.T, test, env string, after time.Duration, said func(line string)) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var timer *time.Timer
	var other []string // from a child that fails
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "+") {
			other = append(other, lines.Text())
			continue
		}
		said(lines.Text())
		if timer == nil {
			timer = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the process ended by itself: %v\n%s", err, strings.Join(other, "\n"))
	}
}

// openAndList opens the folder and lists its content in the format of writeOneOfEach.
func openAndList(t *testing.T, dir string) map[string]bool {
	t.Helper()
	var warnings bytes.Buffer
	server, err := Start(Config{Dir: dir,
		Logger: slog.New(slog.NewTextHandler(&warnings, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatalf("start after a kill: %v", err)
	}
	defer func() {
		server.Close()
		if warnings.Len() > 0 {
			t.Errorf("after a kill the log has warnings:\n%s", &warnings)
		}
	}()
	s, err := server.OpenStore(t.Context())
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
	last := 0
	if msg, err := s.lastMessage(t.Context(), recordStream, numberSubject("p")); err == nil {
		last, _ = strconv.Atoi(string(msg.Data))
	} else if !errors.Is(err, ErrNotFound) {
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
	err = s.Events.Read(t.Context(), 1, func(stored []StoredBatch) error {
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
