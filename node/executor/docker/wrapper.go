package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// ioFolder is the only folder of a run that its container sees, at the same path. The program can
// change what it contains:
//
//	stdout, stderr  named pipes, which the program has open and outputPipes reads
//	begun           made by the wrapper when it begins
//	refused127      made by the wrapper when the image has no such program; 126: when it can't be run
type ioFolder string

const (
	stdoutPipe  = "stdout"
	stderrPipe  = "stderr"
	refusedFile = "refused"
	begunFile   = "begun"
)

// The shell that starts the programs of all images.
const (
	shell   = "/bin/sh"
	noShell = "the image has no " + shell + ", which mlfnode needs to start programs"
)

// exitNotFound is the exit code of shells for a program that does not exist.
const exitNotFound = 127

// wrapper starts the program with our pipes as its output. The program can open them by name, and
// they buffer what is not read yet. It makes a marker file when the program does not exist, which
// the exit code alone does not reveal. $1 is the ioFolder.
const wrapper = `_mlf=$1; shift; : >"$_mlf/` + begunFile + `"
case $1 in
*/*) [ -f "$1" ] && [ -x "$1" ] ;;
*) command -v "$1" >/dev/null 2>&1 ;;
esac || { if [ -e "$1" ]; then : >"$_mlf/` + refusedFile + `126"; else : >"$_mlf/` + refusedFile + `127"; fi; exit 127; }
exec "$@" 1<>"$_mlf/` + stdoutPipe + `" 2<>"$_mlf/%s"`

// wrap returns the command line that runs the attempt's program, with the image's entrypoint, in
// the wrapper.
func (f ioFolder) wrap(a *executor.Attempt) []string {
	stderr := stderrPipe
	if a.Stderr == a.Stdout && a.Stdout != nil {
		stderr = stdoutPipe
	}
	argv := []string{shell, "-c", fmt.Sprintf(wrapper, stderr), "mlfnode", string(f)}
	return append(append(argv, a.Container.Entrypoint...), a.Argv...)
}

// refusal returns the outcome of a program that the image does not have, or for which it has no
// shell. It opens no file, since the program may have made it.
func (f ioFolder) refusal(code int, program string) (executor.Outcome, bool) {
	exists := func(name string) bool {
		_, err := os.Lstat(filepath.Join(string(f), name))
		return err == nil
	}
	switch {
	case exists(refusedFile + "127"):
		o := executor.Refused(grid.ClassStart, fmt.Sprintf("the image has no program %q", program))
		o.ExitCode = exitNotFound
		return o, true
	case exists(refusedFile + "126"):
		return executor.Refused(grid.ClassStart, fmt.Sprintf("%q is not a program that can be run", program)), true
	case slices.Contains([]int{1, 126, exitNotFound}, code) && !exists(begunFile): // of the init
		return executor.Refused(grid.ClassImage, noShell), true
	}
	return executor.Outcome{}, false
}
