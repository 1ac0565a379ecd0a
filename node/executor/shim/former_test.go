package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlfnode/grid"
)

// formerVar makes the agent one of a version that kept its shims under their former name.
const formerVar = "SHIM_TEST_FORMER"

// formerOptions returns the options of an agent of a version that called its shims keepers, in its
// folder and on their command line.
func formerOptions(dir string, o Options) (Options, error) {
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	o.Dir, o.FormerDir, o.Program = filepath.Join(dir, "keepers"), "", filepath.Join(dir, "former")
	script := fmt.Sprintf("#!/bin/sh\nshift\nexec %q %s \"$@\"\n", self, FormerCommand)
	return o, os.WriteFile(o.Program, []byte(script), 0o700)
}

// commandsOf returns the first argument of each running shim.
func (l *agents) commandsOf() (commands []string) {
	l.Helper()
	shims, err := shimDirsIn(l.o.Dir)
	if err != nil {
		l.Fatal(err)
	}
	for _, s := range shims {
		var self processRecord
		if err := s.load(processFile, &self); err != nil {
			l.Fatal(err)
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", self.PID))
		if err != nil {
			l.Fatal(err)
		}
		commands = append(commands, strings.Split(string(line), "\x00")[1])
	}
	return commands
}

// TestUpgradeFromFormerName upgrades, in place, an agent whose shims have their former name. The
// next agent takes their runs over, even if an upgraded agent was killed before it had created the
// link, and the shims go on using their former paths.
func TestUpgradeFromFormerName(t *testing.T) {
	t.Setenv(formerVar, "yes")
	for name, interrupt := range map[string]func(o Options) error{
		"whole":                      func(Options) error { return nil },
		"killed before the first":    func(o Options) error { return os.Mkdir(o.Dir, 0o700) },
		"killed between both steps":  func(o Options) error { return os.Rename(o.FormerDir, o.Dir) },
		"upgraded a second time":     func(o Options) error { return errors.Join(o.complete(), o.complete()) },
		"a state folder behind link": func(o Options) error { return moveBehindLink(filepath.Dir(o.Dir)) },
	} {
		t.Run(name, func(t *testing.T) {
			l := killedAgent(t, 0, map[string]string{"good": wait + "exit 0", "bad": wait + "exit 7",
				"early": wait + "exit 5"})
			if err := interrupt(l.o); err != nil {
				t.Fatal(err)
			}
			c := l.open()
			if got := l.commandsOf(); !slices.Equal(got, []string{FormerCommand}) {
				t.Errorf("shims: got commands %q, want the former one", got)
			}
			l.goOn("good", "bad", "early")
			expect(t, l.resumed(c, "good"), grid.ClassNone, 0, "")
			expect(t, l.resumed(c, "bad"), grid.ClassExit, 7, "exit code 7")
			expect(t, l.resumed(c, "early"), grid.ClassExit, 5, "exit code 5")
			if got := l.read("bad", "stdout"); got != "one\ntwo\n" {
				t.Errorf("output: got %q, want all of it", got)
			}
			for _, run := range []string{"good", "bad", "early"} {
				c.Collected(run)
			}
			eventually(t, "the shim to end", func() bool { shims, _ := shimDirsIn(l.o.Dir); return len(shims) == 0 })
			if to, err := os.Readlink(l.o.FormerDir); err != nil || to != filepath.Base(l.o.Dir) {
				t.Errorf("link: got %q, %v; want one to %s", to, err, filepath.Base(l.o.Dir))
			}
		})
	}
}

// moveBehindLink moves a folder and leaves a link to it.
func moveBehindLink(dir string) error {
	return errors.Join(os.Rename(dir, dir+"-moved"), os.Symlink(dir+"-moved", dir))
}

// TestDowngradeToFormerName runs an agent of a version that knows shims by their former name after
// one of this version.
func TestDowngradeToFormerName(t *testing.T) {
	l := killedAgent(t, 0, map[string]string{"a": wait + "exit 7"})
	o, err := formerOptions(l.dir, l.o)
	if err != nil {
		t.Fatal(err)
	}
	l.o = o
	c := l.open()
	l.goOn("a")
	expect(t, l.resumed(c, "a"), grid.ClassExit, 7, "exit code 7")
}
