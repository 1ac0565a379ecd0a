package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/poll"
)

const (
	// startTimeout is how long an installation waits until the service is active.
	startTimeout = 30 * time.Second
	// maxStarts is the number of failed starts after which an installation gives up waiting.
	maxStarts = 3
	// pollInterval is the pause between checks of the service during that time.
	pollInterval = 100 * time.Millisecond
	// journalLines is how many lines of the journal are shown for a service that does not start.
	journalLines = 15
)

// Options describe an installation. Empty paths default to /etc/mlfnode and /var/lib/mlfnode for
// the system, and to the XDG folders for a user.
type Options struct {
	Manager
	Role       grid.NodeRole
	Program    string   // the program that the unit runs; empty means the running one
	ConfigFile string   // node.yaml; written if it does not exist
	StateDir   string   // the state folder
	Seed       string   // the master that a worker joins, as HOST or HOST:PORT
	Args       []string // more arguments of `mlfnode master` or `mlfnode join`
	InPlace    bool     // the unit runs the program from its path, wherever that is
	NoStart    bool     // install and enable, but leave the start to the next boot

	// Join makes this machine a node with the settings of the file and the state folder, and
	// returns the file, if any, to which it has written the user's access to the cluster. It is
	// called before the start of a worker that has not joined a cluster; nil leaves that to the
	// user.
	Join func(ctx context.Context, config, state string) (access string, err error)
}

// Report is the result of an installation.
type Report struct {
	Unit    string   // the unit's file
	Program string   // the program that it runs
	Config  string   // the settings file
	State   string   // the state folder
	Started bool     // the service is active
	Notes   []string // what the user should know or do, each a sentence or two
}

// Install writes the unit and the files that it needs, enables and starts it, and waits until the
// node reports that it is ready. It updates and restarts an existing installation, whose trials
// keep running. It returns ErrNoSystemd on a host without systemd, an error that is
// fs.ErrPermission without the privileges, and a StartError if the service does not become active;
// it is installed then, and systemd keeps restarting it.
func Install(ctx context.Context, o Options) (Report, error) {
	if err := o.checkPrivilege(); err != nil {
		return Report{}, err
	}
	if err := o.checkSystemd(); err != nil {
		return Report{}, err
	}
	i, err := newInstallation(o)
	if err != nil {
		return Report{}, err
	}
	if o.User {
		i.enableLinger(ctx)
	}
	if err := o.checkReachable(ctx); err != nil {
		return Report{}, err
	}
	if err := i.write(ctx); err != nil {
		return Report{}, err
	}
	if i.Role == grid.Worker && i.Join != nil && !hasJoined(i.state) {
		access, err := i.Join(ctx, i.config, i.state)
		if err == nil && access != "" {
			i.created.Access = access
			err = i.writeUnit(ctx)
		}
		if err != nil {
			return i.report, err
		}
	}
	if err := i.activate(ctx); err != nil {
		return i.report, err
	}
	return i.report, nil
}

// installation is an installation in progress.
type installation struct {
	Options
	layout
	created createdFiles // of this installation, and of the one that it replaces
	args    []string
	report  Report
}

// newInstallation makes every decision that depends only on files, and changes nothing.
func newInstallation(o Options) (*installation, error) {
	l, err := o.layout()
	if err != nil {
		return nil, err
	}
	i := &installation{Options: o, layout: l}
	if o.ConfigFile != "" {
		if i.config, err = filepath.Abs(o.ConfigFile); err != nil {
			return nil, err
		}
	}
	old, err := readIfExists(l.unit)
	if err != nil {
		return nil, fmt.Errorf("read the existing unit: %w", err)
	}
	i.created = readCreatedFiles(old)
	if err := i.resolveSettings(); err != nil {
		return nil, err
	}
	i.report.Unit, i.report.Config, i.report.State = i.unit, i.config, i.state
	return i, i.chooseProgram()
}

