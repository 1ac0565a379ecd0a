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

// For gives a command that root runs as another user: of this program, about the services of that user. The user may run services
// without a login from then on (loginctl enable-linger). release removes what the command needs, once it has ended.
func For(ctx context.Context, name string, args ...string) (c *exec.Cmd, release func(), err error) {
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
	if _, err := run(ctx, "loginctl", "enable-linger", u.Username); err != nil {
		return nil, nil, fmt.Errorf("have services of %s run without a login: %w", u.Username, err)
	}
	runtime := filepath.Join("/run/user", u.Uid)
	if err := awaitManager(ctx, runtime); err != nil {
		return nil, nil, fmt.Errorf("wait for the systemd of %s: %w", u.Username, err)
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

// awaitManager waits until the user's systemd answers on its socket, which is in a folder that logind makes.
func awaitManager(ctx context.Context, runtime string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, errors.New("it does not start"))
	defer cancel()
	return until(ctx, func() (bool, error) {
		_, err := os.Stat(filepath.Join(runtime, "systemd", "private"))
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
