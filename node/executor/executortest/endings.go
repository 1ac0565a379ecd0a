package executortest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

func exitCodes(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	s.expect(s.run(t.Context(), s.script("exit 0")), grid.ClassNone, 0, "")
	for _, code := range []int{1, 2, 7, 126, 127, 128, 137, 255} {
		if code == 137 && s.kit.Contained { // its init ends with that code when a signal ends the program
			continue
		}
		s.expect(s.run(t.Context(), s.script(fmt.Sprintf("exit %d", code))), grid.ClassExit, code,
			fmt.Sprintf("exit code %d", code))
	}
}

func signals(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	for _, sig := range []syscall.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGILL, syscall.SIGABRT,
		syscall.SIGBUS, syscall.SIGFPE,
		syscall.SIGKILL, syscall.SIGUSR1, syscall.SIGSEGV, syscall.SIGPIPE, syscall.SIGALRM,
		syscall.SIGTERM, syscall.SIGXCPU,
	} {
		o := s.run(t.Context(), s.script(fmt.Sprintf("ulimit -c 0; kill -%d $$", int(sig))))
		s.expect(o, grid.ClassSignal, 128+int(sig), "killed by "+unix.SignalName(sig))
	}
}

func refusals(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	s.write("plain.sh", "#!/bin/sh\n", 0o644)
	s.write("lost.sh", "#!/nowhere/python -u\n", 0o755)
	s.write("dos.sh", "#!/bin/sh\r\nexit 0\r\n", 0o755)
	s.write("text", "hello\n", 0o755)
	s.write("bin/hidden", "#!/bin/sh\n", 0o644)
	for _, c := range []struct {
		name   string
		code   int
		reason string
	}{
		{"pythonx", 127, `"pythonx" is not found in PATH`},
		{"./none.sh", 127, `"./none.sh" does not exist`},
		{"/nowhere/prog", 127, `"/nowhere/prog" does not exist`},
		{"plain.sh/x", 127, `"plain.sh/x" does not exist`},
		{"", 127, `the command is empty; name a program`},
		{"./plain.sh", 126, `"./plain.sh" is not executable; chmod +x it, or run it with its interpreter`},
		{"hidden", 126, `"hidden" is in PATH but is not executable`},
		{"./lost.sh", 126,
			`"./lost.sh" names the interpreter "/nowhere/python" in its first line, which does not exist`},
		{"./dos.sh", 126, `Windows line ends`},
		{"./text", 126, `"./text" is not a program for this machine and has no #! line; run it with its interpreter`},
		{"./bin", 126, `"./bin" is a directory`},
	} {
		a := s.attempt(c.name)
		a.Env[0] += ":bin"
		s.expect(s.run(t.Context(), a), grid.ClassStart, c.code, c.reason)
	}
	a := s.attempt("true")
	a.Dir = s.path("gone")
	s.expect(s.run(t.Context(), a), grid.ClassStart, 126, "its working directory "+a.Dir+" does not exist")
	a = s.attempt()
	s.expect(s.run(t.Context(), a), grid.ClassStart, 127, "the command is empty")
	if out := s.read("stdout") + s.read("stderr"); out != "" {
		t.Errorf("output of programs that never ran: got %q", out)
	}
	s.expect(s.run(t.Context(), s.script("exit 0")), grid.ClassNone, 0, "")
}

// openForWriting runs a program that is still being written: the executor waits a short time for
// the writer to end.
func openForWriting(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	s.write("prog.sh", "#!/bin/sh\nexit 3\n", 0o755)
	hold := func() *os.File {
		f, err := os.OpenFile(s.path("prog.sh"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first := hold()
	soon := time.AfterFunc(50*time.Millisecond, func() { first.Close() })
	s.expect(s.run(t.Context(), s.attempt("./prog.sh")), grid.ClassExit, 3, "exit code 3")
	if soon.Stop() {
		t.Error("the program ran before its file was closed")
	}
	second := hold()
	defer second.Close()
	s.expect(s.run(t.Context(), s.attempt("./prog.sh")), grid.ClassStart, 126,
		`"./prog.sh" is open for writing in another process; finish writing it first`)
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(executor.ErrCancelled) })
	s.expect(s.run(ctx, s.attempt("./prog.sh")), grid.ClassCancel, grid.NoExit, "cancelled")
}

// lookups checks that names are searched in the attempt's own PATH and that relative paths start at
// its folder.
func lookups(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	s.write("one/prog", "#!/bin/sh\necho one\n", 0o755)
	s.write("two/prog", "#!/bin/sh\necho two\n", 0o755)
	for _, path := range []string{"one", s.path("two"), "nowhere:two", s.path("one") + ":" + s.path("two")} {
		a := s.attempt("prog")
		a.Env[0] = "PATH=" + path + ":/bin"
		s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
	}
	s.expect(s.run(t.Context(), s.attempt("two/prog")), grid.ClassNone, 0, "")
	if err := os.Remove(s.path("two/prog")); err != nil {
		t.Fatal(err)
	}
	s.expect(s.run(t.Context(), s.attempt("two/prog")), grid.ClassStart, 127, "does not exist")
	if got, want := s.read("stdout"), "one\ntwo\ntwo\none\ntwo\n"; got != want {
		t.Errorf("programs that ran: got %q, want %q", got, want)
	}
}

func hugeArguments(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	long := strings.Repeat("x", 100_000)
	a := s.attempt("/bin/sh", "-c", `echo "${#1} ${#BIG} $#"`, "sh", long)
	for range 5 {
		a.Argv = append(a.Argv, long)
	}
	a.Env = append(a.Env, "BIG="+long)
	s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
	if got, want := s.read("stdout"), "100000 100000 6\n"; got != want {
		t.Errorf("arguments: got %q, want %q", got, want)
	}
	a.Argv = append(a.Argv, strings.Repeat("x", 4<<20))
	s.expect(s.run(t.Context(), a), grid.ClassStart, 126, "the argument list is too long")
}

// write makes a file, with its folder.
func (s *harness) write(name, text string, mode os.FileMode) {
	s.Helper()
	if dir, _, nested := strings.Cut(name, "/"); nested {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			s.Fatal(err)
		}
	}
	if err := os.WriteFile(s.path(name), []byte(text), mode); err != nil {
		s.Fatal(err)
	}
}
