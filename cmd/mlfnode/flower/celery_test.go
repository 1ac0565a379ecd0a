package flower

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid/gridtest"
)

// packages are what is compared with. Another version may answer otherwise.
var packages = []string{"celery==5.7.0", "flower==2.2.0"}

// celery is RabbitMQ, a Celery worker and Flower, with all they write in a folder of the test.
type celery struct {
	t    *testing.T
	bin  string // of the Python environment
	dir  string
	env  []string
	base string // of Flower
}

func newCelery(t *testing.T) *celery {
	t.Helper()
	// the one on the PATH runs as a user of its own, in folders of the system
	const server = "/usr/lib/rabbitmq/bin/rabbitmq-server"
	if _, err := os.Stat(server); err != nil {
		gridtest.Missing(t, "needs RabbitMQ, which .ci/install installs", err)
	}
	c := &celery{t: t, bin: environment(t), dir: t.TempDir()}
	broker, port := gridtest.FreePort(t), gridtest.FreePort(t)
	c.base = fmt.Sprintf("http://127.0.0.1:%d", port)
	epmd := gridtest.FreePort(t)
	tasks, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	c.env = append(os.Environ(), "HOME="+c.dir, "PYTHONPATH="+tasks, "PYTHONDONTWRITEBYTECODE=1", "RESULTS="+c.dir,
		fmt.Sprintf("BROKER=amqp://guest:guest@127.0.0.1:%d//", broker),
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", fmt.Sprintf("RABBITMQ_NODE_PORT=%d", broker),
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", gridtest.FreePort(t)),
		fmt.Sprintf("RABBITMQ_NODENAME=flower%d@localhost", broker), "RABBITMQ_MNESIA_BASE="+c.dir+"/mnesia",
		"RABBITMQ_LOG_BASE="+c.dir+"/log",
		"RABBITMQ_CONFIG_FILE="+c.dir+"/none", "RABBITMQ_ENABLED_PLUGINS_FILE="+c.dir+"/plugins",
		"RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_PID_FILE="+c.dir+"/pid",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		fmt.Sprintf("ERL_EPMD_PORT=%d", epmd), "ERL_EPMD_ADDRESS=127.0.0.1", "C_FORCE_ROOT=1")
	if err := os.WriteFile(filepath.Join(c.dir, "plugins"), []byte("[].\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.start("epmd", gridtest.Program(t, "epmd")) // else RabbitMQ starts one that stays
	c.start("rabbitmq", server)
	c.await("the broker", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", broker))
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	c.start("worker", c.bin+"/celery", "-A", "tasks", "worker", "-E", "-c", "2", "-l", "warning", "-n",
		"w1@localhost", "--without-gossip", "--without-mingle")
	c.start("flower", c.bin+"/celery", "-A", "tasks", "flower", "--address=127.0.0.1",
		fmt.Sprintf("--port=%d", port), "--basic-auth=u:p")
	return c
}

// environment gives the programs of a Python environment with the packages, which is made once for
// all runs.
func environment(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "mlfnode-test", strings.NewReplacer("=", "-").Replace(strings.Join(packages, "_")))
	bin := filepath.Join(dir, "bin")
	done := filepath.Join(dir, "complete")
	if _, err := os.Stat(done); err == nil {
		return bin
	}
	for _, args := range [][]string{{"python3", "-m", "venv", "--clear", dir},
		append([]string{bin + "/python", "-m", "pip", "install", "-q"}, packages...)} {
		if said, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			gridtest.Missing(t, "needs "+strings.Join(args, " "), fmt.Errorf("%w\n%s", err, said))
		}
	}
	if err := os.WriteFile(done, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return bin
}

// start runs a program until the test ends, with all that it starts.
func (c *celery) start(name, program string, args ...string) {
	c.t.Helper()
	cmd := exec.Command(program, args...)
	var said bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.dir, c.env, &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // it has ended if this fails
		late := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		late.Stop()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what a program has left of its group
		if c.t.Failed() {
			c.t.Logf("%s said:\n%.3000s", name, said.String())
		}
	})
}

// send sends a task and gives its id.
func (c *celery) send(task string) string {
	c.t.Helper()
	script, err := filepath.Abs("testdata/send.py")
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(c.bin+"/python", script, task)
	cmd.Env = c.env
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (c *celery) await(what string, is func() bool) { await(c.t, what, is) }

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(2 * time.Minute); !is(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s was waited for in vain", what)
		}
	}
}
