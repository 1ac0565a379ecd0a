package overssh

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
)

// day is a working day: ada and her colleague bert use one cluster from morning to evening. Each
// section of it is a subtest, and rests on those before.
type day struct {
	*harness
	colleague *hosts.Laptop
	program   string // that ada runs, empty for the one of the test
	cpus      string // a trial that takes so many shares each node with one other
	gates     string // folder that all machines see
}

// TestWorkingDay replays the day. With -v it prints what was typed and what came of it.
func TestWorkingDay(t *testing.T) {
	t.Parallel()
	d := &day{harness: newHarness(t, 4)}
	d.colleague = d.Laptop("colleague")
	d.gates = filepath.Join(d.Dir, "gates")
	if err := os.Mkdir(d.gates, 0o755); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, section := range []struct {
		name string
		run  func(*testing.T, *day)
	}{
		{"the old example", testOldExample},
		{"taken down and brought up", testTakenDown},
		{"a script of one's own", testOwnScript},
		{"metrics and limits", testMetricsAndLimits},
		{"a large file is sent once", testLargeFile},
		{"a setup step runs once", testSetupOnce},
		{"an old project", testOldProject},
		{"the program is fixed", testMendedProgram},
		{"a broken setup step", testBrokenSetup},
		{"leaving a sweep and coming back", testLeaveAndReturn},
		{"tokens", testTokens},
		{"two people", testTwoPeople},
		{"failures under running trials", testFailures},
		{"upgrade and reboot", testUpgradeAndReboot},
		{"the evening", testEvening},
		{"swapped roles", testSwappedRoles},
		{"another master", testAnotherMaster},
		{"a second cluster on the same machines", testSecondCluster},
		{"a machine more, and one less", testMoreAndLess},
		{"stopped, forgotten, and taken back", testForgotten},
		{"a smaller cluster", testSmallerCluster},
		{"the end", testPurged},
	} {
		if !t.Run(section.name, func(t *testing.T) { section.run(t, d) }) {
			t.Fatalf("the rest of the day needs %q", section.name)
		}
	}
	t.Logf("the day took %v", time.Since(began))
}

// person types commands on a laptop.
type person struct {
	t       *testing.T
	at      *hosts.Host
	name    string
	program string
	dir     string // below the home folder
	env     []string
}

func (d *day) ada(t *testing.T) *person {
	return &person{t: t, at: d.laptop.Host, name: "ada", program: d.program}
}

func (d *day) bert(t *testing.T) *person {
	return &person{t: t, at: d.colleague.Host, name: "bert", env: []string{"MLF_USER=bert"}}
}

// in is the person in another folder.
func (p *person) in(dir string) *person {
	q := *p
	q.dir = dir
	return &q
}

func (p *person) command(args ...string) *exec.Cmd {
	cmd := p.at.Command(args...)
	if p.program != "" {
		cmd = p.at.Program(p.program, args...)
	}
	cmd.Dir, cmd.Env = filepath.Join(cmd.Dir, p.dir), append(cmd.Env, p.env...)
	return cmd
}

// exits types a command and gives all that it prints. The exit code has to be this one.
func (p *person) exits(code int, args ...string) (shown string) {
	p.t.Helper()
	began := time.Now()
	r := p.at.Run(p.command(args...))
	shown = r.Stdout + r.Stderr
	p.t.Logf("%s@%s:~/%s$ mlfnode %q   (exit code %d, %.1f s)\n%s", p.name, p.at.Name, p.dir, args, r.Code,
		time.Since(began).Seconds(), shown)
	if r.Code != code {
		p.t.Fatalf("mlfnode %q: got exit code %d, want %d\n%s", args, r.Code, code, shown)
	}
	return shown
}

// does is for a command that has to succeed.
func (p *person) does(args ...string) (shown string) {
	p.t.Helper()
	return p.exits(0, args...)
}

// asks decodes what a command prints as JSON.
func (p *person) asks(to any, args ...string) {
	p.t.Helper()
	r := p.at.Run(p.command(append(args, "--json")...))
	if err := json.Unmarshal([]byte(r.Stdout), to); err != nil {
		p.t.Fatalf("mlfnode %q --json: exit code %d, %v:\n%s%s", args, r.Code, err, r.Stdout, r.Stderr)
	}
}

