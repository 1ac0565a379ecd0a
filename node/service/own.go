package service

import (
	"context"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"
)

// restartPatience bounds the question whether a restart is under way: it is asked while the agent is being stopped.
const restartPatience = 2 * time.Second

// own finds the unit of systemd that a process with the given /proc/PID/cgroup is in: the nearest one on the way up. A
// process in a scope, as that of a login session or of a container, is in no service.
func own(cgroups string) (unit string, user bool) {
	for line := range strings.Lines(cgroups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || (parts[1] != "" && parts[1] != "name=systemd") {
			continue
		}
		for dir := parts[2]; dir != "/" && dir != "."; dir = path.Dir(dir) {
			switch name := path.Base(dir); path.Ext(name) {
			case ".service":
				return name, strings.Contains(path.Dir(dir)+"/", "/user@")
			case ".scope":
				return "", false
			}
		}
	}
	return "", false
}

func ownUnit() (unit string, user bool) {
	if (Home{}).booted() != nil {
		return "", false
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", false
	}
	return own(string(b))
}

// Restarting reports whether systemd is restarting the service that this process belongs to, so that it will be back in a
// moment. It is meant for the moment when SIGTERM arrives, and is false when nothing is known within two seconds.
//
// While systemd waits for a service to end, the job of `systemctl restart`, and of try-restart and reload-or-restart, is of type
// restart and running; it becomes a start job only after the service has ended. That of `systemctl stop` and of a machine that
// shuts down is of type stop. A signal that somebody sent by hand comes without a job.
func Restarting(ctx context.Context) bool {
	unit, user := ownUnit()
	if unit == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, restartPatience)
	defer cancel()
	out, err := Home{User: user}.systemctl(ctx, "list-jobs", "--no-legend", "--full", unit)
	return err == nil && restartJob(out, unit)
}

// restartJob looks for the unit's restart in lines of the form `138 mlfnode.service restart running`.
func restartJob(jobs, unit string) bool {
	for line := range strings.Lines(jobs) {
		if f := strings.Fields(line); len(f) == 4 && f[1] == unit {
			return f[2] == "restart" || f[2] == "try-restart"
		}
	}
	return false
}

// shed is the shell program that sheds what a shim must not inherit from the agent before it becomes the shim: the
// agent's protection from the kernel's hunt for memory, which trials would share, and its line to systemd.
const shed = `echo 0 2>/dev/null >/proc/self/oom_score_adj; unset NOTIFY_SOCKET WATCHDOG_PID WATCHDOG_USEC; exec "$@"`

// Scope gives what to put before the command line of a shim, so that it runs in a scope of its own beside the agent's
// service and survives both a restart and a stop of the agent. The process keeps its number, output and environment through
// it. Not ok where this process is in no service, or may not make scopes: the shim is then started in a session of its own.
//
// A scope leaves the agent's cgroup alone. Its limits of resources, capabilities and system call filter are inherited by
// trials, which is why the unit is no stricter than a trial can bear.
func Scope(name string) (wrap []string, ok bool) {
	unit, user := ownUnit()
	if unit == "" || (!user && os.Geteuid() != 0) {
		return nil, false
	}
	program, err := exec.LookPath("systemd-run")
	if err != nil {
		return nil, false
	}
	return scope(program, name, user), true
}

func scope(program, name string, user bool) []string {
	wrap := []string{program}
	if user {
		wrap = append(wrap, "--user")
	}
	unit := strings.Replace(shimScopes, "*", unitName(name), 1)
	return append(wrap, "--scope", "--quiet", "--collect", "--unit="+unit, "-p", "Delegate=yes",
		"--description=trials of mlfnode", "--", "/bin/sh", "-c", shed, "sh")
}

// unitName keeps the characters that a unit's name may have.
func unitName(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == '.' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, name)
}
