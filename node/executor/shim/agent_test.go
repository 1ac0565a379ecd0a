package shim

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/docker/dockertest"
	"mlfnode/node/executor/process"
	"mlfnode/node/processid"
)

// agentVar makes the test binary an agent that runs scripts until it is killed. Its value is a
// folder.
const (
	agentVar        = "SHIM_TEST_AGENT"
	agentTimeoutVar = "SHIM_TEST_PATIENCE"
	cgroupsVar      = "SHIM_TEST_CGROUPS"
	engineVar       = "SHIM_TEST_ENGINE" // where the engine of its containers listens; empty: it runs processes
)

// agent runs the script in every folder below runs, and prints "begun" once all have begun.
func agent(dir string) int {
	agentTimeout, _ := time.ParseDuration(os.Getenv(agentTimeoutVar))
	o := Options{Dir: filepath.Join(dir, "shims"), Token: "shim-test-" + filepath.Base(dir), AgentTimeout: agentTimeout,
		Logger: slog.New(slog.DiscardHandler)}
	o.FormerDir = filepath.Join(dir, "keepers")
	if os.Getenv(formerVar) != "" {
		var err error
		if o, err = formerOptions(dir, o); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	o.Containers, o.Cgroups = containersIn(dir, o.Token, os.Getenv(engineVar)), process.Cgroups(os.Getenv(cgroupsVar))
	c, err := Open(context.Background(), o)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	runs, _ := filepath.Glob(filepath.Join(dir, "runs", "*"))
	var begun sync.WaitGroup
	for _, run := range runs {
		begun.Add(1)
		go runScript(c, run, begun.Done)
	}
	begun.Wait()
	fmt.Println("begun")
	select {}
}

func runScript(c *Client, dir string, begun func()) {
	s, err := c.Slot()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	text, _ := os.ReadFile(filepath.Join(dir, "script"))
	a := &executor.Attempt{
		Argv: []string{"/bin/sh", "-c", string(text)}, Env: os.Environ(), Started: func(executor.Program) { begun() },
		Spec: executor.Spec{
			Name: filepath.Base(dir), Record: filepath.Join(dir, "outcome.json"), Dir: dir,
			Grace: time.Second, Memory: 64 << 20,
		},
	}
	if strings.HasPrefix(a.Name, "unnamed") {
		a.Name = ""
	}
	a.Stdout, _ = os.OpenFile(filepath.Join(dir, "stdout"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	a.Stderr = a.Stdout
	if os.Getenv(engineVar) != "" {
		out := filepath.Join(dir, "stdout")
		a.Container = &executor.Container{Image: dockertest.Image, Mounts: []executor.Mount{{Source: dir}},
			Network: "none", Output: [2]string{out, out}}
	}
	s.Run(context.Background(), a)
}

// containersIn returns the settings for an engine, or nil if there is none.
func containersIn(dir, token, engine string) *docker.Options {
	if engine == "" {
		return nil
	}
	return &docker.Options{Settings: docker.Settings{Socket: engine}, Token: token,
		Dir: filepath.Join(dir, "containers")}
}

// agents are one or more agents of one state folder, of which the first is a process that is
// killed.
type agents struct {
	*testing.T
	dir string
	o   Options
}

// killedAgent runs the scripts under an agent and kills it once all have begun.
func killedAgent(t *testing.T, agentTimeout time.Duration, scripts map[string]string) *agents {
	t.Helper()
	return killedAgentWith(t, agentTimeout, "", scripts)
}

// killedAgentWith is killedAgent with an engine for containers.
func killedAgentWith(t *testing.T, agentTimeout time.Duration, engine string, scripts map[string]string) *agents {
	t.Helper()
	l := &agents{T: t, dir: filepath.Join(t.TempDir(), strings.TrimPrefix(token(t), "shim-test-"))}
	l.o = Options{Dir: filepath.Join(l.dir, "shims"), Token: "shim-test-" + filepath.Base(l.dir),
		AgentTimeout: agentTimeout, Logger: logTo(t)}
	l.o.FormerDir = filepath.Join(l.dir, "keepers")
	l.o.Containers = containersIn(l.dir, l.o.Token, engine)
	for name, text := range scripts {
		if err := os.MkdirAll(l.run(name, ""), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(l.run(name, "script"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), agentVar+"="+l.dir, agentTimeoutVar+"="+agentTimeout.String(), engineVar+"="+engine)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if line != "begun\n" {
		t.Fatalf("agent said %q, %v", line, err)
	}
	return l
}

func (l *agents) run(name, file string) string { return filepath.Join(l.dir, "runs", name, file) }

func (l *agents) read(name, file string) string {
	l.Helper()
	b, err := os.ReadFile(l.run(name, file))
	if err != nil {
		l.Fatal(err)
	}
	return string(b)
}

// goOn lets the scripts go on.
func (l *agents) goOn(names ...string) {
	l.Helper()
	for _, name := range names {
		if err := os.WriteFile(l.run(name, "go"), nil, 0o600); err != nil {
			l.Fatal(err)
		}
	}
}

// open creates the next agent, which ends with the test.
func (l *agents) open() *Client {
	l.Helper()
	c := open(l.T, l.o)
	l.Cleanup(func() {
		if err := c.Close(); err != nil {
			l.Errorf("close: %v", err)
		}
		nothingLeft(l.T, l.o)
	})
	return c
}

// resumed waits for a run of an earlier agent.
func (l *agents) resumed(c *Client, name string) executor.Outcome {
	l.Helper()
	resume, _, ok := c.Adopted(name)
	if !ok {
		l.Fatalf("run %s: nobody has it", name)
	}
	o := make(chan executor.Outcome, 1)
	go func() { o <- resume(context.Background()) }()
	return receive(l.T, "the end of "+name, o)
}

const (
	wait = "echo one; while ! test -e go; do sleep 0.01; done; echo two; "
	tree = "echo one; (setsid sh -c 'sleep 1000 & (sleep 1000; :)' &); sleep 1000 & "
)

// TestRunsOutliveAKilledAgent kills an agent with kill -9 under running programs, and checks that
// the next agent takes them over.
func TestRunsOutliveAKilledAgent(t *testing.T) {
	l := killedAgent(t, 0, map[string]string{
		"good": wait + "exit 0", "bad": wait + "exit 7", "signal": wait + "kill -9 $$",
		"memory":   wait + "exec tail /dev/zero",
		"leftover": wait + tree + "exit 3", "early": wait + "exit 5", "stopped": wait, "unnamed": wait,
	})
	l.goOn("early")
	eventually(t, "the outcome to be recorded", func() bool { return exists(l.run("early", "outcome.json")) })
	o, ok, err := executor.ReadRecord(l.run("early", "outcome.json"), "early")
	if err != nil || !ok {
		t.Fatalf("record: got %v, %v; want one", ok, err)
	}
	expect(t, o, grid.ClassExit, 5, "exit code 5")
	c := l.open()
	if _, _, ok := c.Adopted("unnamed"); ok {
		t.Error("a run without a name has outlived its agent")
	}
	l.goOn("good", "bad", "signal", "memory", "leftover")
	expect(t, l.resumed(c, "good"), grid.ClassNone, 0, "")
	expect(t, l.resumed(c, "bad"), grid.ClassExit, 7, "exit code 7")
	expect(t, l.resumed(c, "signal"), grid.ClassSignal, 137, "SIGKILL")
	if left := l.resumed(c, "leftover"); left.ExitCode != 3 || left.Leftovers < 1 {
		t.Errorf("outcome: got %+v, want exit code 3 and leftovers", left)
	}
	expect(t, l.resumed(c, "early"), grid.ClassExit, 5, "exit code 5")
	if c.earlier[0].info.Limits {
		expect(t, l.resumed(c, "memory"), grid.ClassMemory, 137, "ran out of memory")
	}
	if got := l.read("bad", "stdout"); got != "one\ntwo\n" {
		t.Errorf("output: got %q, want all of it", got)
	}
	l.stopped(c)
	for _, name := range []string{"good", "bad", "signal", "leftover", "early", "stopped", "memory"} {
		c.Collected(name)
	}
	c.Disown()
	eventually(t, "the shim to end", func() bool { dirs, _ := shimDirsIn(l.o.Dir); return len(dirs) == 0 })
}

// stopped cancels an adopted run.
func (l *agents) stopped(c *Client) {
	l.Helper()
	resume, _, _ := c.Adopted("stopped")
	ctx, cancel := context.WithCancelCause(l.Context())
	cancel(executor.ErrLeave)
	if o := resume(ctx); !o.Left {
		l.Errorf("a look at a running attempt: got %+v, want it left", o)
	}
	ctx, cancel = context.WithCancelCause(l.Context())
	cancel(executor.ErrCancelled)
	expect(l.T, resume(ctx), grid.ClassCancel, 143, "cancelled")
}

// TestOrphanedShimEnds kills an agent that has no successor.
func TestOrphanedShimEnds(t *testing.T) {
	l := killedAgent(t, 300*time.Millisecond,
		map[string]string{"a": tree + "wait", "b": "trap '' TERM; " + wait, "unnamed": tree + "wait"})
	eventually(t, "the shim to end", func() bool { dirs, _ := shimDirsIn(l.o.Dir); return len(dirs) == 0 })
	nothingLeft(t, l.o)
	o, ok, err := executor.ReadRecord(l.run("b", "outcome.json"), "b")
	if err != nil || !ok {
		t.Fatalf("record: got %v, %v; want one", ok, err)
	}
	expect(t, o, grid.ClassLost, 137, "no other took it over within 300ms")
	if _, _, ok := l.open().Adopted("a"); ok {
		t.Error("a run was adopted that has ended")
	}
}

// daemon has an empty environment, a session of its own and no parent.
const daemon = `env -i PATH=$PATH setsid sh -c 'sh -c "echo \$\$ >daemon; exec sleep 1000" &'; `

// TestAgentAndShimKilled kills both, one after the other.
func TestAgentAndShimKilled(t *testing.T) {
	for _, choice := range choices {
		t.Run(string(choice), func(t *testing.T) { killBoth(t, choice) })
	}
}

func killBoth(t *testing.T, choice process.Cgroups) {
	t.Setenv(cgroupsVar, string(choice))
	l := killedAgent(t, 0, map[string]string{"a": daemon + tree + "wait", "early": "exit 5"})
	eventually(t, "the outcome to be recorded", func() bool { return exists(l.run("early", "outcome.json")) })
	dirs, err := shimDirsIn(l.o.Dir)
	if err != nil || len(dirs) != 1 {
		t.Fatalf("shims: got %v, %v; want one", dirs, err)
	}
	var self processRecord
	if err := dirs[0].load(processFile, &self); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon", func() bool {
		return exists(l.run("a", "daemon")) && strings.HasSuffix(l.read("a", "daemon"), "\n")
	})
	pid := strings.TrimSpace(l.read("a", "daemon"))
	if choice == process.CgroupsOff {
		eventually(t, "the daemon to be recorded", func() bool {
			b, _ := os.ReadFile(dirs[0].strays())
			return strings.Contains(string(b), `"pid":`+pid+",")
		})
	}
	self.kill()
	c := l.open()
	nothingLeft(t, l.o)
	if n, err := strconv.Atoi(pid); err != nil {
		t.Error(err)
	} else if _, alive := processid.Of(n); alive {
		t.Errorf("the daemon %s outlives its attempt", pid)
	}
	if _, _, ok := c.Adopted("a"); ok {
		t.Error("a run was adopted whose shim is dead")
	}
	if o, ok, _ := executor.ReadRecord(l.run("early", "outcome.json"), "early"); !ok || o.ExitCode != 5 {
		t.Errorf("record: got %+v, %v; want exit code 5", o, ok)
	}
}

// TestUnknownRunsAreStopped opens an agent that claims no run.
func TestUnknownRunsAreStopped(t *testing.T) {
	l := killedAgent(t, 0, map[string]string{"a": tree + "wait", "b": wait})
	c := l.open()
	c.Disown()
	eventually(t, "the shim to end", func() bool { dirs, _ := shimDirsIn(l.o.Dir); return len(dirs) == 0 })
	nothingLeft(t, l.o)
}