// onTerminal types a command on a terminal.
func (p *person) onTerminal(args ...string) *hosts.Terminal {
	p.t.Helper()
	p.t.Logf("%s@%s:~/%s$ mlfnode %q   (on a terminal)", p.name, p.at.Name, p.dir, args)
	return p.at.OnTerminal(p.command(args...))
}

// ends waits for the end of a command on a terminal, and gives what stands there then. The exit
// code has to be this one.
func (p *person) ends(term *hosts.Terminal, code int) (screen string) {
	p.t.Helper()
	got, _ := term.Close(hosts.Timeout)
	screen = strings.Join(term.Lines(), "\n")
	p.t.Logf("exit code %d\n%s", got, screen)
	if got != code {
		p.t.Fatalf("got exit code %d, want %d\n%s", got, code, screen)
	}
	return screen
}

// trialsOf are the trials of a sweep in a state.
func (p *person) trialsOf(sweep, state string) []trial {
	p.t.Helper()
	var all []trial
	p.asks(&all, "trials", sweep, "--state", state)
	return all
}

// awaits waits until so many trials of a sweep are in a state, and gives them.
func (p *person) awaits(sweep, state string, n int) []trial {
	p.t.Helper()
	var all []trial
	hosts.WaitFor(p.t, hosts.Timeout, func() error {
		if all = p.trialsOf(sweep, state); len(all) != n {
			return fmt.Errorf("%d trials of %s are %s, want %d", len(all), sweep, state, n)
		}
		return nil
	})
	return all
}

// awaitsMembers waits until the person sees so many nodes alive.
func (p *person) awaitsMembers(n int) {
	p.t.Helper()
	hosts.WaitFor(p.t, hosts.Timeout, func() error {
		var all []hosts.Member
		p.asks(&all, "members")
		alive := 0
		for _, m := range all {
			if m.State == "alive" {
				alive++
			}
		}
		if alive != n {
			return fmt.Errorf("%d of these are alive, want %d: %+v", alive, n, all)
		}
		return nil
	})
}

// gated is a command line whose trials run until their gates are open, with a name of its own for
// the sweep.
func (d *day) gated(name string, n int) []string {
	program := fmt.Sprintf("echo begin {i}; until [ -e %s/%s-{i} ]; do sleep 0.1; done; echo end {i}", d.gates, name)
	return []string{"--name", name, "--cpus", d.cpus, "--set", "i=0:" + strconv.Itoa(n), "--", "sh", "-c", program}
}

// open lets trials of a gated sweep end.
func (d *day) open(t *testing.T, name string, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := os.WriteFile(fmt.Sprintf("%s/%s-%d", d.gates, name, i), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// home is a user's home on a machine.
func home(h *hosts.Host) string { return h.Accounts.Home(hosts.DefaultUser) }

// lines counts the lines of a file in the home on a machine; none where it is not there.
func lines(t *testing.T, h *hosts.Host, name string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(home(h), name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// named lists the files of this name below a folder.
func named(t *testing.T, dir, name string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == name {
			files = append(files, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// wantAll fails unless all of these are in the text.
func wantAll(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("want %q in:\n%s", part, text)
		}
	}
}

// wantNone fails if one of these is in the text.
func wantNone(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("want no %q in:\n%s", part, text)
		}
	}
}

// wantFirst fails unless all trials have had one attempt.
func wantFirst(t *testing.T, all []trial) {
	t.Helper()
	for _, tr := range all {
		if tr.Attempts != 1 {
			t.Errorf("trial %d on %s took %d attempts, want the first to go on", tr.Index, tr.Node, tr.Attempts)
		}
	}
}

// wantStates fails unless so many lines of a table end with the state.
func wantStates(t *testing.T, table string, n int, state string) {
	t.Helper()
	got := 0
	for line := range strings.Lines(table) {
		if strings.HasSuffix(strings.TrimSpace(line), "  "+state) {
			got++
		}
	}
	if got != n {
		t.Errorf("%d machines are %q, want %d:\n%s", got, state, n, table)
	}
}
