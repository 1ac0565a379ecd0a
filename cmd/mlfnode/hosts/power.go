package hosts

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// power is a host that is on: the first process of its namespaces, and a thread of ours inside
// them. Whatever that thread starts runs inside the namespaces, as a child of the test with an
// ordinary process ID.
//
// The first process dies when the thread ends (PR_SET_PDEATHSIG), and when it dies the kernel kills
// all other processes of the host. A host therefore never outlives the test.
type power struct {
	init  *exec.Cmd
	calls chan func()
	gone  chan struct{} // closed when the first process, and with it everything else, is gone
	once  sync.Once
}

// first is the script of the first process: it prepares the environment and then reaps orphans. For
// that the kernel only needs SIGCHLD to be ignored.
const first = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id
ip link set lo up
echo ready
trap "" CHLD
exec sleep infinity`

func powerOn(name, etc string) (*power, error) {
	p := &power{calls: make(chan func()), gone: make(chan struct{})}
	began := make(chan error, 1)
	go onOwnThread(func() { p.run(name, etc, began) })
	if err := <-began; err != nil {
		return nil, err
	}
	return p, nil
}

// run is the main function of the thread inside.
func (p *power) run(name, etc string, began chan<- error) {
	err := p.setUp(etc)
	if err == nil {
		err = enterNamespaces(p.init.Process.Pid)
	}
	if err == nil {
		err = unix.Sethostname([]byte(name))
	}
	if began <- err; err != nil {
		return
	}
	for fn := range p.calls {
		fn()
	}
}

func (p *power) setUp(etc string) error {
	p.init = exec.Command("/bin/sh", "-c", first, "host", etc)
	p.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	var complaints strings.Builder
	p.init.Stderr = &complaints
	out, err := p.init.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.init.Start(); err != nil {
		return err
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	go func() {
		defer close(p.gone)
		_ = p.init.Wait() // it is always killed
	}()
	if err != nil {
		<-p.gone
		return fmt.Errorf("set the scene: %s%s", said, complaints.String())
	}
	return nil
}

// enterNamespaces moves the calling thread into the namespaces of a process.
func enterNamespaces(pid int) error {
	// a thread that shares its file system context may not change its mount namespace
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for name, flag := range map[string]int{"net": unix.CLONE_NEWNET, "uts": unix.CLONE_NEWUTS, "ipc": unix.CLONE_NEWIPC,
		"pid": unix.CLONE_NEWPID} {
		if err := setns(pid, name, flag); err != nil {
			return err
		}
	}
	return setns(pid, "mnt", unix.CLONE_NEWNS) // the last one, since /proc changes with it
}

func setns(pid int, name string, flag int) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), flag); err != nil {
		return fmt.Errorf("enter the %s namespace: %w", name, err)
	}
	return nil
}

// call runs fn on the thread inside. fn must not wait for anything that takes long.
func (p *power) call(fn func() error) (err error) {
	done := make(chan struct{})
	call := func() {
		defer close(done)
		err = fn()
	}
	select {
	case p.calls <- call:
		<-done
		return err
	case <-p.gone:
		return errors.New("the host is off")
	}
}

// off kills everything, and returns when everything is gone.
func (p *power) off() {
	p.once.Do(func() {
		_ = p.init.Process.Kill() // it can't have ended on its own
		<-p.gone
		close(p.calls)
	})
}

// onOwnThread runs fn on a thread that ends with it, and waits. The thread is never the first of
// the process, which can't end and whose namespaces are visible to others.
func onOwnThread(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked, so that the thread ends with the goroutine
		if unix.Gettid() != unix.Getpid() {
			fn()
			return
		}
		onOwnThread(fn) // this goroutine holds the first thread in the meantime
		runtime.UnlockOSThread()
	}()
	<-done
}
