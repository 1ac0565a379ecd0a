package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"mlfnode/node/poll"
)

// ErrNoService is returned by CommandAs for a user who has neither a service nor a running systemd.
var ErrNoService = errors.New("no service is installed")

// CommandAs returns a command with which root runs this program as another user, to manage the
// services of that user. If install is set, it enables lingering for the user (loginctl
// enable-linger); it changes nothing else, and without install it returns ErrNoService if there is
// no service. release removes the command's temporary files; call it when the command has ended.
func CommandAs(
	ctx context.Context, name string, install bool, args ...string,
) (c *exec.Cmd, release func(), err error) {
	if err := (Manager{}).checkPrivilege(); err != nil {
		return nil, nil, err
	}
	if err := (Manager{}).checkSystemd(); err != nil {
		return nil, nil, err
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, nil, fmt.Errorf("there is no user %q on this host", name)
	}
	credential, err := credentialOf(u)
	if err != nil {
		return nil, nil, err
	}
	if info, err := os.Stat(u.HomeDir); err != nil || !info.IsDir() {
		return nil, nil,
			fmt.Errorf("the user %s has no home folder for the settings and the state of a service: %s is not a folder",
				u.Username, u.HomeDir)
	}
	runtime := filepath.Join("/run/user", u.Uid)
	if err := startUserManager(ctx, u, runtime, install); err != nil {
		return nil, nil, err
	}
	program, release, err := sharedExecutable()
	if err != nil {
		return nil, nil, err
	}
	c = exec.CommandContext(ctx, program, args...)
	c.Dir, c.SysProcAttr = u.HomeDir, &syscall.SysProcAttr{Credential: credential}
	c.Env = []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username, "XDG_RUNTIME_DIR=" + runtime,
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
	return c, release, nil
}

// startUserManager makes sure that the user's systemd is running.
func startUserManager(ctx context.Context, u *user.User, runtime string, install bool) error {
	switch _, err := os.Stat(managerSocket(runtime)); {
	case install:
		if _, err := run(ctx, "loginctl", "enable-linger", u.Username); err != nil {
			return fmt.Errorf("let services of %s run without a login: %w", u.Username, err)
		}
	case err == nil:
		return nil
	default:
		if _, err := os.Stat(filepath.Join(u.HomeDir, ".config", "systemd", "user", Unit)); err != nil {
			return ErrNoService
		}
		return fmt.Errorf(
			"the service of %s is installed, but the systemd of this user does not run; loginctl enable-linger %[1]s starts it",
			u.Username)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("it does not start"))
	defer cancel()
	err := poll.Until(ctx, pollInterval, func() (bool, error) {
		_, err := os.Stat(managerSocket(runtime))
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the systemd of %s: %w", u.Username, err)
	}
	return nil
}

// managerSocket returns the socket of a user's systemd, in the folder that logind makes for the
// user.
func managerSocket(runtime string) string { return filepath.Join(runtime, "systemd", "private") }

// credentialOf returns the IDs of a process of the user.
func credentialOf(u *user.User) (*syscall.Credential, error) {
	texts, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("find the groups of %s: %w", u.Username, err)
	}
	var ids []uint32
	for _, text := range append([]string{u.Uid, u.Gid}, texts...) {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read the user %s: %w", u.Username, err)
		}
		ids = append(ids, uint32(id))
	}
	return &syscall.Credential{Uid: ids[0], Gid: ids[1], Groups: ids[2:]}, nil
}

// sharedExecutable returns a path at which every user may run this program: its own, or that of a
// copy.
func sharedExecutable() (program string, release func(), err error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return "", nil, fmt.Errorf("find this program: %w", err)
	}
	if (Manager{}).isStable(self, layout{}) {
		return self, func() {}, nil
	}
	content, err := os.ReadFile(self)
	if err != nil {
		return "", nil, fmt.Errorf("read this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "mlfnode-service-")
	if err != nil {
		return "", nil, fmt.Errorf("copy this program: %w", err)
	}
	release = func() { _ = os.RemoveAll(dir) }
	program = filepath.Join(dir, "mlfnode")
	if err := errors.Join(os.Chmod(dir, 0o755), writeFile(program, content, 0o755)); err != nil {
		release()
		return "", nil, fmt.Errorf("copy this program: %w", err)
	}
	return program, release, nil
}
