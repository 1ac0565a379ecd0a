package provision

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/node/filelock"
	"mlfnode/node/membership"
	"mlfnode/node/poll"
	"mlfnode/node/processid"
	"mlfnode/node/procfs"
	"mlfnode/node/service"
)

// SuperviseAction is the action that keeps a node running on a machine without systemd. ActionStart
// starts it; it is not part of the protocol.
const SuperviseAction = "supervise"

// startTimeout bounds the time from a node's start to its first answer.
const startTimeout = 20 * time.Second

// launchService makes systemd run the node. An existing installation is restarted; its trials
// continue.
func (o *operation) launchService(ctx context.Context, r startRecord) error {
	program, err := statProgram(o.Layout)
	if err != nil {
		return err
	}
	report, err := service.Install(ctx, service.Options{
		Manager: service.Manager{User: r.Service == protocol.ServiceUser}, Role: r.Role, InPlace: true,
		Program: o.Program(), ConfigFile: o.Config(), StateDir: o.State(),
	})
	o.response.Notes = append(o.response.Notes, report.Notes...)
	var start *service.StartError
	if errors.As(err, &start) {
		return &protocol.Problem{
			Cause: "the node does not start, " + start.Cause.Error() + "; the last lines of its log:\n" + start.Journal,
			Cure:  "fix what the log reports, then run this again; systemd keeps trying meanwhile",
		}
	}
	if err != nil {
		return err
	}
	return waitForAgent(ctx, o.Layout, 0, program)
}

// launchBackground starts the supervisor, or makes the running one restart itself and the agent.
func launchBackground(ctx context.Context, p protocol.Layout) error {
	old := agentPID(ctx, p)
	program, err := statProgram(p)
	if err != nil {
		return err
	}
	if own, _ := findSupervisor(p); own.PID > 0 {
		if err := own.Signal(unix.SIGUSR2); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("restart the node: %w", err)
		}
	} else if err := startSupervisor(p); err != nil {
		return fmt.Errorf("start the node: %w", err)
	}
	return waitForAgent(ctx, p, old, program)
}

// startSupervisor starts the supervisor in a session of its own, which inherits nothing from this
// process's session: no open files, no variables of ssh, and no secrets.
func startSupervisor(p protocol.Layout) error {
	log, err := openLog(p)
	if err != nil {
		return err
	}
	defer log.Close()
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries { // those that this process inherited itself, too
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	c := exec.Command(p.Program(), superviseArgs(p.Root)...)
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "SSH_") || strings.HasPrefix(v, membership.TokenVariable+"=")
	})
	c.Dir, c.Stdout, c.Stderr = p.Root, log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return err
	}
	return c.Process.Release()
}

const (
	// maxLogSize is the size from which a log is put aside.
	maxLogSize = 10 << 20
	// logCheckInterval is how often its size is checked.
	logCheckInterval = time.Minute
)

// noRestartNote is the note for a machine without systemd.
const noRestartNote = "it does not start again by itself after a reboot, because there is no systemd for it here; " +
	"then run mlfnode up again"

// truncateFullLog empties a full log that a running agent appends to, after copying it to another
// file. Lines written between the two steps are lost.
func truncateFullLog(p protocol.Layout) error {
	info, err := os.Stat(p.Log())
	if err != nil || info.Size() <= maxLogSize {
		return nil // there is no log, or it is not full
	}
	in, err := os.Open(p.Log())
	if err != nil {
		return fmt.Errorf("put the full log aside: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(p.Log()+".1", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = io.Copy(out, in)
		err = errors.Join(err, out.Close(), os.Truncate(p.Log(), 0))
	}
	if err != nil {
		return fmt.Errorf("put the full log aside: %w", err)
	}
	return nil
}

// openLog opens the log for appending.
func openLog(p protocol.Layout) (*os.File, error) {
	if info, err := os.Stat(p.Log()); err == nil && info.Size() > maxLogSize {
		if err := os.Rename(p.Log(), p.Log()+".1"); err != nil {
			return nil, fmt.Errorf("put the full log aside: %w", err)
		}
	}
	return os.OpenFile(p.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// statProgram returns the installed program's file.
func statProgram(p protocol.Layout) (os.FileInfo, error) {
	info, err := os.Stat(p.Program())
	if err != nil {
		return nil, fmt.Errorf("look for the program: %w", err)
	}
	return info, nil
}

// waitForAgent waits until a new agent answers that runs the program installed before the start or
// the one installed now: an up from elsewhere may have replaced the program meanwhile.
func waitForAgent(ctx context.Context, p protocol.Layout, old int, program os.FileInfo) error {
	up := poll.Within(ctx, startTimeout, pollInterval, func() bool {
		pid := agentPID(ctx, p)
		if pid == 0 || pid == old {
			return false
		}
		runs, err := os.Stat(procfs.Path(pid, "exe"))
		if err != nil {
			return false
		}
		now, err := statProgram(p)
		return os.SameFile(runs, program) || err == nil && os.SameFile(runs, now)
	})
	if up {
		return nil
	}
	return &protocol.Problem{
		Cause: fmt.Sprintf("the node did not start within %v; the last lines of its log:\n%s", startTimeout,
			lastLines(p.Log(), shownLines)),
		Cure: "fix what the log reports, then run this again; the whole log is " + p.Log(),
	}
}

// shownLines is how many lines of a log are shown.
const shownLines = 10

// lastLines returns the last n lines of a file.
func lastLines(file string, n int) string {
	const most = 8 << 10
	f, err := os.Open(file)
	if err != nil {
		return "(there is no log)"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd) // if this fails, reading starts at the top
	}
	b, _ := io.ReadAll(io.LimitReader(f, most))
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}

// findSupervisor returns the process of the supervisor that holds the lock of the root folder, or
// the zero ID if there is none. If the supervisor runs on another machine that shares the folder,
// its process ID means nothing here, and elsewhere names that machine.
func findSupervisor(p protocol.Layout) (own processid.ID, elsewhere string) {
	f, err := os.Open(supervisorLock(p))
	if err != nil {
		return own, ""
	}
	defer f.Close()
	if !filelock.IsLocked(f) {
		return own, ""
	}
	b, _ := io.ReadAll(io.LimitReader(f, 32))
	number, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || number < 1 {
		return own, "" // it is being written
	}
	b, _ = os.ReadFile(supervisorID(p)) // an unreadable one counts as missing
	line, host, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	id, err := processid.Parse(line)
	if err != nil || id.PID != number { // the supervisor's version records nothing but its process ID
		id, _ = processid.Of(number)
		args := procfs.Args(number)
		if !slices.Contains(args, SuperviseAction) || !slices.Contains(args, p.Root) {
			return own, ""
		}
		return id, ""
	}
	if !id.Alive() {
		return own, cmp.Or(host, "another machine")
	}
	return id, ""
}

// refuseOtherMachine refuses a root folder whose node another machine runs.
func refuseOtherMachine(p protocol.Layout) error {
	_, host := findSupervisor(p)
	if host == "" {
		return nil
	}
	return &protocol.Problem{Cause: fmt.Sprintf("the node in %s runs on %s, which shares the folder with this machine",
		p.Root, host),
		Cure: "do it there; or choose another folder for this machine with -r, on a disk of its own"}
}

// removeIfPresent removes a file that may be missing.
func removeIfPresent(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
