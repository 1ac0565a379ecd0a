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
	"mlfnode/node/membership"
	"mlfnode/node/processid"
	"mlfnode/node/service"
)

// SuperviseAction is the action that keeps a node running on a machine without systemd. ActionStart starts it; it is not
// part of the protocol.
const SuperviseAction = "supervise"

// startTimeout is how long a node may take until it answers.
const startTimeout = 20 * time.Second

// launchService has systemd run the node. An installation that is there is restarted, which leaves trials alone.
func (o *operation) launchService(ctx context.Context, r startRecord) error {
	program, err := o.statProgram()
	if err != nil {
		return err
	}
	report, err := service.Install(ctx, service.Options{
		Home: service.Home{User: r.Service == protocol.ServiceUser}, Role: service.Role(r.Role), InPlace: true,
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

// launchBackground starts the supervisor, or has the one that is there restart itself and the agent.
func (o *operation) launchBackground(ctx context.Context, _ startRecord) error {
	old := o.agentPID(ctx)
	program, err := o.statProgram()
	if err != nil {
		return err
	}
	if own, _ := findSupervisor(o.Layout); own.PID > 0 {
		if err := own.Signal(unix.SIGUSR2); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("restart the node: %w", err)
		}
	} else if err := o.startSupervisor(); err != nil {
		return fmt.Errorf("start the node: %w", err)
	}
	return o.waitForAgent(ctx, old, program)
}

// startSupervisor starts a session of its own, which keeps nothing of the one that this process is in.
func (o *operation) startSupervisor() error {
	log, err := openLog(o.Layout)
	if err != nil {
		return err
	}
	defer log.Close()
	closeFilesOnExec()
	c := exec.Command(o.Program(), protocol.Command, SuperviseAction, "--root", o.Root)
	c.Dir, c.Stdout, c.Stderr, c.Env = o.Root, log, log, supervisorEnvironment()
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return err
	}
	return c.Process.Release()
}

// closeFilesOnExec keeps open files from programs that this process starts, those too that it was started with.
func closeFilesOnExec() {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// supervisorEnvironment is what this process has, without what belongs to its session and without secrets.
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
	// maxLogSize is how large a log may become; a larger one is put aside.
	maxLogSize = 10 << 20
	// logCheckInterval is how often its size is looked at.
	logCheckInterval = time.Minute
)

// noRestartNote is the note for a machine without systemd.
const noRestartNote = "it does not start again by itself after a reboot, because there is no systemd for it here; then run mlfnode up again"

// truncateFullLog makes room in a log that a running agent appends to: the file stays, and what is in it goes into another one. What is
// written in between is lost.
func truncateFullLog(p protocol.Layout) error {
	info, err := os.Stat(p.Log())
	if err != nil || info.Size() <= maxLogSize {
		return nil // without a log there is nothing to do
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

// statProgram gives the program's file as it lies there now.
func (o *operation) statProgram() (os.FileInfo, error) {
	info, err := os.Stat(o.Program())
	if err != nil {
		return nil, fmt.Errorf("look for the program: %w", err)
	}
	return info, nil
}

// waitForAgent waits until an agent answers that runs the program as it lay there before the start, or lies there now, and is another one than
// before: an up from elsewhere may put another program there meanwhile.
func (o *operation) waitForAgent(ctx context.Context, old int, program os.FileInfo) error {
	up := pollUntil(ctx, startTimeout, func() bool {
		pid := o.agentPID(ctx)
		if pid == 0 || pid == old {
			return false
		}
		runs, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
		if err != nil {
			return false
		}
		now, err := o.statProgram()
		return os.SameFile(runs, program) || err == nil && os.SameFile(runs, now)
	})
	if up {
		return nil
	}
	return &protocol.Problem{
		Cause: fmt.Sprintf("the node does not start within %v; the last lines of its log:\n%s", startTimeout, lastLines(o.Log(), shownLines)),
		Cure:  "fix what the log reports, then run this again; the whole log is " + o.Log(),
	}
}

// shownLines is how much of a log is shown.
const shownLines = 10

// lastLines gives the last lines of a file.
func lastLines(file string, n int) string {
	const most = 8 << 10
	f, err := os.Open(file)
	if err != nil {
		return "(there is no log)"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd) // else it starts at the top
	}
	b, _ := io.ReadAll(io.LimitReader(f, most))
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}

// findSupervisor gives the process of the supervisor that has the lock of the root folder, the zero ID when there is none. Elsewhere
// names the machine on which one runs that shares the folder with this one, "" for none: its number means nothing here.
func findSupervisor(p protocol.Layout) (own processid.ID, elsewhere string) {
	f, err := os.Open(supervisorLock(p))
	if err != nil {
		return own, ""
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return own, ""
	}
	b, _ := io.ReadAll(io.LimitReader(f, 32))
	number, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || number < 1 {
		return own, "" // it is being written
	}
	b, _ = os.ReadFile(supervisorID(p)) // one that can't be read is as good as none
	line, host, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	id, err := processid.Parse(line)
	if err != nil || id.PID != number { // the supervisor is of a version that left nothing but its number
		return supervisorWithPID(p, number), ""
	}
	if !id.Alive() {
		return own, cmp.Or(host, "another machine")
	}
	return id, ""
}

// supervisorWithPID names the process with a number, if that is a supervisor of the root folder.
func supervisorWithPID(p protocol.Layout, pid int) processid.ID {
	id, _ := processid.Of(pid)
	line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if args := strings.Split(string(line), "\x00"); !slices.Contains(args, SuperviseAction) || !slices.Contains(args, p.Root) {
		return processid.ID{}
	}
	return id
}

// refuseOtherMachine refuses a root folder whose node another machine runs.
func (o *operation) refuseOtherMachine() error {
	_, host := findSupervisor(o.Layout)
	if host == "" {
		return nil
	}
	return &protocol.Problem{Cause: fmt.Sprintf("the node in %s runs on %s, which shares the folder with this machine", o.Root, host),
		Cure: "do it there; or choose another folder for this machine with -r, on a disk of its own"}
}

// removeIfPresent removes a file that may be missing.
func removeIfPresent(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isInside reports whether a path lies in a folder.
func isInside(folder, file string) bool {
	rel, err := filepath.Rel(folder, file)
	return err == nil && filepath.IsLocal(rel)
}
