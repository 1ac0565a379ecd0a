package process_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/process"
	"mlfnode/node/processid"
)

// foreignVar makes the test binary what it names: "root" becomes root for good and sleeps, "agent"
// runs attempts that leave such processes behind.
const foreignVar = "EXECUTOR_TEST_FOREIGN"

const nobody = 65534

// foreignPatience is how long such an agent waits for what is certain to come.
const foreignPatience = 4 * time.Minute

// foreign runs the test binary as the program or as the agent.
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

// foreignAgent runs three attempts and prints their outcomes. The program of the first leaves a
// process of root and a hidden one of its own; the second, which runs at the same time and is
// cancelled, is itself a process of root; the third leaves nothing. What the agent records never
// blocks Reap.
func foreignAgent() error {
	token := fmt.Sprintf("executor-foreign-%d", os.Getpid())
	p, err := process.New(process.Options{Token: token, DieWithAgent: true, Cgroups: process.CgroupsOff,
		Strays: "strays"}, slog.New(slog.DiscardHandler))
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
		outcomes[0] = run(context.Background(), "./root "+dir+"/left & until test -s left; do sleep 0.01; done\n"+
			"(env -i setsid /bin/sleep 1000 &); until test -e told; do sleep 0.01; done; exit 7")
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
	if err := foreignRecorded(); err != nil {
		return err
	}
	<-leaves
	outcomes[2] = run(context.Background(), "(setsid sleep 1000 &); exit 3")
	if err := p.Close(); err != nil {
		return err
	}
	if _, err := os.Stat("strays"); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("after its close the executor has left what it recorded: %v", err)
	}
	if err := foreignReap(process.DeadAgent{Token: token, Strays: "strays"}); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode([]*executor.Outcome{&outcomes[0], &outcomes[1], &outcomes[2]})
}

// foreignRecorded waits until the hidden process is recorded, and none of root's, and then lets the
// attempt that started it end.
func foreignRecorded() error {
	for end := time.Now().Add(foreignPatience); ; {
		var all []processid.ID
		b, _ := os.ReadFile("strays")
		_ = json.Unmarshal(b, &all)
		if len(all) > 0 && !slices.ContainsFunc(all, func(id processid.ID) bool {
			return unix.Kill(id.PID, 0) == unix.EPERM
		}) {
			return os.WriteFile("told", nil, 0o600)
		}
		if time.Now().After(end) {
			return fmt.Errorf("recorded: %s, want a process of the agent's own user alone", b)
		}
		_, _ = unix.Poll(nil, 10)
	}
}

// foreignReap reaps a dead agent that has recorded the processes of root, as earlier versions did.
func foreignReap(dead process.DeadAgent) error {
	var all []processid.ID
	for _, name := range []string{"left", "main"} {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(string(b))
		if err != nil {
			return err
		}
		id, ok := processid.Of(pid)
		if !ok {
			return fmt.Errorf("the process %d of root is gone", pid)
		}
		all = append(all, id)
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if err := os.WriteFile(dead.Strays, b, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), foreignPatience)
	defer cancel()
	var said bytes.Buffer
	if n, err := process.Reap(ctx, dead, slog.New(slog.NewTextHandler(&said, nil))); n != 0 || err != nil {
		return fmt.Errorf("reap what is root's: got %d processes ended, %v; want 0", n, err)
	}
	for _, id := range all {
		if name := fmt.Sprintf("%d (sleep, user root)", id.PID); strings.Count(said.String(), name) != 1 {
			return fmt.Errorf("reap warns of %s %d times, want once:\n%s", name,
				strings.Count(said.String(), name), said.String())
		}
	}
	return nil
}

// TestProcessesOfOtherUsersBlockNoSlot runs attempts that leave processes of root, as sudo does,
// under an agent of another user without cgroups: their slots become free, the outcomes name what
// is left, and later attempts are not blocked.
func TestProcessesOfOtherUsersBlockNoSlot(t *testing.T) {
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
		if o.Class != want.class || o.ExitCode != want.code || !strings.Contains(o.Foreign, foreign) ||
			(o.Foreign == "") != (foreign == "") {
			t.Errorf("outcome %d: got class %q, exit code %d, left %q; want %q, %d, %q", i, o.Class, o.ExitCode,
				o.Foreign, want.class, want.code, foreign)
		}
	}
}
