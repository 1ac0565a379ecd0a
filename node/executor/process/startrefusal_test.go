package process

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// TestRefusalClasses fails the start of a program with every error of the system. Only errors
// caused by the program or its arguments are the trial's.
func TestRefusalClasses(t *testing.T) {
	trial := map[unix.Errno]bool{
		unix.ENOENT: true, unix.ENOTDIR: true, unix.EACCES: true, unix.EPERM: true, unix.ENOEXEC: true,
		unix.E2BIG: true, unix.ETXTBSY: true,
		unix.EINVAL: true, unix.ELOOP: true, unix.ENAMETOOLONG: true, unix.EISDIR: true, unix.ELIBBAD: true,
	}
	a := &executor.Attempt{Argv: []string{"/bin/true"}, Spec: executor.Spec{Dir: t.TempDir()}}
	for errno := unix.Errno(1); errno < 134; errno++ {
		want := grid.ClassNode
		if trial[errno] {
			want = grid.ClassStart
		}
		for _, err := range []error{errno, os.NewSyscallError("fork/exec", errno),
			&os.PathError{Op: "open", Path: "x", Err: errno}} {
			if o := refusal(a, "/bin/true", err); o.Class != want || o.Reason == "" ||
				o.ExitCode == 0 || o.Usage.Wall != 0 {
				t.Errorf("%v: got %+v, want class %s, a reason and no run", err, o, want)
			}
		}
	}
	if o := refusal(&executor.Attempt{Argv: a.Argv, Spec: executor.Spec{Dir: "/nowhere"}}, "/bin/true",
		unix.EMFILE); o.Class != grid.ClassNode {
		t.Errorf("too many open files: got %+v, want the node's", o)
	}
}
