package shim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/process"
)

// TestSlotContinuesAfterAKilledShim kills a shim under a running attempt. The agent's slot goes on
// with another shim.
func TestSlotContinuesAfterAKilledShim(t *testing.T) {
	o := options(t)
	c := started(t, o)
	s, dir := slotOf(t, c), t.TempDir()
	done := background(s, t.Context(), script(t, dir, "a", tree+"echo x >ready; wait"))
	eventually(t, "the start", func() bool { return exists(filepath.Join(dir, "ready")) })
	c.current.shim.kill()
	expect(t, receive(t, "the outcome", done), grid.ClassNode, grid.NoExit, "its shim died")
	nothingLeft(t, o)
	if got := s.Run(t.Context(), script(t, dir, "b", "exit 4")); got.ExitCode != 4 {
		t.Errorf("run after it: got %+v, want exit code 4", got)
	}
}

// TestKilledShimWithManySlots makes all slots request another shim at the same time.
func TestKilledShimWithManySlots(t *testing.T) {
	c := started(t, options(t))
	victim := c.current.shim
	var running sync.WaitGroup
	for i := range 20 {
		s, dir := slotOf(t, c), t.TempDir()
		a, b := script(t, dir, fmt.Sprint("a", i), "echo x >ready; sleep 1000"),
			script(t, dir, fmt.Sprint("b", i), "exit 4")
		running.Go(func() {
			expect(t, s.Run(t.Context(), a), grid.ClassNode, grid.NoExit, "its shim died")
			expect(t, s.Run(t.Context(), b), grid.ClassExit, 4, "")
		})
		eventually(t, "the start", func() bool { return exists(filepath.Join(dir, "ready")) })
	}
	victim.kill()
	running.Wait()
}

// TestAttemptThatCannotBeSent lets the system refuse to pass an attempt's files to the shim, which
// is alive: the attempt ends as the node's trouble, and the slot stays usable.
func TestAttemptThatCannotBeSent(t *testing.T) {
	s, dir := slotOf(t, started(t, options(t))), t.TempDir()
	a := script(t, dir, "a", "exit 3")
	closed, err := os.Create(filepath.Join(dir, "closed"))
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	a.Stdout = closed
	done := background(s, t.Context(), a)
	expect(t, receive(t, "the outcome", done), grid.ClassNode, executor.ExitNotRunnable,
		"its shim could not be told to run it")
	if got := s.Run(t.Context(), script(t, dir, "b", "exit 4")); got.ExitCode != 4 {
		t.Errorf("run after it: got %+v, want exit code 4", got)
	}
}

// TestSlotRequestToASilentShimEnds requests a slot from a shim that does not answer: the wait is
// limited.
func TestSlotRequestToASilentShimEnds(t *testing.T) {
	conn := pipe(t, 1).conn.UnixConn
	line := &slotConn{conn: conn, in: bufio.NewReader(conn), slot: 1}
	done := make(chan error, 1)
	go func() { done <- line.open(100 * time.Millisecond) }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "did not answer within 100ms") {
			t.Errorf("got %v", err)
		}
	case <-time.After(limit):
		t.Fatal("the wait for a shim that does not answer has no end")
	}
}

