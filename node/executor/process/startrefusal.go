package process

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// refusal is the outcome of an attempt whose program could not be started, with the exit code that
// a shell would give. file is what lookup found, "" if it found nothing. A fault of the program or
// its arguments is the trial's; anything else is a shortage of this machine, and another one may
// well run the program.
func refusal(a *executor.Attempt, file string, err error) executor.Outcome {
	var errno unix.Errno
	errors.As(err, &errno)
	if why := shortage(errno); why != "" {
		return refused(grid.ClassNode, why, executor.ExitNotRunnable)
	}
	if st, err := os.Stat(a.Dir); err != nil || !st.IsDir() {
		return refused(grid.ClassStart, fmt.Sprintf("its working directory %s does not exist", a.Dir),
			executor.ExitNotRunnable)
	}
	name := a.Argv[0]
	reason, code := fmt.Sprintf("%q could not be started: %v", name, err), executor.ExitNotRunnable
	switch {
	case file == "" && name == "":
		reason, code = "the command is empty; name a program", executor.ExitNotFound
	case file == "" && errno == unix.EACCES:
		reason = fmt.Sprintf("%q is in PATH but is not executable; chmod +x it, or run it with its interpreter", name)
	case file == "":
		reason, code = fmt.Sprintf("%q is not found in PATH", name), executor.ExitNotFound
	case errno == unix.ENOENT, errno == unix.ENOTDIR:
		reason, code = missing(name, file)
	case errno == unix.EACCES, errno == unix.EPERM:
		reason = forbidden(name, file)
	case errno == unix.ENOEXEC:
		reason = fmt.Sprintf(
			"%q is not a program for this machine and has no #! line; run it with its interpreter, as in: sh %s", name,
			name)
	case errno == unix.E2BIG:
		reason = executor.ArgumentsTooLong(a)
	case errno == unix.ETXTBSY:
		reason = fmt.Sprintf("%q is open for writing in another process; finish writing it first", name)
	}
	return refused(grid.ClassStart, reason, code)
}

// shortage says what a machine lacks if starting a process fails with errno; "" means that the
// error is about the program.
func shortage(errno unix.Errno) string {
	switch errno {
	case 0, unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.EPERM, unix.ENOEXEC, unix.E2BIG, unix.ETXTBSY,
		unix.EINVAL, unix.ELOOP,
		unix.ENAMETOOLONG, unix.EISDIR, unix.ELIBBAD:
		return ""
	case unix.EAGAIN:
		return "this machine or user has reached its limit of processes; raise the limit (ulimit -u, or pids.max of the cgroup) or use fewer slots"
	case unix.ENOMEM:
		return "this machine does not have enough memory for another process"
	case unix.EMFILE, unix.ENFILE:
		return "too many files are open; raise the limit (ulimit -n) or use fewer slots"
	case unix.ENOSPC, unix.EDQUOT:
		return "the disk is full, or the user's quota of it"
	}
	return fmt.Sprintf("this machine could not start it: %v", errno)
}

// missing tells a missing program from a missing interpreter.
func missing(name, file string) (string, int) {
	if _, err := os.Stat(file); err != nil {
		return fmt.Sprintf("%q does not exist", name), executor.ExitNotFound
	}
	interpreter := shebang(file)
	if interpreter == "" {
		return fmt.Sprintf("%q needs a loader that this machine does not have; it was built for another system", name),
			executor.ExitNotRunnable
	}
	hint := ""
	if strings.HasSuffix(interpreter, "\r") {
		hint = "; the file has Windows line ends, convert it with: sed -i 's/\\r$//' " + name
	}
	return fmt.Sprintf("%q names the interpreter %q in its first line, which does not exist%s", name, interpreter,
		hint), executor.ExitNotRunnable
}

func forbidden(name, file string) string {
	st, err := os.Stat(file)
	switch {
	case err != nil:
		return fmt.Sprintf("%q can't be reached: %v", name, errors.Unwrap(err))
	case st.IsDir():
		return fmt.Sprintf("%q is a directory", name)
	case st.Mode()&0o111 == 0:
		return fmt.Sprintf("%q is not executable; chmod +x it, or run it with its interpreter", name)
	case shebang(file) != "":
		return fmt.Sprintf("%q or its interpreter %q may not be executed by this user", name, shebang(file))
	}
	return fmt.Sprintf("%q may not be executed by this user, or lies on a disk mounted with noexec", name)
}

// shebang returns the interpreter that the first line of a script names.
func shebang(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReaderSize(f, 4096).ReadString('\n')
	if !strings.HasPrefix(line, "#!") {
		return ""
	}
	line = strings.TrimLeft(strings.TrimSuffix(line[2:], "\n"), " \t")
	if end := strings.IndexAny(line, " \t"); end >= 0 {
		line = line[:end]
	}
	return line
}
