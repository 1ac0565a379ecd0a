package executor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// foreignVar makes the test binary what it names: "root" becomes root for good and sleeps, "agent"
// runs attempts that leave such processes.
const foreignVar = "EXECUTOR_TEST_FOREIGN"

const nobody = 65534

// foreign is the test binary as the program or as the agent.
func foreign(program string) int {
	if program == "agent" {
		if err := foreignAgent(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	err := syscall.Setresuid(0, 0, 0)
	if err == nil {
		err = os.WriteFile(os.Args[1], []byte(strconv.Itoa(os.Getpid())), 0o644)
	}
	if err == nil {
		err = syscall.Exec("/bin/sleep", []string{"sleep", "1000"}, os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// foreignAgent runs an attempt whose program leaves a process of root, one whose program is that of
// root and which is cancelled, both at one time, and then one that leaves nothing. It prints the
// outcomes.
func foreignAgent() error {
	token := fmt.Sprintf("executor-foreign-%d", os.Getpid())
	p, err := executor.NewProcess(executor.ProcessOptions{Token: token, DieWithAgent: true, Cgroups: executor.CgroupsOff}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	run := func(ctx context.Context, script string) executor.Outcome {
		slot, err := p.Slot()
		if err != nil {
			return executor.Refused(grid.ClassNode, err.Error())
		}
		defer slot.Close()
		f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return executor.Refused(grid.ClassNode, err.Error())
		}
		defer f.Close()
		return slot.Run(ctx, &executor.Attempt{
			Spec: executor.Spec{Dir: dir, Grace: 1}, Argv: []string{"/bin/sh", "-c", script}, Stdout: f, Stderr: f,
			Env: append(os.Environ(), foreignVar+"=root"),
		})
	}
	var outcomes [3]executor.Outcome
	leaves := make(chan struct{})
	go func() {
		defer close(leaves)
		outcomes[0] = run(context.Background(), "./root "+dir+"/left & until test -s left; do sleep 0.01; done; exit 7")
	}()
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		for { // the program of root has begun
			if b, _ := os.ReadFile("main"); len(b) > 0 {
				cancel(executor.ErrCancelled)
				return
			}
			_, _ = unix.Poll(nil, 10)
		}
	}()
	outcomes[1] = run(ctx, "exec ./root "+dir+"/main")
	<-leaves
	outcomes[2] = run(context.Background(), "(setsid sleep 1000 &); exit 3")
	return json.NewEncoder(os.Stdout).Encode([]*executor.Outcome{&outcomes[0], &outcomes[1], &outcomes[2]})
}

// TestForeignUser has attempts leave processes that have become root's, as sudo makes them, on an
// agent of another user without cgroups: their slots come back, the outcomes name what is left, and
// attempts after them are not held by it.
func TestForeignUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("left out: only root can give a program to root")
	}
	dir, err := os.MkdirTemp("/tmp", "mlfnode-foreign-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, mode := range map[string]os.FileMode{"agent": 0o755, "root": 0o755 | os.ModeSetuid} {
		b, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o700)
		}
		if err == nil {
			err = os.Chmod(filepath.Join(dir, name), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{"left", "main"} {
			b, _ := os.ReadFile(filepath.Join(dir, name))
			if pid, err := strconv.Atoi(string(b)); err == nil {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	})
	agent := exec.Command(filepath.Join(dir, "agent"))
	agent.Dir, agent.Env = dir, []string{"PATH=" + os.Getenv("PATH"), foreignVar + "=agent"}
	agent.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var said bytes.Buffer
	agent.Stderr = &said
	out, err := agent.Output()
	if err != nil {
		t.Fatalf("the agent ended: %v %s", err, said.String())
	}
	var outcomes []*executor.Outcome
	if err := json.Unmarshal(out, &outcomes); err != nil || len(outcomes) != 3 {
		t.Fatalf("read the outcomes %s: %v", out, err)
	}
	for i, want := range []struct {
		class grid.Class
		code  int
		left  string
	}{{grid.ClassExit, 7, "left"}, {grid.ClassCancel, grid.NoExit, "main"}, {grid.ClassExit, 3, ""}} {
		o, foreign := outcomes[i], ""
		if want.left != "" {
			pid, err := os.ReadFile(filepath.Join(dir, want.left))
			if err != nil {
				t.Fatal(err)
			}
			foreign = string(pid) + " (sleep, user root)"
		}
		if o.Class != want.class || o.ExitCode != want.code || !strings.Contains(o.Foreign, foreign) || (o.Foreign == "") != (foreign == "") {
			t.Errorf("outcome %d: got class %q, exit code %d, left %q; want %q, %d, %q", i, o.Class, o.ExitCode, o.Foreign, want.class, want.code, foreign)
		}
	}
}
