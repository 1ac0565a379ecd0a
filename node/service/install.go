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
)

const (
	// startPatience is how long an installation waits until the service is active.
	startPatience = 30 * time.Second
	// startTries is after how many starts that ended again an installation says why.
	startTries = 3
	// look is how often the service is looked at meanwhile.
	look = 100 * time.Millisecond
	// journalLines is how many of its last lines are shown of a service that does not start.
	journalLines = 15
)

// Options say what to install. Empty ones mean what fits the home: files in /etc/mlfnode and /var/lib/mlfnode for the system,
// in the XDG folders for a user.
type Options struct {
	Home
	Role       Role
	Program    string   // the program that the unit runs; empty: the one that is running
	ConfigFile string   // node.yaml; a missing one is written
	StateDir   string   // the state folder
	Seed       string   // the master that a worker joins, as HOST or HOST:PORT
	Args       []string // more arguments of `mlfnode master` or `mlfnode join`
	InPlace    bool     // the program is run from where it lies, wherever that is
	NoStart    bool     // install and enable, but leave it to the next boot to start

	// Join makes this machine a node with the settings of the file and the state folder, and names the file, if any, in which it
	// has put the user's access to the cluster. It is called before a worker is started that has not joined a cluster; nil leaves
	// that to the user.
	Join func(ctx context.Context, config, state string) (access string, err error)
}

// Report says what an installation has done.
type Report struct {
	Unit    string   // the unit's file
	Program string   // what it runs
	Config  string   // the settings file
	State   string   // the state folder
	Started bool     // whether it is active now
	Notes   []string // what a person should know or do, each a sentence or two
}

// Install writes the unit and what it needs, enables and starts it, and waits until the node has said that it is ready. An
// installation that is there is brought up to date and restarted, which leaves running trials alone. It returns ErrNoSystemd
// where there is none, an error that is fs.ErrPermission without the rights, and one with the service's last words when it
// does not become active; it is installed then, and systemd goes on trying.
func Install(ctx context.Context, o Options) (Report, error) {
	if err := o.allowed(); err != nil {
		return Report{}, err
	}
	if err := o.booted(); err != nil {
		return Report{}, err
	}
	i, err := newInstallation(o)
	if err != nil {
		return Report{}, err
	}
	if o.User {
		i.linger(ctx)
	}
	if err := o.ready(ctx); err != nil {
		return Report{}, err
	}
	if err := i.write(ctx); err != nil {
		return Report{}, err
	}
	if err := i.join(ctx); err != nil {
		return i.report, err
	}
	if err := i.activate(ctx); err != nil {
		return i.report, err
	}
	return i.report, nil
}

// installation is one under way.
type installation struct {
	Options
	layout
	marks  marks // of this installation, and of the one it replaces
	args   []string
	report Report
}

// newInstallation decides everything that depends on files alone, and changes nothing.
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
	old, err := readIfThere(l.unit)
	if err != nil {
		return nil, fmt.Errorf("read the unit that is there: %w", err)
	}
	i.marks = readMarks(old)
	if err := i.settle(); err != nil {
		return nil, err
	}
	i.report.Unit, i.report.Config, i.report.State = i.unit, i.config, i.state
	return i, i.chooseProgram()
}

// settle brings the options and the settings file together: what the file says already need not be an argument.
func (i *installation) settle() error {
	text, err := readIfThere(i.config)
	if err != nil {
		return fmt.Errorf("read the settings: %w", err)
	}
	i.args = []string{i.Role.command(), "--config", i.config}
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
			i.note("commands on this host find the node when %s says `state: %s`, or with --state-dir", i.config, i.state)
		}
	}
	if i.Role == Worker {
		seed := setting(text, "seed")
		if seed == "" && i.Seed == "" && !joined(i.state) {
			return errors.New("a worker needs to know its master: give --seed HOST, or write `seed: HOST` into " + i.config)
		}
		if !fresh && i.Seed != "" && i.Seed != seed {
			i.args = append(i.args, "--seed", i.Seed)
		}
	}
	i.args = append(i.args, i.Args...)
	return nil
}

// joined reports whether the state folder is that of a node that has joined a cluster.
func joined(state string) bool {
	_, err := os.Stat(filepath.Join(state, "trust", "node.crt"))
	return err == nil
}

// chooseProgram finds the program to run.
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
	if !i.InPlace && !i.stable(program, i.layout) {
		i.report.Program = i.layout.program
	}
	return nil
}

