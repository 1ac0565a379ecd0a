package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/docker/dockertest"
)

// killShim kills the only shim.
func (l *agents) killShim() {
	l.Helper()
	dirs, err := shimDirsIn(l.o.Dir)
	if err != nil || len(dirs) != 1 {
		l.Fatalf("shims: got %v, %v; want one", dirs, err)
	}
	var self processRecord
	if err := dirs[0].load(processFile, &self); err != nil {
		l.Fatal(err)
	}
	self.kill()
}

// noContainers waits until nothing of containers is left.
func (l *agents) noContainers(e *dockertest.Engine) {
	l.Helper()
	eventually(l.T, "containers to be removed", func() bool {
		left, err := docker.FindOrphans(l.o.Containers.Dir)
		return err == nil && len(left) == 0 && len(e.Containers()) == 0
	})
}

// TestContainersOutliveAgents kills an agent with kill -9 under five containers.
func TestContainersOutliveAgents(t *testing.T) {
	e := dockertest.New(t)
	l := killedAgentWith(t, 0, e.Host(), map[string]string{
		"good": wait + "exit 0", "bad": wait + "exit 7", "signal": wait + "kill -9 $$", "early": wait + "exit 5",
		"stopped": wait + "sleep 1000", "unnamed": wait,
	})
	l.goOn("early")
	eventually(t, "the outcome to be recorded", func() bool { return exists(l.run("early", "outcome.json")) })
	c := l.open()
	l.goOn("good", "bad", "signal")
	l.ends(c)
	for _, name := range []string{"good", "early"} {
		if got := l.read(name, "stdout"); got != "one\ntwo\n" {
			t.Errorf("output of %s: got %q, want all of it", name, got)
		}
	}
	for _, name := range []string{"good", "bad", "signal", "early", "stopped"} {
		c.Collected(name)
	}
	c.Disown()
	l.noContainers(e)
}

// ends checks how the runs of the tests end, each with all of its output.
func (l *agents) ends(c *Client) {
	l.Helper()
	expect(l.T, l.resumed(c, "good"), grid.ClassNone, 0, "")
	expect(l.T, l.resumed(c, "bad"), grid.ClassExit, 7, "exit code 7")
	expect(l.T, l.resumed(c, "signal"), grid.ClassSignal, 137, "SIGKILL")
	expect(l.T, l.resumed(c, "early"), grid.ClassExit, 5, "exit code 5")
	l.stopped(c)
	for _, name := range []string{"bad", "signal"} {
		if got := l.read(name, "stdout"); got != "one\ntwo\n" {
			l.Errorf("output of %s: got %q, want all of it", name, got)
		}
	}
}

// TestContainersOutliveAgentsAndShims kills both: the next agent's shim finds the containers by
// their folders.
func TestContainersOutliveAgentsAndShims(t *testing.T) {
	e := dockertest.New(t)
	l := killedAgentWith(t, 0, e.Host(), map[string]string{
		"good": wait + "exit 0", "bad": wait + "exit 7", "signal": wait + "kill -9 $$", "early": wait + "exit 5",
		"stopped": wait + "sleep 1000",
		"unknown": wait, "unnamed": wait,
	})
	l.killShim()
	l.goOn("early", "good") // they end while nobody looks
	eventually(t, "two to end", func() bool { return e.Running() <= 5 })
	c := l.open()
	l.goOn("bad", "signal")
	l.ends(c)
	for _, name := range []string{"good", "bad", "signal", "early", "stopped"} {
		c.Collected(name)
	}
	c.Disown()
	l.noContainers(e)
}

// TestContainersOutliveShims kills only the shim, several times, while its agent waits for the
// containers.
func TestContainersOutliveShims(t *testing.T) {
	e := dockertest.New(t)
	l := &agents{T: t, dir: t.TempDir(), o: options(t)}
	l.o.Containers = containersIn(l.dir, l.o.Token, e.Host())
	c := l.open()
	var begun []*executor.Attempt
	var ends []chan executor.Outcome
	for i := range 3 {
		a := script(t, t.TempDir(), fmt.Sprint("run", i),
			fmt.Sprintf("echo one; touch ready; while ! test -e go; do sleep 0.01; done; echo two; exit %d", i+1))
		a.Env = []string{"PATH=/bin"}
		a.Container = &executor.Container{
			Image: dockertest.Image, Mounts: []executor.Mount{{Source: a.Dir}},
			Network: "none", Output: [2]string{a.Stdout.Name(), a.Stderr.Name()},
		}
		s, err := c.Slot()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		end := make(chan executor.Outcome, 1)
		go func() { end <- s.Run(t.Context(), a) }()
		begun, ends = append(begun, a), append(ends, end)
		eventually(t, "the program to begin", func() bool { return exists(filepath.Join(a.Dir, "ready")) })
		l.killShim()
		eventually(t, "another shim", func() bool {
			dirs, _ := shimDirsIn(l.o.Dir)
			return len(dirs) == 1 && dirs[0].id == i+2 && exists(filepath.Join(dirs[0].path, socketFile))
		})
	}
	for i, a := range begun {
		if err := os.WriteFile(filepath.Join(a.Dir, "go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		expect(t, receive(t, "the end of "+a.Name, ends[i]), grid.ClassExit, i+1, "")
		if b, err := os.ReadFile(a.Stdout.Name()); err != nil || string(b) != "one\ntwo\n" {
			t.Errorf("output of %s: got %q, %v; want all of it", a.Name, b, err)
		}
	}
	l.noContainers(e)
}

// TestContainersEndWithTheirAgent kills an agent that has no successor: its shim ends the
// containers after its agent timeout.
func TestContainersEndWithTheirAgent(t *testing.T) {
	e := dockertest.New(t)
	l := killedAgentWith(t, 300*time.Millisecond, e.Host(),
		map[string]string{"a": "sleep 1000", "b": "trap '' TERM; " + wait})
	eventually(t, "the shim to end", func() bool { dirs, _ := shimDirsIn(l.o.Dir); return len(dirs) == 0 })
	nothingLeft(t, l.o)
	l.noContainers(e)
	o, ok, err := executor.ReadRecord(l.run("b", "outcome.json"), "b")
	if err != nil || !ok {
		t.Fatalf("record: got %v, %v; want one", ok, err)
	}
	expect(t, o, grid.ClassLost, 137, "no other took it over within 300ms")
}

// TestOldShimsGetNoContainers uses a shim that does not announce containers: the program must not
// run as a process.
func TestOldShimsGetNoContainers(t *testing.T) {
	c := started(t, options(t))
	s, err := c.Slot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a := script(t, t.TempDir(), "a", "echo ran")
	a.Container = &executor.Container{Image: "x"}
	expect(t, s.Run(t.Context(), a), grid.ClassNode, executor.ExitNotRunnable, "older version")
}
