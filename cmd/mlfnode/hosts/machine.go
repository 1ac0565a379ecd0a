package hosts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// machineFilesScript gives the host its own system folders, accounts and temporary folders. Changes
// made there do not affect the machine that the test runs on: they are kept in a file system in
// memory over that machine's files (overlayfs), and disappear at a reboot.
//
// The harness's folder, which may be below one of those folders, stays visible. So does the program
// under test, for root.
const machineFilesScript = `set -e
shared=$1 etc=$2 program=$3
cd "$shared"
[ -z "$program" ] || mount --bind "$program" "$etc/mlfnode"
mount -t tmpfs -o mode=0700 upper "$etc/upper"
for dir in etc usr var opt root home srv; do
	[ -d "/$dir" ] || continue
	mkdir "$etc/upper/$dir" "$etc/upper/.$dir"
	chmod --reference="/$dir" "$etc/upper/$dir"
	mount -t overlay -o "lowerdir=/$dir,upperdir=$etc/upper/$dir,workdir=$etc/upper/.$dir" overlay "/$dir"
done
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=0755 run /run
mkdir -p -m 0755 /run/sshd "$shared"
mkdir -p -m 1777 /run/lock
mount -c --rbind . "$shared"
cd "$etc"
mount --bind hosts /etc/hosts
mount --bind resolv.conf /etc/resolv.conf
cp passwd group /etc/
install -m 0640 shadow /etc/shadow
install -m 0440 sudoers /etc/sudoers
rm -rf /etc/sudoers.d /etc/ssh /etc/profile.d /var/mail
cp -p programs/* /usr/local/bin/ 2>/dev/null || :
`

// machine is a host with its own system folders, accounts and programs.
type machine struct {
	host    *Host
	options SSHD
}

// prepareMachine makes the host a machine, with the files that machine.apply needs. The owner of
// the key can log in.
func prepareMachine(h *Host, o SSHD, key string) error {
	m := &machine{host: h, options: o}
	h.machine, h.Accounts.users = m, o.Users
	for _, dir := range []string{filepath.Join(h.etc(), "upper"), filepath.Join(h.etc(), "programs"),
		filepath.Join(h.Home, "home")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{h.harness.Dir, h.Home} { // users pass through these to their homes
		if err := os.Chmod(dir, 0o711); err != nil {
			return err
		}
	}
	for _, u := range h.Accounts.all() {
		if err := h.Accounts.makeHome(u, key); err != nil {
			return err
		}
	}
	return errors.Join(h.Accounts.write(), m.writePrograms(), h.writeEtc("mlfnode", ""),
		h.writeEtc("settle", machineFilesScript+m.ownLines()))
}

// writePrograms writes the programs that take precedence over those of the machine.
func (m *machine) writePrograms() error {
	programs := map[string]string{}
	for _, u := range m.host.Accounts.all() {
		if u.ShellScript != "" {
			programs[filepath.Base(u.shell())] = u.ShellScript
		}
	}
	if o := m.options; o.Machine != "" || o.System != "" {
		programs["uname"] = fmt.Sprintf("#!/bin/sh\n/usr/bin/uname \"$@\" | sed 's/%s/%s/;s/Linux/%s/'\n",
			"x86_64\\|aarch64", firstNonEmpty(o.Machine, "&"), firstNonEmpty(o.System, "&"))
	}
	if ahead := m.options.Ahead; ahead != 0 {
		programs["date"] = fmt.Sprintf("#!/bin/sh\nexec /usr/bin/date -d \"@$(($(/usr/bin/date +%%s) + %d))\" \"$@\"\n",
			int(ahead.Seconds()))
	}
	for name, text := range m.options.Programs {
		programs[name] = text
	}
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(m.host.etc(), "programs", name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func firstNonEmpty(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// ownLines returns the lines of the script that are specific to this host.
func (m *machine) ownLines() string {
	var b strings.Builder
	missing := m.options.Missing
	if m.options.NoSudo {
		missing = append([]string{"sudo", "sudoedit"}, missing...)
	}
	for _, u := range m.host.Accounts.all() {
		uid, _ := m.host.Accounts.uid(u.name()) // it has an account
		home := m.host.Accounts.Home(u.name())
		if u.HomeSize != "" {
			fmt.Fprintf(&b, "cd %s\nmount -t tmpfs -o size=%s,uid=%d,gid=%d,mode=0700 home %[1]s\ncp -a . %[1]s\n",
				home, u.HomeSize, uid, uid)
		}
		if u.HomeFull {
			fmt.Fprintf(&b, "cat /dev/zero >%s/ballast 2>/dev/null || :\n", home)
		}
		if u.HomeMount != "" {
			fmt.Fprintf(&b, "mount --bind %s %[1]s\nmount -o remount,bind,%s %[1]s\n", home, u.HomeMount)
		}
	}
	for _, name := range missing {
		fmt.Fprintf(&b,
			"rm -f /usr/local/sbin/%s /usr/local/bin/%[1]s /usr/sbin/%[1]s /usr/bin/%[1]s /sbin/%[1]s /bin/%[1]s\n",
			name)
	}
	return b.String()
}

// apply runs the script on the host, which has just been booted.
func (m *machine) apply() error {
	h := m.host
	program := h.harness.options.Program
	r := h.Run(exec.Command("/bin/sh", filepath.Join(h.etc(), "settle"), h.harness.Dir, h.etc(), program))
	if r.Code != 0 {
		return fmt.Errorf("make %s a machine of its own: %s", h.Name, r.Stderr)
	}
	return nil
}
