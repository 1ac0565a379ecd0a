package top_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"golang.org/x/sys/unix"

	"mlfnode/grid/gridtest"
)

// testTimeout bounds waits whose duration is not what a test checks.
const testTimeout = 3 * time.Minute

// program is the path of the built mlfnode.
var program string

func TestMain(m *testing.M) { os.Exit(gridtest.RunWithProgram(m, &program)) }

// machine is a state folder with its settings, and the programs that are started for it.
type machine struct {
	t   *testing.T
	dir string
	api int
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir()}
	ports := gridtest.FreePorts(t, "127.0.0.1", 3)
	m.api = ports[0]
	settings := fmt.Sprintf(
		"node: gpu-1\ncpus: 2\nbind: 127.0.0.1\nadvertise: 127.0.0.1\nports: {api: %d, nats: %d, gossip: %d}\n",
		ports[0], ports[1], ports[2])
	if err := os.WriteFile(filepath.Join(m.dir, "node.yaml"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

// command prepares a command of this machine's owner.
func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command(program,
		append([]string{"--config", filepath.Join(m.dir, "node.yaml"), "--state-dir", filepath.Join(m.dir, "state")},
			args...)...)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "HOME="+m.dir, "XDG_CONFIG_HOME="+m.dir, "TERM=xterm-256color",
		"NO_COLOR=", "MLF_MASTER=")
	return cmd
}

// mlfnode runs a command and returns its output.
func (m *machine) mlfnode(args ...string) string {
	m.t.Helper()
	cmd := m.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.t.Errorf("mlfnode %v: %v\n%s%s", args, err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// master starts the master and waits until it is up. The master is stopped after the test, unless
// the test has killed it.
func (m *machine) master() *exec.Cmd {
	m.t.Helper()
	log, err := os.Create(filepath.Join(m.dir, "master.log"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	cmd := m.command("master")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	await(m.t, "the master is up", func() (bool, string) {
		b, _ := os.ReadFile(log.Name())
		return bytes.Contains(b, []byte("node is up")), string(b)
	})
	return cmd
}

// await waits until a condition holds. If it never does, the test fails with what there was
// instead.
func await(t *testing.T, what string, so func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(testTimeout); ; {
		ok, is := so()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: it is not so:\n%s", what, is)
		}
	}
}

// terminal is mlfnode top on a terminal, with a user who looks at it and types.
type terminal struct {
	t             *testing.T
	cmd           *exec.Cmd
	keyboard, tty *os.File
	before        *unix.Termios

	mu      sync.Mutex
	screen  *vt.Emulator
	hidden  bool // of the cursor
	watched string
	gone    bool // the watched text was missing from the screen at least once
}

func onTerminal(t *testing.T, cmd *exec.Cmd, columns, rows uint16) *terminal {
	t.Helper()
	keyboard, tty, err := gridtest.Terminal(columns, rows)
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, cmd: cmd, keyboard: keyboard, tty: tty, screen: vt.NewEmulator(int(columns), int(rows))}
	x.screen.SetCallbacks(vt.Callbacks{CursorVisibility: func(visible bool) { x.hidden = !visible }})
	if x.before, err = unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var copies sync.WaitGroup
	copies.Go(func() { _, _ = io.Copy(x, keyboard) })        // ends with the terminal
	copies.Go(func() { _, _ = io.Copy(keyboard, x.screen) }) // a terminal's answers to queries
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended unless the test failed
		_ = cmd.Wait()
		tty.Close()
		keyboard.Close()
		_ = x.screen.InputPipe().(io.Closer).Close() // ends Read; Close of the emulator must not run beside it
		copies.Wait()
		x.screen.Close()
	})
	return x
}

// Write shows the program's output.
func (x *terminal) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n, err := x.screen.Write(b)
	x.gone = x.gone || !strings.Contains(ansi.Strip(x.screen.Render()), x.watched)
	return n, err
}