// resolveSettings merges the options with the settings file: what the file contains is not repeated
// as an argument.
func (i *installation) resolveSettings() error {
	text, err := readIfExists(i.config)
	if err != nil {
		return fmt.Errorf("read the settings: %w", err)
	}
	i.args = []string{commandOf(i.Role), "--config", i.config}
	if i.StateDir != "" {
		if i.state, err = filepath.Abs(i.StateDir); err != nil {
			return err
		}
	}
	fresh := text == ""
	if state := setting(text, "state"); state != "" && i.StateDir == "" {
		i.state = state
	} else if !fresh && state != i.state {
		i.args = append(i.args, "--state-dir", i.state)
		if !i.User || i.StateDir != "" {
			i.addNote("commands on this host find the node when %s says `state: %s`, or with --state-dir", i.config,
				i.state)
		}
	}
	if i.Role == grid.Worker {
		seed := setting(text, "seed")
		if seed == "" && i.Seed == "" && !hasJoined(i.state) {
			return errors.New("a worker needs to know its master: give --seed HOST, or write `seed: HOST` into " +
				i.config)
		}
		if !fresh && i.Seed != "" && i.Seed != seed {
			i.args = append(i.args, "--seed", i.Seed)
		}
	}
	i.args = append(i.args, i.Args...)
	return nil
}

// hasJoined reports whether the state folder is that of a node that has joined a cluster.
func hasJoined(state string) bool {
	_, err := os.Stat(filepath.Join(state, "trust", "node.crt"))
	return err == nil
}

// chooseProgram decides which program the unit runs.
func (i *installation) chooseProgram() error {
	program := i.Program
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
	}
	program, err := filepath.EvalSymlinks(program)
	if err == nil {
		program, err = filepath.Abs(program)
	}
	if err != nil {
		return fmt.Errorf("find the program: %w", err)
	}
	i.Program, i.report.Program = program, program
	if !i.InPlace && !i.isStable(program, i.layout) {
		i.report.Program = i.layout.program
	}
	return nil
}

