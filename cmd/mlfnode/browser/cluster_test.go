// Package browser opens the monitor's page in a real Chromium, against a real master with sweeps
// that run.
package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid/gridtest"
	"mlfnode/node/api"
)

// testTimeout is how long something is waited for that is not the claim of a test.
const testTimeout = 4 * time.Minute

// program is the built mlfnode.
var program string

func TestMain(m *testing.M) {
	if os.Getenv(replaySocket) != "" {
		if err := replayPages(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(gridtest.RunWithProgram(m, &program))
}

// cluster is a master with its state, which may be killed and started again.
type cluster struct {
	t       testing.TB
	dir     string
	config  string
	program string   // of the master
	env     []string // that the master has beside that of the test
	master  *exec.Cmd
}

// newCluster starts a master that runs trials on four CPUs, whatever the machine has.
func newCluster(t testing.TB, edits ...func(*cluster)) *cluster {
	t.Helper()
	c := newState(t)
	for _, edit := range edits {
		edit(c)
	}
	c.start()
	t.Cleanup(func() {
		for _, s := range c.sweeps() {
			if s.State == "running" || s.State == "paused" {
				_ = c.command(context.Background(), "cancel", string(s.Sweep)).Run() // it may have ended meanwhile
			}
		}
		_ = c.master.Process.Signal(syscall.SIGTERM)
		_ = c.master.Wait()
	})
	return c
}

// newState makes the folder of a node that has not been started.
func newState(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), program: program}
	c.config = filepath.Join(c.dir, "node.yaml")
	ports := gridtest.FreePorts(t, "127.0.0.1", 3)
	text := fmt.Sprintf(
		"node: gpu-1\ncpus: 4\nbind: 127.0.0.1\nadvertise: 127.0.0.1\nports: {api: %d, nats: %d, gossip: %d}\n",
		ports[0], ports[1], ports[2])
	if err := os.WriteFile(c.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// command makes a command of mlfnode with this cluster's state.
func (c *cluster) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program,
		append([]string{"--config", c.config, "--state-dir", filepath.Join(c.dir, "state")}, args...)...)
	cmd.Dir = c.dir
	return cmd
}

// start starts the master and waits until it answers.
func (c *cluster) start() {
	c.t.Helper()
	log, err := os.OpenFile(filepath.Join(c.dir, "master.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	c.master = c.command(context.Background(), "master")
	c.master.Path, c.master.Env = c.program, append(os.Environ(), c.env...)
	c.master.Stdout, c.master.Stderr = log, log
	if err := c.master.Start(); err != nil {
		c.t.Fatal(err)
	}
	await(c.t, "the master is up", func() bool { // before that, a command would use this machine alone
		text, _ := os.ReadFile(log.Name())
		return bytes.Contains(text, []byte("node is up"))
	})
}

// build builds mlfnode otherwise than the other tests.
func build(t testing.TB, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mlfnode")
	if out, err := exec.CommandContext(t.Context(),
		"go", append(append([]string{"build"}, flags...), "-o", path,
			"mlfnode/cmd/mlfnode")...).CombinedOutput(); err != nil {
		t.Fatalf("build mlfnode: %v\n%s", err, out)
	}
	return path
}

// kill ends the master without a word.
func (c *cluster) kill() {
	c.t.Helper()
	_ = c.master.Process.Kill()
	_ = c.master.Wait()
}

// mlfnode runs a command and gives what it prints.
func (c *cluster) mlfnode(args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout) // also while a test is cleaned up
	defer cancel()
	cmd := c.command(ctx, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		c.t.Errorf("mlfnode %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// sweep submits a shell script with a grid of parameters, and gives the id of the sweep.
func (c *cluster) sweep(script string, sets ...string) string {
	c.t.Helper()
	args := []string{"sweep", "--detach"}
	for _, s := range sets {
		args = append(args, "--set", s)
	}
	return strings.TrimSpace(c.mlfnode(append(args, "--", "sh", "-c", script, "run")...))
}

func (c *cluster) sweeps() []api.Sweep {
	var all []api.Sweep
	if err := json.Unmarshal([]byte(c.mlfnode("sweeps", "--json")), &all); err != nil {
		c.t.Errorf("sweeps: %v", err)
	}
	return all
}

// settled waits until a sweep has no trial left to run, and gives it.
func (c *cluster) settled(id string) api.Sweep {
	c.t.Helper()
	var found api.Sweep
	await(c.t, id+" comes to its end", func() bool {
		for _, s := range c.sweeps() {
			if string(s.Sweep) == id {
				found = s
			}
		}
		return found.State == "finished"
	})
	return found
}

// monitor is mlfnode monitor.
type monitor struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	links chan string
}

func (c *cluster) monitor(args ...string) *monitor {
	c.t.Helper()
	m := &monitor{t: c.t, links: make(chan string, 16)}
	m.cmd = c.command(context.Background(), append([]string{"monitor", "--port", "0"}, args...)...)
	stdout, err := m.cmd.StdoutPipe()
	if err == nil {
		m.stdin, err = m.cmd.StdinPipe()
	}
	if err == nil {
		err = m.cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			m.links <- strings.TrimSpace(lines.Text())
		}
		close(m.links)
	}()
	c.t.Cleanup(m.stop)
	m.next() // the first one may be too old when it is used
	return m
}

func (m *monitor) stop() {
	_ = m.cmd.Process.Signal(syscall.SIGTERM) // SIGINT is ignored by what a shell has started in the background
	late := time.AfterFunc(testTimeout, func() {
		m.t.Error("mlfnode monitor does not end")
		_ = m.cmd.Process.Kill()
	})
	defer late.Stop()
	_ = m.cmd.Wait()
}

// next waits for a link.
func (m *monitor) next() string {
	m.t.Helper()
	select {
	case link, ok := <-m.links:
		if !ok {
			m.t.Fatal("mlfnode monitor has ended")
		}
		return link
	case <-time.After(testTimeout):
		m.t.Fatal("mlfnode monitor prints no link")
	}
	return ""
}

// link asks for a new link.
func (m *monitor) link() string {
	m.t.Helper()
	if _, err := io.WriteString(m.stdin, "\n"); err != nil {
		m.t.Fatal(err)
	}
	return m.next()
}

// await waits until something is so.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	if !eventually(t.Context(), so) {
		t.Fatalf("waited in vain: %s", what)
	}
}

func eventually(ctx context.Context, so func() bool) bool {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(testTimeout); time.Now().Before(end); {
		if so() {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return so()
}

// get asks the monitor without a browser.
func (m *monitor) get(target string) int {
	m.t.Helper()
	resp, err := http.Get(target)
	if err != nil {
		m.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}
