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
)

// ErrNoService is returned by For about a user who has no service, and no systemd that runs.
var ErrNoService = errors.New("no service is installed")

// For gives a command that root runs as another user: of this program, about the services of that user. To install one, the user may
// run services without a login from then on (loginctl enable-linger); nothing else changes the system, and returns ErrNoService where
// there is none. release removes what the command needs, once it has ended.
func For(ctx context.Context, name string, install bool, args ...string) (c *exec.Cmd, release func(), err error) {
	if err := (Home{}).allowed(); err != nil {
		return nil, nil, err
	}
	if err := (Home{}).booted(); err != nil {
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
		return nil, nil, fmt.Errorf("the user %s has no home folder for the settings and the state of a service: %s is not a folder", u.Username, u.HomeDir)
	}
	runtime := filepath.Join("/run/user", u.Uid)
	if err := manager(ctx, u, runtime, install); err != nil {
		return nil, nil, err
	}
	program, release, err := readable()
	if err != nil {
		return nil, nil, err
	}
	c = exec.CommandContext(ctx, program, args...)
	c.Dir, c.SysProcAttr = u.HomeDir, &syscall.SysProcAttr{Credential: credential}
	c.Env = []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username, "XDG_RUNTIME_DIR=" + runtime,
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
	return c, release, nil
}

// manager sees to it that the user's systemd runs.
func manager(ctx context.Context, u *user.User, runtime string, install bool) error {
	switch _, err := os.Stat(managerSocket(runtime)); {
	case install:
		if _, err := run(ctx, "loginctl", "enable-linger", u.Username); err != nil {
			return fmt.Errorf("have services of %s run without a login: %w", u.Username, err)
		}
	case err == nil:
		return nil
	default:
		if _, err := os.Stat(filepath.Join(u.HomeDir, ".config", "systemd", "user", Unit)); err != nil {
			return ErrNoService
		}
		return fmt.Errorf("the service of %s is installed, but the systemd of this user does not run; loginctl enable-linger %[1]s starts it", u.Username)
	}
	if err := awaitManager(ctx, runtime); err != nil {
		return fmt.Errorf("wait for the systemd of %s: %w", u.Username, err)
	}
	return nil
}

// managerSocket is where the systemd of a user listens, in the folder that logind makes for the user.
func managerSocket(runtime string) string { return filepath.Join(runtime, "systemd", "private") }

// credentialOf is what a process of the user has.
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

// awaitManager waits until the user's systemd listens.
func awaitManager(ctx context.Context, runtime string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, errors.New("it does not start"))
	defer cancel()
	return until(ctx, func() (bool, error) {
		_, err := os.Stat(managerSocket(runtime))
		return err == nil, nil
	})
}

// readable gives this program at a place where everybody may run it: where it lies, or a copy.
func readable() (program string, release func(), err error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return "", nil, fmt.Errorf("find this program: %w", err)
	}
	if (Home{}).stable(self, layout{}) {
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
	release = func() { _ = os.RemoveAll(dir) } // it lies where temporary files do
	program = filepath.Join(dir, "mlfnode")
	if err := errors.Join(os.Chmod(dir, 0o755), place(program, content, 0o755)); err != nil {
		release()
		return "", nil, fmt.Errorf("copy this program: %w", err)
	}
	return program, release, nil
}
