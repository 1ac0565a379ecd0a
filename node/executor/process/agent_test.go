package process_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mlfnode/node/executor"
	"mlfnode/node/executor/executortest"
	"mlfnode/node/executor/process"
)

// agentVar makes the test binary an agent that runs trees until it is killed.
const agentVar = "EXECUTOR_TEST_AGENT"

// tokenVar is the token of such an agent, which no other test on this machine uses.
const tokenVar = "EXECUTOR_TEST_TOKEN"

func TestMain(m *testing.M) {
	if program, ok := os.LookupEnv(foreignVar); ok {
		os.Exit(foreign(program))
	}
	if choice, ok := os.LookupEnv(agentVar); ok {
		os.Exit(agent(process.Cgroups(choice)))
	}
	goleak.VerifyTestMain(m)
}

// tangle is a tree that spans many sessions, ignores TERM and contains a process that has lost its
// parents.
const tangle = `exec 9>alive
trap '' TERM
sleep 1000 &
setsid sleep 1000 &
(env -i setsid /bin/sh -c '(/bin/sleep 1000 &); exec /bin/sleep 1000' &)
(setsid sh -c '` + executortest.Nest + `sleep 1000 & (sleep 1000; :) & echo started; exec sleep 1000' &)
while :; do sleep 1000; done`

// agent runs tangles in two slots, in the working directory.
func agent(choice process.Cgroups) int {
	p, err := process.New(process.Options{Token: os.Getenv(tokenVar), DieWithAgent: true, Cgroups: choice,
		Strays: "strays"}, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for range 2 {
		s, err := p.Slot()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		dir, _ := os.Getwd()
		go s.Run(context.Background(), &executor.Attempt{
			Argv: []string{"/bin/sh", "-c", tangle}, Spec: executor.Spec{Dir: dir}, Env: os.Environ(),
			Stdout: os.Stdout, Stderr: os.Stderr,
		})
	}
	select {}
}

// TestReapAfterKill kills an agent and checks that Reap leaves nothing of what it ran.
func TestReapAfterKill(t *testing.T) {
	for _, choice := range choices {
		t.Run(string(choice), func(t *testing.T) {
			dir, token := t.TempDir(), fmt.Sprintf("agent-test-%d", os.Getpid())
			if err := syscall.Mkfifo(filepath.Join(dir, "alive"), 0o600); err != nil {
				t.Fatal(err)
			}
			alive, err := os.OpenFile(filepath.Join(dir, "alive"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer alive.Close()
			killAgent(t, dir, token, choice)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			n, err := process.Reap(ctx, process.DeadAgent{Token: token, Strays: filepath.Join(dir, "strays")},
				slog.New(slog.DiscardHandler))
			if err != nil || n < 12 {
				t.Errorf("reap: got %d processes, %v; want at least 12", n, err)
			}
			if n, err := alive.Read(make([]byte, 1)); n != 0 || err == nil || err.Error() != "EOF" {
				t.Errorf("something is alive after Reap: read %d bytes, %v", n, err)
			}
			for _, place := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup/*/*", "/sys/fs/cgroup/*/*/*"} {
				if left, _ := filepath.Glob(place + "/mlfnode-" + token); len(left) > 0 {
					t.Errorf("cgroups left: %q", left)
				}
			}
			if n, err := process.Reap(ctx, process.DeadAgent{Token: token, Strays: filepath.Join(dir, "strays")},
				slog.New(slog.DiscardHandler)); n != 0 || err != nil {
				t.Errorf("second reap: got %d, %v; want nothing to do", n, err)
			}
		})
	}
}

// killAgent starts an agent, waits until its trees have grown and kills it.
func killAgent(t *testing.T, dir, token string, choice process.Cgroups) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = append(os.Environ(), agentVar+"="+string(choice), tokenVar+"="+token)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start agent: %v", err)
	}
	lines := bufio.NewReader(out)
	for range 2 {
		if line, err := lines.ReadString('\n'); line != "started\n" {
			t.Fatalf("agent said %q, %v; want started", line, err)
		}
	}
	if choice == process.CgroupsOff { // nothing else tells of those that have an empty environment
		for strays := []any{}; len(strays) < 4; {
			b, _ := os.ReadFile(filepath.Join(dir, "strays"))
			_ = json.Unmarshal(b, &strays)
			<-time.After(10 * time.Millisecond)
		}
	}
	cmd.Process.Kill()
	// Not cmd.Wait: what the agent left behind holds the pipe.
	cmd.Process.Wait()
	out.Close()
}

// TestReapSparesOthers checks that Reap spares a process whose token merely starts with ours.
func TestReapSparesOthers(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	cmd.Env = []string{"MLF_TOKEN=mine-too", "X=MLF_TOKEN=mine"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if n, err := process.Reap(t.Context(), process.DeadAgent{Token: "mine"}, slog.New(slog.DiscardHandler)); n != 0 ||
		err != nil {
		t.Errorf("reap: got %d, %v; want 0", n, err)
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("process of another token: %v", err)
	}
}

// TestReapReportsDeadline checks that a context that has ended is an error.
func TestReapReportsDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := process.Reap(ctx, process.DeadAgent{Token: "nobody"}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("reap with a cancelled context: got no error")
	}
}

// TestTokenIsChecked lists tokens that can't be part of a cgroup's name.
func TestTokenIsChecked(t *testing.T) {
	for _, token := range []string{"", "a/b", "..", "a b", "a\n", "ä"} {
		if _, err := process.New(process.Options{Token: token}, slog.New(slog.DiscardHandler)); err == nil ||
			!strings.Contains(err.Error(), "token") {
			t.Errorf("token %q: got %v, want an error", token, err)
		}
	}
}

// TestClosedSlot checks that a slot may be closed twice and refuses attempts.
func TestClosedSlot(t *testing.T) {
	s, err := newProcess(t, process.CgroupsAuto).Slot()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	o := s.Run(t.Context(), &executor.Attempt{Argv: []string{"true"}, Spec: executor.Spec{Dir: "/"}})
	if o.Class != "start" || !bytes.Contains([]byte(o.Reason), []byte("closed")) {
		t.Errorf("run on a closed slot: got class %q, reason %q", o.Class, o.Reason)
	}
}