// enableLinger enables lingering, so that the user's services run without a login. If that is not
// allowed, the installation continues and reports it.
func (i *installation) enableLinger(ctx context.Context) {
	if out, err := run(ctx, "loginctl", "show-user", i.owner, "-p", "Linger", "--value"); err != nil || out != "yes" {
		if err := setLinger(ctx, "enable-linger", i.owner); err != nil {
			i.addNote("the service ends when %s logs out, because lingering could not be enabled (%v). "+
				"Have an administrator run: loginctl enable-linger %[1]s", i.owner, err)
			return
		}
		i.created.Linger = i.owner
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	// The user's systemd may still be starting; checkReachable reports an error.
	_ = poll.Until(ctx, pollInterval, func() (bool, error) {
		_, err := i.systemctl(ctx, "show", "-p", "Version")
		return err == nil, nil
	})
}

// setLinger runs loginctl enable-linger or disable-linger for the calling user, and falls back to
// passwordless sudo if the user may not do that. The error is that of loginctl without sudo.
func setLinger(ctx context.Context, command, owner string) error {
	_, err := run(ctx, "loginctl", "--no-ask-password", command)
	if err == nil {
		return nil
	}
	if _, sudo := run(ctx, "sudo", "-n", "loginctl", command, owner); sudo == nil {
		return nil
	}
	return err
}

func (i *installation) addNote(format string, v ...any) {
	i.report.Notes = append(i.report.Notes, fmt.Sprintf(format, v...))
}

// write writes the files. The unit comes last, because it names the others.
func (i *installation) write(ctx context.Context) error {
	if i.report.Program != i.Program {
		i.created.Program = i.report.Program
		b, err := os.ReadFile(i.Program)
		if err == nil {
			err = writeFile(i.report.Program, b, 0o755)
		}
		if err != nil {
			return fmt.Errorf("copy the program: %w", err)
		}
	}
	if _, err := os.Stat(i.config); err != nil {
		text := fmt.Sprintf("# Settings of this host's mlfnode; `systemctl reload mlfnode` has them read again.\n"+
			"# The node.yaml that comes with mlfnode explains every setting.\n\n# Folder for everything the node keeps.\nstate: %q\n",
			i.state)
		if i.Role == grid.Worker && i.Seed != "" {
			text += fmt.Sprintf("\n# The master, as HOST or HOST:PORT.\nseed: %q\n", i.Seed)
		}
		i.created.Config, i.created.Digest = i.config, digest([]byte(text))
		if err := writeFile(i.config, []byte(text), 0o600); err != nil { // secrets may be added to it
			return fmt.Errorf("write the settings: %w", err)
		}
	}
	// A purge may remove the folder if it belongs to a node alone: it is missing or empty, or a
	// node has locked it before.
	entries, err := os.ReadDir(i.state)
	_, lockErr := os.Stat(filepath.Join(i.state, "lock"))
	if err != nil || len(entries) == 0 || lockErr == nil && i.state != i.home {
		i.created.State = i.state
	}
	if err := os.MkdirAll(i.state, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	return i.writeUnit(ctx)
}

func (i *installation) writeUnit(ctx context.Context) error {
	u := unit{
		manager: i.Manager, role: i.Role, version: i.version(ctx),
		command: append([]string{i.report.Program}, i.args...),
		state:   i.state, owner: i.owner, created: i.created,
	}
	if err := writeFile(i.unit, []byte(u.text()), 0o644); err != nil {
		return fmt.Errorf("write the unit: %w", err)
	}
	return nil
}

// activate makes systemd read the unit, enables it and starts it.
func (i *installation) activate(ctx context.Context) error {
	if _, err := i.systemctl(ctx, "daemon-reload"); err != nil {
		return fmt.Errorf("make systemd read the unit: %w", err)
	}
	if _, err := i.systemctl(ctx, "enable", "--quiet", Unit); err != nil {
		return fmt.Errorf("enable the service: %w", err)
	}
	if i.NoStart {
		return nil
	}
	_, _ = i.systemctl(ctx, "reset-failed", Unit) // there may be nothing to reset
	if _, err := i.systemctl(ctx, "restart", "--no-block", Unit); err != nil {
		return fmt.Errorf("start the service: %w", err)
	}
	if err := i.waitActive(ctx); err != nil {
		return err
	}
	i.report.Started = true
	return nil
}

// waitActive waits until the service reports that it is ready.
func (i *installation) waitActive(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it is not ready after %v", startTimeout))
	defer cancel()
	var last map[string]string
	err := poll.Until(ctx, pollInterval, func() (bool, error) {
		p, err := i.properties(ctx, "ActiveState", "SubState", "Result", "NRestarts", "StatusText", "Job")
		if err != nil {
			return false, nil // systemd may be busy; the deadline bounds the retries
		}
		last = p
		if n, _ := strconv.Atoi(p["NRestarts"]); n >= maxStarts || p["ActiveState"] == "failed" {
			return false, fmt.Errorf("it ended %s times, the last time with: %s", p["NRestarts"], p["Result"])
		}
		return p["ActiveState"] == "active" && p["Job"] == "", nil
	})
	if err == nil {
		return nil
	}
	if text := last["StatusText"]; text != "" {
		err = fmt.Errorf("%w; its state: %s", err, text)
	}
	return &StartError{Cause: err, Journal: i.journal(context.WithoutCancel(ctx), journalLines)}
}

// StartError is returned by Install if the service is installed and does not become active.
type StartError struct {
	Cause   error
	Journal string // its last lines, or "" if they can't be read
}

// Error returns the cause and the last lines of the journal.
func (e *StartError) Error() string {
	text := "the service was installed and does not start: " + e.Cause.Error()
	if e.Journal != "" {
		text += "\n  " + strings.ReplaceAll(e.Journal, "\n", "\n  ")
	}
	return text
}

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Cause }
