package hosts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// User is an account on a host.
type User struct {
	Name        string   // DefaultUser if it is empty
	Shell       string   // the login shell, /bin/bash if it is empty
	ShellScript string   // a script that is the login shell instead
	Password    string   // what sshd and sudo accept; empty for none
	Keys        []string // public keys that may log in; nil for the harness's own, see Harness.Laptop
	StartUp     string   // the content of ~/.bashrc and ~/.profile
	Sudo        Sudo     // what sudo lets the user do
	HomeSize    string   // the home is a small disk, as in "1m", which is emptied by a reboot
	HomeFull    bool     // that disk is full
	HomeMount   string   // how the home is mounted, as in "ro" or "noexec"
}

// Sudo says what a user may do as root.
type Sudo string

// The kinds of Sudo.
const (
	SudoNothing    Sudo = ""         // sudo asks for a password, and refuses
	SudoFreely     Sudo = "freely"   // without a password
	SudoByPassword Sudo = "password" // with the user's password
)

func (u User) name() string {
	if u.Name == "" {
		return DefaultUser
	}
	return u.Name
}

func (u User) shell() string {
	switch {
	case u.ShellScript != "":
		return "/usr/local/bin/shell-of-" + u.name()
	case u.Shell != "":
		return u.Shell
	}
	return "/bin/bash"
}

// Each host has its own range of user IDs, since the homes of all hosts are on one disk and no user
// may read another host's.
const (
	firstUser = 1000
	mostUsers = 100 // per host
)

// Accounts are the accounts on a host, once it is a machine of its own.
type Accounts struct {
	host     *Host
	firstUID int
	users    []User
}

// Home returns the home of an account. It is on the machine's disk, under the same path on all
// hosts of the harness, unless the account has a small disk, which only the host itself sees.
func (a *Accounts) Home(name string) string { return filepath.Join(a.host.Home, "home", name) }

// uid returns the user ID of an account.
func (a *Accounts) uid(name string) (int, error) {
	if name == "root" {
		return 0, nil
	}
	for i, u := range a.users {
		if u.name() == name {
			return a.firstUID + i, nil
		}
	}
	return 0, fmt.Errorf("%s has no account on %s", name, a.host.Name)
}

// all returns the accounts of the machine, including root's.
func (a *Accounts) all() []User {
	for _, u := range a.users {
		if u.name() == "root" {
			return a.users
		}
	}
	return append([]User{{Name: "root"}}, a.users...)
}

// write writes passwd(5), group(5), shadow(5) and sudoers(5) of the host.
func (a *Accounts) write() error {
	passwd, group, shadow := "", "", ""
	sudoers := "Defaults env_reset\nDefaults secure_path=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\nroot ALL=(ALL:ALL) ALL\n"
	for _, u := range a.all() {
		uid, err := a.uid(u.name())
		if err != nil {
			return err
		}
		hash, err := passwordHash(u.Password)
		if err != nil {
			return err
		}
		passwd += fmt.Sprintf("%s:x:%d:%d::%s:%s\n", u.name(), uid, uid, a.Home(u.name()), u.shell())
		group += fmt.Sprintf("%s:x:%d:\n", u.name(), uid)
		shadow += fmt.Sprintf("%s:%s:19000:0:99999:7:::\n", u.name(), hash)
		sudoers += u.sudoLine()
	}
	passwd += "daemon:x:1:1::/:/usr/sbin/nologin\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"
	group += "daemon:x:1:\ntty:x:5:\nshadow:x:42:\nutmp:x:43:\nsystemd-journal:x:101:\nnogroup:x:65534:\n"
	shadow += "daemon:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"
	h := a.host
	return errors.Join(h.writeEtc("passwd", passwd), h.writeEtc("group", group), h.writeEtc("shadow", shadow),
		h.writeEtc("sudoers", sudoers))
}

func (u User) sudoLine() string {
	switch u.Sudo {
	case SudoFreely:
		return u.name() + " ALL=(ALL:ALL) NOPASSWD: ALL\n"
	case SudoByPassword:
		return u.name() + " ALL=(ALL:ALL) ALL\n"
	}
	return ""
}

// passwordHash returns the second field of shadow(5). A star forbids logins by password and allows
// those by key.
func passwordHash(password string) (string, error) {
	if password == "" {
		return "*", nil
	}
	cmd := exec.Command("openssl", "passwd", "-6", "-stdin")
	cmd.Stdin = strings.NewReader(password + "\n")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// makeHome makes a user's home as it is before the first login.
func (a *Accounts) makeHome(u User, key string) error {
	keys := u.Keys
	if keys == nil {
		keys = []string{key}
	}
	home := a.Home(u.name())
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		return err
	}
	files := map[string]string{".ssh/authorized_keys": strings.Join(keys, "\n") + "\n"}
	if u.StartUp != "" {
		files[".bashrc"], files[".profile"] = u.StartUp+"\n", u.StartUp+"\n"
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(home, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return a.chown(u.name(), home)
}

// chown changes the owner of a folder and everything in it to a user.
func (a *Accounts) chown(name, dir string) error {
	uid, err := a.uid(name)
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
}

// As makes a command run as a user of the host, in that user's home and with the environment of a
// login.
func (a *Accounts) As(user string, cmd *exec.Cmd) *exec.Cmd {
	a.host.harness.t.Helper()
	uid, err := a.uid(user)
	if err != nil {
		a.host.harness.t.Fatal(err)
	}
	home := a.Home(user)
	cmd.Dir = home
	cmd.Env = append([]string{
		"HOME=" + home, "USER=" + user, "LOGNAME=" + user, "SHELL=/bin/bash", "LANG=C.UTF-8", "TERM=xterm",
		"PATH=/usr/local/bin:/usr/bin:/bin:" + a.host.etc(), "NO_COLOR=1",
	}, a.host.harness.options.Env...)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	return cmd
}