// TestRunSurvivesALostSlotConnection ends the connection of a slot whose shim is alive: a run goes
// on, can be stopped, and its outcome is known.
func TestRunSurvivesALostSlotConnection(t *testing.T) {
	c := started(t, options(t))
	const waits = "echo x >ready; while ! test -e go; do sleep 0.01; done; exit 3"
	begin := func(t *testing.T, ctx context.Context) (s executor.Slot, dir string, done <-chan executor.Outcome) {
		s, dir = slotOf(t, c), t.TempDir()
		conn := s.(*clientSlot).conn.conn
		done = background(s, ctx, script(t, dir, t.Name(), waits))
		eventually(t, "the start", func() bool { return exists(filepath.Join(dir, "ready")) })
		if err := conn.CloseRead(); err != nil {
			t.Fatal(err)
		}
		return s, dir, done
	}
	goesOn := func(t *testing.T, s executor.Slot) {
		t.Helper()
		if got := s.Run(t.Context(), script(t, t.TempDir(), "next", "exit 4")); got.ExitCode != 4 {
			t.Errorf("run after it: got %+v, want exit code 4", got)
		}
	}
	t.Run("its end", func(t *testing.T) {
		s, dir, done := begin(t, t.Context())
		if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		expect(t, receive(t, "the outcome", done), grid.ClassExit, 3, "")
		goesOn(t, s)
	})
	t.Run("stopped", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		s, _, done := begin(t, ctx)
		cancel(executor.ErrCancelled)
		expect(t, receive(t, "the outcome", done), grid.ClassCancel, 143, "")
		goesOn(t, s)
	})
	t.Run("left", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		s, _, done := begin(t, ctx)
		cancel(fmt.Errorf("upgrade: %w", executor.ErrLeave))
		if got := receive(t, "the outcome", done); !got.Left {
			t.Errorf("outcome: got %+v, want it left", got)
		}
		goesOn(t, s)
	})
	t.Run("shim dies", func(t *testing.T) {
		s, _, done := begin(t, t.Context())
		c.current.shim.kill()
		expect(t, receive(t, "the outcome", done), grid.ClassNode, grid.NoExit, "its shim died")
		goesOn(t, s)
	})
	t.Run("garbage", func(t *testing.T) {
		s, dir := slotOf(t, c), t.TempDir()
		if _, err := s.(*clientSlot).conn.conn.Write(binary.BigEndian.AppendUint64(nil, 1<<63)); err != nil {
			t.Fatal(err)
		}
		done := background(s, t.Context(), script(t, dir, "garbage", "exit 3"))
		expect(t, receive(t, "the outcome", done), grid.ClassNode, executor.ExitNotRunnable,
			"its shim could not read what it was told to run")
		goesOn(t, s)
	})
}

