// Package service runs a node as a service of its host: it installs, removes and describes the
// systemd unit mlfnode.service, and implements the node's side of systemd's protocols.
//
// There are two kinds of installation. The system service belongs to root, starts with the machine
// and stores its state in /var/lib/mlfnode. The user service belongs to one user, for whom
// lingering must be enabled, or it ends at logout. Both run the agent in the foreground with
// Type=notify: the agent reports when it is ready (Notifier), pings a watchdog while it is healthy,
// and is restarted however it ends.
//
// The programs of trials must outlive the agent. They run under shims in scopes of their own
// (Scope): units beside mlfnode.service, which a restart of the agent does not affect. When the
// agent is asked to stop, Restarting reports whether systemd is going to start it again. If so, the
// shims keep running; if not, the agent stops them.
package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"mlfnode/grid"
)

// Unit is the name of the systemd unit, both of the system and of a user.
const Unit = "mlfnode.service"

// shimScopes and formerShimScopes match the scopes of shims: those of this version, and those of
// earlier versions, which called shims keepers.
const (
	shimScopes       = "mlfnode-shim-*.scope"
	formerShimScopes = "mlfnode-keeper-*.scope"
)

// commandOf returns the mlfnode command that runs a node with a role.
func commandOf(role grid.NodeRole) string {
	if role == grid.Master {
		return "master"
	}
	return "join"
}

// ErrNoSystemd is returned by Install, Uninstall and Status on a host without systemd.
var ErrNoSystemd = errors.New("this host is not run by systemd")

// Manager is a service manager of systemd: the system's, or that of the calling user.
type Manager struct {
	User bool   // the calling user's
	root string // the host's root folder; set in tests only
}

// path returns the path of a file below the host's root.
func (h Manager) path(path string) string { return filepath.Join("/", h.root, path) }

// checkSystemd returns ErrNoSystemd on hosts without systemd, as determined by sd_booted(3).
func (h Manager) checkSystemd() error {
	if info, err := os.Stat(h.path("/run/systemd/system")); err != nil || !info.IsDir() {
		return ErrNoSystemd
	}
	return nil
}

// layout is the paths of a service's files.
type layout struct {
	unit    string // the unit's file
	config  string // node.yaml
	state   string // the state folder
	program string // the copy of a program whose own path is not stable
	home    string // of the user as whom the service runs
	owner   string // that user's name
}

func (h Manager) layout() (layout, error) {
	u, err := user.Current()
	if err != nil {
		return layout{}, fmt.Errorf("find who runs this: %w", err)
	}
	if !h.User {
		return layout{
			unit: h.path("/etc/systemd/system/" + Unit), config: h.path("/etc/mlfnode/node.yaml"),
			state:   "/var/lib/mlfnode",
			program: h.path("/usr/local/bin/mlfnode"), home: u.HomeDir, owner: u.Username,
		}, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return layout{}, fmt.Errorf("find the home folder: %w", err)
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return layout{}, fmt.Errorf("find the folder for settings: %w", err)
	}
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		state = filepath.Join(home, ".local", "state")
	}
	return layout{
		unit: filepath.Join(config, "systemd", "user", Unit), config: filepath.Join(config, "mlfnode", "node.yaml"),
		state: filepath.Join(state, "mlfnode"), program: filepath.Join(home, ".local", "bin", "mlfnode"),
		home: home, owner: u.Username,
	}, nil
}

// isStable reports whether a service may run a program from its path: the program stays there, and
// only root can change that of a system service.
func (h Manager) isStable(program string, l layout) bool {
	folders := []string{"/usr/", "/opt/", "/bin/", "/sbin/"}
	if h.User {
		folders = append(folders, filepath.Dir(l.program)+"/", filepath.Join(l.home, "bin")+"/")
	}
	for _, folder := range folders {
		if strings.HasPrefix(program, folder) {
			return true
		}
	}
	return false
}

// WithoutSystemd explains what to do on a host without systemd: the commands for a shell and for
// the host's own supervisor.
func WithoutSystemd(role grid.NodeRole, args ...string) string {
	line := strings.Join(append([]string{"mlfnode", commandOf(role)}, args...), " ")
	return fmt.Sprintf(`start it by hand, so that it outlives this terminal:
    setsid nohup %s >>mlfnode.log 2>&1 </dev/null &
  or give the host's own supervisor (runit, s6, OpenRC, a container's entry point) this line, to be restarted whenever it ends:
    exec %[1]s
  it ends in good order on SIGTERM and reads node.yaml again on SIGHUP`, line)
}

// checkPrivilege returns an error if the caller may not change the services.
func (h Manager) checkPrivilege() error {
	if !h.User && os.Geteuid() != 0 {
		return fmt.Errorf("a service of the system is changed by root only: %w", os.ErrPermission)
	}
	return nil
}

// checkReachable returns an error if the service manager does not answer.
func (h Manager) checkReachable(ctx context.Context) error {
	if err := h.checkSystemd(); err != nil {
		return err
	}
	if _, err := h.systemctl(ctx, "show", "-p", "Version", "--value"); err != nil {
		if h.User {
			name := "$USER"
			if u, err := user.Current(); err == nil {
				name = u.Username
			}
			return fmt.Errorf(
				"reach the systemd of this user: %w; log in again, or have root run: loginctl enable-linger %s", err,
				name)
		}
		return fmt.Errorf("reach systemd: %w", err)
	}
	return nil
}