// linger has the user's services run without a login. Where that is not allowed the installation goes on, and says so.
func (i *installation) linger(ctx context.Context) {
	if out, err := run(ctx, "loginctl", "show-user", i.owner, "-p", "Linger", "--value"); err != nil || out != "yes" {
		if err := setLinger(ctx, "enable-linger", i.owner); err != nil {
			i.note("the service ends when %s logs out, because lingering could not be enabled (%v). Have an administrator run: loginctl enable-linger %[1]s", i.owner, err)
			return
		}
		i.marks.Linger = i.owner
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_ = until(ctx, func() (bool, error) { // the user's systemd may only be starting; ready says if it does not
		_, err := i.systemctl(ctx, "show", "-p", "Version")
		return err == nil, nil
	})
}

// setLinger has loginctl do this about lingering of the calling user. Sudo that asks for no password may be allowed what the user
// is not. The error is what loginctl said without it.
func setLinger(ctx context.Context, what, owner string) error {
	_, err := run(ctx, "loginctl", "--no-ask-password", what)
	if err == nil {
		return nil
	}
	if _, sudo := run(ctx, "sudo", "-n", "loginctl", what, owner); sudo == nil {
		return nil
	}
	return err
}

func (i *installation) note(format string, v ...any) {
	i.report.Notes = append(i.report.Notes, fmt.Sprintf(format, v...))
}

// write puts the files in place. The unit comes last; it names what the others made.
func (i *installation) write(ctx context.Context) error {
	if err := i.writeProgram(); err != nil {
		return fmt.Errorf("copy the program: %w", err)
	}
	if err := i.writeConfig(); err != nil {
		return fmt.Errorf("write the settings: %w", err)
	}
	if i.ours(i.state) {
		i.marks.State = i.state
	}
	if err := os.MkdirAll(i.state, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	return i.writeUnit(ctx)
}

// join makes the machine a node, if it is none yet.
func (i *installation) join(ctx context.Context) error {
	if i.Role != Worker || i.Join == nil || joined(i.state) {
		return nil
	}
	access, err := i.Join(ctx, i.config, i.state)
	if err != nil || access == "" {
		return err
	}
	i.marks.Access = access
	return i.writeUnit(ctx)
}

func (i *installation) writeUnit(ctx context.Context) error {
	u := unit{
		home: i.Home, role: i.Role, version: i.version(ctx), command: append([]string{i.report.Program}, i.args...),
		state: i.state, owner: i.owner, marks: i.marks,
	}
	if err := place(i.unit, []byte(u.text()), 0o644); err != nil {
		return fmt.Errorf("write the unit: %w", err)
	}
	return nil
}

// ours reports whether a folder is a node's alone, so that a purge may remove it: one that is missing, empty, or that a node
// has locked before.
func (i *installation) ours(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return true
	}
	_, err = os.Stat(filepath.Join(dir, "lock"))
	return err == nil && dir != i.home
}

func (i *installation) writeProgram() error {
	if i.report.Program == i.Program {
		return nil
	}
	b, err := os.ReadFile(i.Program)
	if err != nil {
		return err
	}
	i.marks.Program = i.report.Program
	return place(i.report.Program, b, 0o755)
}

// writeConfig writes the settings where there are none. They may come to hold secrets, so only their owner reads them.
func (i *installation) writeConfig() error {
	if _, err := os.Stat(i.config); err == nil {
		return nil
	}
	seed := i.Seed
	if i.Role != Worker {
		seed = ""
	}
	text := []byte(newConfig(i.state, seed))
	i.marks.Config, i.marks.Digest = i.config, digestOf(text)
	return place(i.config, text, 0o600)
}

// activate makes systemd read the unit, enables it and starts it.
func (i *installation) activate(ctx context.Context) error {
	if _, err := i.systemctl(ctx, "daemon-reload"); err != nil {
		return fmt.Errorf("have systemd read the unit: %w", err)
	}
	if _, err := i.systemctl(ctx, "enable", "--quiet", Unit); err != nil {
		return fmt.Errorf("enable the service: %w", err)
	}
	if i.NoStart {
		return nil
	}
	_, _ = i.systemctl(ctx, "reset-failed", Unit) // of an earlier life; there may be nothing to reset
	if _, err := i.systemctl(ctx, "restart", "--no-block", Unit); err != nil {
		return fmt.Errorf("start the service: %w", err)
	}
	if err := i.waitActive(ctx); err != nil {
		return err
	}
	i.report.Started = true
	return nil
}

// waitActive waits until the service has said that it is ready.
func (i *installation) waitActive(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("it is not ready after %v", startPatience))
	defer cancel()
	var last map[string]string
	err := until(ctx, func() (bool, error) {
		p, err := i.properties(ctx, "ActiveState", "SubState", "Result", "NRestarts", "StatusText", "Job")
		if err != nil {
			return false, nil // systemd may be busy reading; the deadline bounds it
		}
		last = p
		if n, _ := strconv.Atoi(p["NRestarts"]); n >= startTries || p["ActiveState"] == "failed" {
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

// StartError is returned by Install when the service is installed and does not become active.
type StartError struct {
	Cause   error
	Journal string // the last lines that it wrote, "" if they can't be read
}

// Error gives the cause and the service's last words.
func (e *StartError) Error() string {
	text := "the service was installed and does not start: " + e.Cause.Error()
	if e.Journal != "" {
		text += "\n  " + strings.ReplaceAll(e.Journal, "\n", "\n  ")
	}
	return text
}

// Unwrap gives the cause.
func (e *StartError) Unwrap() error { return e.Cause }

// until calls ok every now and then until it is true, fails, or ctx ends.
func until(ctx context.Context, ok func() (bool, error)) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
