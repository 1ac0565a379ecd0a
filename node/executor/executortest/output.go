package executortest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// outputByName runs programs that open their own output by name, in the ways that shells, tee and
// -o /dev/stdout do it. What was printed before stays, and what follows is appended.
func outputByName(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	for _, c := range []struct{ text, out, err string }{
		{`for i in 1 2 3; do echo "warn $i" >/dev/stderr; sleep 0.01; done`, "", "warn 1\nwarn 2\nwarn 3\n"},
		{`echo before; echo by tool >/dev/stdout; echo after`, "before\nby tool\nafter\n", ""},
		{`echo one >&2; echo two | tee /dev/stderr; echo three >&2`, "two\n", "one\ntwo\nthree\n"},
		{`exec 3>/dev/stdout; echo held 1 >&3; echo plain; echo held 2 >&3; echo end`,
			"held 1\nplain\nheld 2\nend\n", ""},
		{`echo a; echo b >/proc/self/fd/1; echo c >/dev/fd/1; echo d 1>/proc/$$/fd/1`, "a\nb\nc\nd\n", ""},
		{`echo first; dd if=/dev/zero of=/dev/stdout bs=4 count=1 2>/dev/null; echo last`,
			"first\n\x00\x00\x00\x00last\n", ""},
		{`echo a; : >/dev/stdout; truncate -s 0 /dev/stdout 2>/dev/null; echo b`, "a\nb\n", ""},
	} {
		a := s.script(c.text)
		s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
		if got := s.take("stdout"); got != c.out {
			t.Errorf("%s: stdout: got %q, want %q", c.text, got, c.out)
		}
		if got := s.take("stderr"); got != c.err {
			t.Errorf("%s: stderr: got %q, want %q", c.text, got, c.err)
		}
	}
}

// take reads a file and truncates it.
func (s *harness) take(name string) string {
	s.Helper()
	text := s.read(name)
	if err := os.Truncate(s.path(name), 0); err != nil {
		s.Fatal(err)
	}
	return text
}

// outputAtTheEnd runs programs that end with their pipes full, in all ways.
func outputAtTheEnd(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	const pipeful = 64 << 10
	for _, c := range []struct {
		text        string
		class       grid.Class
		code        int
		stdout, err int
	}{
		{`head -c 65536 /dev/zero; head -c 65536 /dev/zero >&2`, grid.ClassNone, 0, pipeful, pipeful},
		{`head -c 300000 /dev/zero; exit 3`, grid.ClassExit, 3, 300000, 0},
		{`head -c 65536 /dev/zero; kill -9 $$`, grid.ClassSignal, 137, pipeful, 0},
		{`sleep 0.02; head -c 65536 /dev/zero; kill -9 $$`, grid.ClassSignal, 137, pipeful, 0},
		// A child prints more than a pipe holds when it is told to end.
		{
			`(trap 'i=0; while [ $i -lt 2000 ]; do printf %0100d 0; i=$((i+1)); done; exit' TERM; echo >ready; while :; do :; done) & while ! test -e ready; do :; done; exit 0`,
			grid.ClassNone, 0, 200000, 0},
	} {
		if s.kit.Contained && strings.Contains(c.text, "trap") { // a container ends with its program
			continue
		}
		a := s.script(c.text)
		s.expect(s.run(t.Context(), a), c.class, c.code, "")
		if got, got2 := len(s.take("stdout")), len(s.take("stderr")); got != c.stdout || got2 != c.err {
			t.Errorf("%s: got %d and %d bytes, want %d and %d", c.text, got, got2, c.stdout, c.err)
		}
	}
}

// heldOutput lets a process outside of the tree hold the program's output open beyond its end.
func heldOutput(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	var held *os.File
	a := s.script("echo $$ >pid; echo early; echo >ready; while ! test -e go; do sleep 0.01; done; echo late")
	o := s.runThen(t.Context(), a, func() {
		var err error
		if held, err = os.OpenFile("/proc/"+strings.TrimSpace(s.read("pid"))+"/fd/1", os.O_WRONLY, 0); err != nil {
			t.Error(err)
		}
		s.write("go", "", 0o600)
	})
	defer held.Close()
	s.expect(o, grid.ClassNone, 0, "")
	if got := s.read("stdout"); got != "early\nlate\n" {
		t.Errorf("stdout: got %q, want both lines", got)
	}
	_, _ = held.WriteString("none of its business\n") // nobody reads it any more
	s.expect(s.run(t.Context(), s.attempt("echo", "next")), grid.ClassNone, 0, "")
	if got := s.read("stdout"); got != "early\nlate\nnext\n" {
		t.Errorf("stdout: got %q, want that of the attempts alone", got)
	}
}

// outputLimit checks that of both streams together no more than the limit is stored, from the
// beginning, that each byte of the rest is counted, and that the last lines are known.
func outputLimit(t *testing.T, e executor.Executor) {
	const (
		stored      = "; until test -s stdout; do sleep 0.01; done; "
		storedThere = "; until test -s stderr; do sleep 0.01; done; "
	)
	for _, c := range []struct {
		text  string
		limit int64
		kept  [2]int64
		cut   int64
		tail  [2]string
	}{
		{"printf 12345", 5, [2]int64{}, 0, [2]string{}},
		{"printf 12345", 0, [2]int64{}, 0, [2]string{}},
		{"printf 123456", 5, [2]int64{5, 0}, 1, [2]string{"6", ""}},
		{"echo 1234567" + stored + "echo the reason >&2; exit 1", 5, [2]int64{5, 0}, 14,
			[2]string{"67\n", "the reason\n"}},
		{"echo 123" + stored + "echo 456 >&2" + storedThere + "echo 789; echo 0", 6, [2]int64{4, 2}, 8,
			[2]string{"\n0\n", "6\n"}},
		{"seq 1000000; echo end", 1000, [2]int64{1000, 0}, 6888900 - 1000, [2]string{"\n1000000\nend\n", ""}},
		{"head -c 50000000 /dev/zero >&2; echo end", 1 << 20, [2]int64{0, 1 << 20}, 50000004 - 1<<20,
			[2]string{"end\n", "\x00"}},
	} {
		t.Run(fmt.Sprintf("%s with %d", c.text, c.limit), func(t *testing.T) {
			s := newHarness(t, e)
			a := s.script(c.text)
			a.OutputLimit = c.limit
			o := s.run(t.Context(), a)
			if o.Cut != c.cut || o.Kept != c.kept {
				t.Errorf("outcome: got %d cut, %v kept, want %d, %v", o.Cut, o.Kept, c.cut, c.kept)
			}
			for i, name := range []string{"stdout", "stderr"} {
				got := int64(len(s.read(name)))
				if c.cut > 0 && got != c.kept[i] {
					t.Errorf("%s: got %d bytes, want %d", name, got, c.kept[i])
				}
				if tail := o.Tail[i]; !strings.HasSuffix(tail, c.tail[i]) || c.tail[i] == "" && tail != "" ||
					len(tail) > 64<<10 {
					t.Errorf("last of %s: got %.100q (%d bytes), want …%q", name, tail, len(tail), c.tail[i])
				}
			}
		})
	}
}
