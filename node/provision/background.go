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
	"path/filepath"
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
	program, err := o.statProgram()
	if err != nil {
		return err
	}
	report, err := service.Install(ctx, service.Options{
		Manager: service.Manager{User: r.Service == protocol.ServiceUser}, Role: service.Role(r.Role), InPlace: true,
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
	return o.waitForAgent(ctx, 0, program)
}

// launchBackground starts the supervisor, or makes the running one restart itself and the agent.
func (i *installation) launchBackground(ctx context.Context, _ startRecord) error {
	old := i.agentPID(ctx)
	program, err := i.statProgram()
	if err != nil {
		return err
	}
	if own, _ := findSupervisor(i.Layout); own.PID > 0 {
		if err := own.Signal(unix.SIGUSR2); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("restart the node: %w", err)
		}
	} else if err := i.startSupervisor(); err != nil {
		return fmt.Errorf("start the node: %w", err)
	}
	return i.waitForAgent(ctx, old, program)
}

// startSupervisor starts the supervisor in a session of its own, which inherits nothing from this
// process's session.
func (i *installation) startSupervisor() error {
	log, err := openLog(i.Layout)
	if err != nil {
		return err
	}
	defer log.Close()
	closeFilesOnExec()
	c := exec.Command(i.Program(), superviseArgs(i.Root)...)
	c.Dir, c.Stdout, c.Stderr, c.Env = i.Root, log, log, supervisorEnvironment()
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return err
	}
	return c.Process.Release()
}

// closeFilesOnExec keeps programs that this process starts from inheriting its open files,
// including those that it inherited itself.
func closeFilesOnExec() {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// supervisorEnvironment returns this process's environment without secrets and without the
// variables of its ssh session.
func supervisorEnvironment() []string {
	var kept []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SSH_") && !strings.HasPrefix(v, membership.TokenVariable+"=") {
			kept = append(kept, v)
		}
	}
	return kept
}

const (
	// maxLogSize is the size from which a log is put aside.
	maxLogSize = 10 << 20
	// logCheckInterval is how often its size is checked.
	logCheckInterval = time.Minute
)

// noRestartNote is the note for a machine without systemd.
const noRestartNote = "it does not start again by itself after a reboot, because there is no systemd for it here; then run mlfnode up again"

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
func (i *installation) statProgram() (os.FileInfo, error) {
	info, err := os.Stat(i.Program())
	if err != nil {
		return nil, fmt.Errorf("look for the program: %w", err)
	}
	return info, nil
}

// waitForAgent waits until a new agent answers that runs the program installed before the start or
// the one installed now: an up from elsewhere may have replaced the program meanwhile.
func (i *installation) waitForAgent(ctx context.Context, old int, program os.FileInfo) error {
	up := poll.Within(ctx, startTimeout, pollInterval, func() bool {
		pid := i.agentPID(ctx)
		if pid == 0 || pid == old {
			return false
		}
		runs, err := os.Stat(procfs.Path(pid, "exe"))
		if err != nil {
			return false
		}
		now, err := i.statProgram()
		return os.SameFile(runs, program) || err == nil && os.SameFile(runs, now)
	})
	if up {
		return nil
	}
	return &protocol.Problem{
		Cause: fmt.Sprintf("the node did not start within %v; the last lines of its log:\n%s", startTimeout, lastLines(i.Log(), shownLines)),
		Cure:  "fix what the log reports, then run this again; the whole log is " + i.Log(),
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
		return supervisorWithPID(p, number), ""
	}
	if !id.Alive() {
		return own, cmp.Or(host, "another machine")
	}
	return id, ""
}

// supervisorWithPID returns the process with this ID if it is a supervisor of the root folder, or
// else the zero ID.
func supervisorWithPID(p protocol.Layout, pid int) processid.ID {
	id, _ := processid.Of(pid)
	if args := procfs.Args(pid); !slices.Contains(args, SuperviseAction) || !slices.Contains(args, p.Root) {
		return processid.ID{}
	}
	return id
}

// refuseOtherMachine refuses a root folder whose node another machine runs.
func (i *installation) refuseOtherMachine() error {
	_, host := findSupervisor(i.Layout)
	if host == "" {
		return nil
	}
	return &protocol.Problem{Cause: fmt.Sprintf("the node in %s runs on %s, which shares the folder with this machine", i.Root, host),
		Cure: "do it there; or choose another folder for this machine with -r, on a disk of its own"}
}

// removeIfPresent removes a file that may be missing.
func removeIfPresent(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isInside reports whether a path is inside a folder.
func isInside(folder, file string) bool {
	rel, err := filepath.Rel(folder, file)
	return err == nil && filepath.IsLocal(rel)
}