// watch makes gone report whether a text leaves the screen, however briefly.
func (x *terminal) watch(text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.watched, x.gone = text, false
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return ansi.Strip(x.screen.Render())
}

// sees waits until all of these texts are on the screen, except those that begin with "no: ", which
// must be absent.
func (x *terminal) sees(texts ...string) {
	x.t.Helper()
	await(x.t, fmt.Sprintf("%q on the screen", texts), func() (bool, string) {
		screen := x.text()
		for _, text := range texts {
			absent, not := strings.CutPrefix(text, "no: ")
			if not == strings.Contains(screen, absent) {
				return false, screen
			}
		}
		return true, screen
	})
}

func (x *terminal) press(keys string) {
	x.t.Helper()
	if _, err := x.keyboard.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) resize(columns, rows int) {
	x.t.Helper()
	x.mu.Lock()
	x.screen.Resize(columns, rows)
	x.mu.Unlock()
	if err := unix.IoctlSetWinsize(int(x.tty.Fd()), unix.TIOCSWINSZ,
		&unix.Winsize{Row: uint16(rows), Col: uint16(columns)}); err != nil {
		x.t.Fatal(err)
	}
}

// ends waits for the end of the program, which must leave the terminal as it was.
func (x *terminal) ends(code int) {
	x.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- x.cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if got := x.cmd.ProcessState.ExitCode(); got != code || err != nil && !errors.As(err, &exit) {
			x.t.Errorf("got exit code %d (%v), want %d\n%s", got, err, code, x.text())
		}
	case <-time.After(testTimeout):
		x.t.Fatalf("top does not end\n%s", x.text())
	}
	after, err := unix.IoctlGetTermios(int(x.tty.Fd()), unix.TCGETS)
	if err != nil || *after != *x.before {
		x.t.Errorf("the terminal has other modes than before: %+v, want %+v (%v)", after, x.before, err)
	}
	await(x.t, "the usual screen, with a cursor", func() (bool, string) {
		x.mu.Lock()
		defer x.mu.Unlock()
		return !x.screen.IsAltScreen() && !x.hidden, x.screen.Render()
	})
}

const script = `echo "begin $*"; echo oops >&2; case "$*" in *seed=3*) exit 3;; *seed=[012]*) echo '{"loss": 0.25}' >>"$MLF_METRICS"; exit;; esac; until [ -e gate ]; do sleep 0.1; done`

// TestTop views a sweep, its failures and a trial, acts on them, and sees the master die and come
// back.
func TestTop(t *testing.T) {
	m := newMachine(t)
	master := m.master()
	id := m.mlfnode("sweep", "--detach", "--set", "seed=0:9", "--", "sh", "-c", script, "run")
	x := onTerminal(t, m.command("top"), 110, 30)
	x.sees("● live", "Sweeps", id, "gpu-1  ● alive", "running 2")
	x.press("\r")
	x.sees("[Trials]", "Failures 1 in 1 class", "Best loss so far", "▶ running", "✕ failed", "· pending")
	x.press("\t")
	x.sees("[Failures 1 in 1 class]", id+"/3")
	x.press("\r")
	x.sees("[Trials]", "class=", "✕ failed", "no: ✓ succeeded")
	x.press("\r")
	x.sees("▸ "+id+"/3", "exit code 3", "seed=3", "begin --seed=3", "! oops")
	x.press("/BEGIN\r")
	x.sees("hit 1 of 1")
	x.resize(40, 20)
	x.sees("▸ "+id+"/3", "begin --seed=3")
	for _, l := range strings.Split(x.text(), "\n") {
		if ansi.StringWidth(l) > 40 {
			t.Errorf("on a terminal of 40 columns there is a line %q", l)
		}
	}
	x.resize(110, 30)
	x.press(":" + id + "/4\r")
	x.sees("▸ "+id+"/4", "▶ running", "● following")
	x.press("\x1b")
	x.sees("▸ "+id+"/3", "no: "+id+"/4")
	x.press("\x1b")
	x.sees("[Trials]")
	x.press("p")
	x.sees("Pause " + id + "?")
	x.press("y")
	x.sees(id+" is paused", "‖ paused")

	_ = master.Process.Kill()
	_ = master.Wait()
	x.sees("✕ disconnected", "The node has been unreachable since", "‖ paused")
	m.master()
	x.sees("● live", "no: unreachable", "‖ paused")

	x.press("X")
	x.sees("Cancel " + id + "?")
	x.press("n")
	x.sees("no: Cancel " + id + "?")
	x.press("X")
	x.sees("Cancel " + id + "?")
	x.press("y")
	x.sees(id+" is cancelled", "⊘ cancelled")
	x.press("?")
	x.sees("reload and redraw")
	x.press("qq") // the first one leaves the list of keys
	x.ends(0)
}