// TestOnlySIGTERMEndsAShim sends a shim the signals that terminals and systems send.
func TestOnlySIGTERMEndsAShim(t *testing.T) {
	c := started(t, options(t))
	s, dir := slotOf(t, c), t.TempDir()
	done := background(s, t.Context(),
		script(t, dir, "a", "echo x >ready; while ! test -e go; do sleep 0.01; done; exit 3"))
	eventually(t, "the start", func() bool { return exists(filepath.Join(dir, "ready")) })
	for range 3 {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP} {
			if err := syscall.Kill(c.current.shim.PID, sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, receive(t, "the outcome", done), grid.ClassExit, 3, "")
	a := script(t, dir, "b", "echo x >again; sleep 1000")
	done = background(s, t.Context(), a)
	eventually(t, "the start", func() bool { return exists(filepath.Join(dir, "again")) })
	if err := syscall.Kill(c.current.shim.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect(t, receive(t, "the outcome", done), grid.ClassHalt, 143, "stopped, to run again later")
}

// TestNewerAgentTakesOver runs two agents in one folder at the same time, which the lock of the
// state folder prevents.
func TestNewerAgentTakesOver(t *testing.T) {
	o := options(t)
	older := open(t, o)
	defer older.Close()
	s, dir := slotOf(t, older), t.TempDir()
	done := background(s, t.Context(),
		script(t, dir, "a", "echo x >ready; while ! test -e go; do sleep 0.01; done; exit 3"))
	eventually(t, "the start", func() bool { return exists(filepath.Join(dir, "ready")) })
	newer := started(t, o)
	expect(t, receive(t, "the outcome", done), grid.ClassLost, grid.NoExit, "another node agent took its shim over")
	resume, _, ok := newer.Adopted("a")
	if !ok {
		t.Fatal("the newer agent does not know the run")
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, resume(t.Context()), grid.ClassExit, 3, "")
	newer.Collected("a")
}

// TestRunIsLeftByEndingItsContext leaves a run by the end of its context.
func TestRunIsLeftByEndingItsContext(t *testing.T) {
	o := options(t)
	first := open(t, o)
	s, err := first.Slot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := background(s, ctx, script(t, dir, "a", "echo x >ready; while ! test -e go; do sleep 0.01; done; exit 3"))
	eventually(t, "the start", func() bool { return exists(filepath.Join(dir, "ready")) })
	cancel(fmt.Errorf("upgrade: %w", executor.ErrLeave))
	if got := receive(t, "the outcome", done); !got.Left {
		t.Errorf("outcome: got %+v, want it left", got)
	}
	if got := s.Run(ctx, script(t, dir, "b", "exit 0")); got.Left || got.Class != grid.ClassHalt {
		t.Errorf("outcome of a run that never began: got %+v, want it halted", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	first.Leave()
	next := started(t, o)
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	resume, _, ok := next.Adopted("a")
	if !ok {
		t.Fatal("the next agent does not know the run")
	}
	expect(t, resume(t.Context()), grid.ClassExit, 3, "")
	next.Collected("a")
}

// TestManySlotsRunConcurrently runs many attempts concurrently and sequentially.
func TestManySlotsRunConcurrently(t *testing.T) {
	c := started(t, options(t))
	const slots, runs = 200, 3
	var running sync.WaitGroup
	for i := range slots {
		s, dir := slotOf(t, c), t.TempDir()
		a := script(t, dir, fmt.Sprint(i), fmt.Sprintf("echo %d; exit %d", i, i%100))
		running.Go(func() {
			for range runs {
				if o := s.Run(t.Context(), a); o.ExitCode != i%100 {
					t.Errorf("slot %d: got %+v", i, o)
				}
			}
			b, _ := os.ReadFile(filepath.Join(dir, "stdout"))
			if want := strings.Repeat(fmt.Sprintln(i), runs); string(b) != want {
				t.Errorf("output of slot %d: got %q, want %q", i, b, want)
			}
		})
	}
	running.Wait()
	t.Logf("the shim has %d KiB resident", resident(t, c.current.shim.PID))
}

// TestInvalidMessagesAreIgnored sends many invalid messages to a shim that is working.
func TestInvalidMessagesAreIgnored(t *testing.T) {
	c := started(t, options(t))
	s, dir := slotOf(t, c), t.TempDir()
	huge := binary.BigEndian.AppendUint32(nil, 1<<31)
	for _, text := range []string{
		"", "x", "GET / HTTP/1.1\r\n\r\n", string(huge) + "\x00\x00\x00\x00", "\x00\x00\x00\x02\xff\xff\xff\xff{}",
		"\x00\x00\x00\x02\x00\x00\x00\x00{}",
		"\x00\x00\x00\x02\x00\x00\x00\x00[]", frame(t, &message{Kind: "nothing"}),
		frame(t, &message{Kind: kindRun, ID: 1}),
		frame(t, &message{Kind: kindHello, V: version, Oldest: oldest, Token: "another"}),
		frame(t, &message{Kind: kindSlot, Slot: 1}),
		frame(t, &message{Kind: kindSlot, Slot: 77}) + "garbage garbage garbage",
		frame(t, &message{Kind: kindSlot, Slot: 78}) +
			frame(t, &message{Kind: kindRun, ID: 1, Run: &runRequest{Argc: 5}}, []string{"a"}),
	} {
		conn := dial(t, c)
		_, _ = io.WriteString(conn, text)
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
		if o := s.Run(t.Context(), script(t, dir, "", "exit 6")); o.ExitCode != 6 {
			t.Errorf("run after %q: got %+v", text, o)
		}
	}
	quiet := dial(t, c) // says nothing until the shim ends
	t.Cleanup(func() { quiet.Close() })
}

func dial(t *testing.T, c *Client) *net.UnixConn {
	t.Helper()
	conn, err := c.current.shim.dir.dial()
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func frame(t *testing.T, m *message, body ...[]string) string {
	t.Helper()
	b, err := appendFrame(nil, m, body...)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestAgentsOfOtherVersions connects agents of other versions to this shim.
func TestAgentsOfOtherVersions(t *testing.T) {
	c := started(t, options(t))
	old := dial(t, c)
	defer old.Close()
	if _, err := io.WriteString(old,
		frame(t, &message{Kind: kindHello, V: version + 9, Oldest: version + 1, Token: c.o.Token})); err != nil {
		t.Fatal(err)
	}
	if m, err := readFrame(old); err != nil || m.Kind != kindRefused || !strings.Contains(m.Reason, "versions") {
		t.Errorf("an agent that understands newer versions alone: got %+v, %v; want a refusal", m, err)
	}
	newer := dial(t, c) // which the shim leaves immediately, since it has nothing to hand over
	defer func() {
		newer.Close()
		eventually(t, "the shim to end", func() bool { dirs, _ := shimDirsIn(c.o.Dir); return len(dirs) == 0 })
	}()
	hello := fmt.Sprintf(`{"k":"hello","v":99,"oldest":1,"token":%q,"new":{"field":[1]}}`, c.o.Token)
	prefix := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(len(hello))), 3)
	if _, err := newer.Write(append(append(prefix, hello...), "\x02xy"...)); err != nil {
		t.Fatal(err)
	}
	if m, err := readFrame(newer); err != nil || m.Kind != kindWelcome || m.V != version {
		t.Errorf("a newer agent: got %+v, %v; want a welcome", m, err)
	}
}

// TestLongStateFolderPath uses a state folder whose path is too long for a socket address.
func TestLongStateFolderPath(t *testing.T) {
	o := options(t)
	o.Dir = filepath.Join(o.Dir, strings.Repeat("long/", 40))
	c := started(t, o)
	expect(t, slotOf(t, c).Run(t.Context(), script(t, t.TempDir(), "a", "exit 2")), grid.ClassExit, 2, "")
}

// TestShimThatCannotStart checks that a shim that can't start says why.
func TestShimThatCannotStart(t *testing.T) {
	o := options(t)
	o.Program = "/bin/false"
	c := open(t, o)
	if err := c.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "it ended immediately") {
		t.Errorf("start: got %v", err)
	}
	nothingLeft(t, o)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Slot(); err == nil {
		t.Error("a closed client gives slots")
	}
}

func FuzzFrame(f *testing.F) {
	good, _ := appendFrame(nil,
		&message{Kind: kindRun, ID: 3,
			Run: &runRequest{Spec: executor.Spec{Name: "n"}, Argc: 1}}, []string{"a", ""}, []string{"B=c"})
	f.Add(good)
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00\x01{}\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := readFrame(bytes.NewReader(b)); err == nil && m == nil {
			t.Error("neither a message nor an error")
		}
		all, err := decodeStrings(b)
		if err != nil {
			return
		}
		n := 0
		for _, s := range all {
			n += len(s)
		}
		if n > len(b) {
			t.Errorf("strings of %d bytes from %d", n, len(b))
		}
	})
}

// TestShimStartsThroughAWrapper starts the shim through another program, as systemd-run does.
func TestShimStartsThroughAWrapper(t *testing.T) {
	o := options(t)
	o.Wrap = func() []string { return []string{"nice", "-n", "3"} }
	c := started(t, o)
	dir := t.TempDir()
	expect(t, slotOf(t, c).Run(t.Context(), script(t, dir, "a", "nice")), grid.ClassNone, 0, "")
	if b, err := os.ReadFile(filepath.Join(dir, "stdout")); err != nil || strings.TrimSpace(string(b)) == "0" {
		t.Errorf("niceness of the program: got %q, %v; want that of the wrapped shim", b, err)
	}
}

// TestLateConnectionOfAKilledAgentIsRefused serves the connection of an agent that was killed after
// that of its successor.
func TestLateConnectionOfAKilledAgentIsRefused(t *testing.T) {
	set := settings{Token: "t", AgentTimeout: time.Minute}
	p, err := process.New(process.Options{Token: token(t), Cgroups: process.CgroupsV1}, logTo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	k := newServer(set, p, shimInfo{}, logTo(t))
	defer k.orphanTimer.Stop()
	k.runs[1] = &run{id: 1, name: "a", stop: func(error) {}}
	next, late := pipe(t, 2), pipe(t, 1)
	if _, ok := k.attachAgent(next, false); !ok || k.agents.current != next {
		t.Fatal("the next agent was not taken")
	}
	if _, ok := k.attachAgent(late, false); ok || k.agents.current != next {
		t.Error("a killed agent has taken over from the one after it")
	}
}

// pipe is the session of an agent that listens to nothing.
func pipe(t *testing.T, nth int) *agentConn {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fds[1]) })
	f := os.NewFile(uintptr(fds[0]), "agent")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &agentConn{conn: frameConn{UnixConn: c.(*net.UnixConn)}, number: nth}
}