// TestTopOfViewer views the cluster over the network, with a read-only token.
func TestTopOfViewer(t *testing.T) {
	m := newMachine(t)
	m.master()
	id := m.mlfnode("sweep", "--detach", "--set", "seed=4:9", "--", "sh", "-c", script, "run")
	var made struct{ Token string }
	if err := json.Unmarshal([]byte(m.mlfnode("token", "--role", "viewer", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	laptop := newMachine(t)
	cmd := laptop.command("--master", fmt.Sprintf("127.0.0.1:%d", m.api), "top")
	cmd.Env = append(cmd.Env, "MLF_CLUSTER_TOKEN="+made.Token)
	x := onTerminal(t, cmd, 100, 24)
	x.sees("● live · viewer", id, "gpu-1  ● alive")
	x.press("p")
	x.sees("a viewer's token is read-only", "no: Pause")
	x.press("\x03")
	x.ends(0)
	m.mlfnode("cancel", id)
}

// TestTopAlone runs top as the node itself, on a machine outside a cluster: a sweep from another
// terminal runs in it, and it asks before it exits.
func TestTopAlone(t *testing.T) {
	m := newMachine(t)
	x := onTerminal(t, m.command("top"), 100, 24)
	x.sees("● live", "There are no sweeps yet", "no: Nodes")
	id := m.mlfnode("sweep", "--detach", "--set", "seed=4:9", "--", "sh", "-c", script, "run")
	x.sees(id, "running 2")
	x.press("q")
	x.sees("2 trials of this machine run in this process")
	x.press("n")
	x.sees("Sweeps")
	if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	x.ends(130)
}

// TestTopTakesOver kills the process that is the node of a machine outside a cluster: top on
// another terminal becomes the node, and takes over its trials.
func TestTopTakesOver(t *testing.T) {
	m := newMachine(t)
	host := onTerminal(t, m.command("top"), 100, 24)
	host.sees("● live", "There are no sweeps yet")
	x := onTerminal(t, m.command("top"), 100, 24)
	x.sees("● live", "There are no sweeps yet")
	id := m.mlfnode("sweep", "--detach", "--set", "seed=4:9", "--", "sh", "-c", script, "run")
	x.sees(id, "running 2")
	x.watch("● live")
	if err := host.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.cmd.Wait()
	await(t, "the node is lost", func() (bool, string) {
		text := x.text()
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.gone, text
	})
	for trial := range 2 { // what the killed process ran is lost and runs again: for a moment nothing runs
		await(t, "the trial runs again", func() (bool, string) {
			attempts := m.mlfnode("trials", fmt.Sprintf("%s/%d", id, trial), "--json")
			return strings.Contains(attempts, `"attempt": 2`), attempts
		})
	}
	x.press("\x0c")             // everything is requested again, so that
	time.Sleep(3 * time.Second) // what is on the screen is current
	x.sees("● live", "running 2")
	x.press("q") // it would exit immediately if the node were elsewhere
	x.sees("2 trials of this machine run in this process")
	x.press("n")
	x.sees("Sweeps", id)
	if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	x.ends(130)
}
