package bench

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/cluster/trust"
	"mlfnode/node"
	"mlfnode/node/executor/executortest"
)

const (
	crowd       = 200     // workers
	crowdPoints = 200_000 // trials
)

// crowdMaster is the real program as a master that runs no trials itself, with the workers in this process.
type crowdMaster struct {
	b       *testing.B
	program string
	dir     string
	env     []string
	ports   node.Ports
	cmd     *exec.Cmd
}

// BenchmarkTwoHundredWorkers is the rate of trials and the memory of one master with two hundred workers. They are whole nodes but
// for their programs: each has its own certificate, gossip and connection, and its attempts end at once.
func BenchmarkTwoHundredWorkers(b *testing.B) {
	if testing.Short() {
		b.Skip("it takes a minute")
	}
	m := startMaster(b)
	alone := residentOf(b, m.cmd.Process.Pid)
	begin := time.Now()
	m.fill()
	b.Logf("%d nodes at work after %v", crowd, time.Since(begin).Round(time.Millisecond))
	for b.Loop() {
		used := cpuTime(b, m.cmd.Process.Pid)
		begin := time.Now()
		m.must("sweep", "-q", "--set", fmt.Sprintf("i=0:%d", crowdPoints), "--", "true")
		took := time.Since(begin)
		b.ReportMetric(crowdPoints/took.Seconds(), "trials/s")
		b.ReportMetric(float64((cpuTime(b, m.cmd.Process.Pid)-used).Microseconds())/crowdPoints, "master-cpu-us/trial")
		b.ReportMetric(float64(alone)/(1<<20), "master-alone-MB")
		b.ReportMetric(float64(residentOf(b, m.cmd.Process.Pid))/(1<<20), "master-MB")
		b.ReportMetric(0, "ns/op")
	}
}

func startMaster(b *testing.B) *crowdMaster {
	m := &crowdMaster{b: b, dir: b.TempDir(), ports: node.Ports{API: freePort(b), NATS: freePort(b), Gossip: freePort(b)}}
	m.program = filepath.Join(m.dir, "program")
	if out, err := exec.Command("go", "build", "-o", m.program, "mlfnode/cmd/mlfnode").CombinedOutput(); err != nil {
		b.Fatalf("build: %v %s", err, out)
	}
	m.env = append(os.Environ(), "MLF_STATE="+filepath.Join(m.dir, "m"), "XDG_CONFIG_HOME="+filepath.Join(m.dir, "config"), "MLF_BIND=127.0.0.1", "MLF_ADVERTISE=127.0.0.1",
		"MLF_PORTS_API="+strconv.Itoa(m.ports.API), "MLF_PORTS_NATS="+strconv.Itoa(m.ports.NATS), "MLF_PORTS_GOSSIP="+strconv.Itoa(m.ports.Gossip))
	m.cmd = m.command("master", "--no-worker")
	log := &bytes.Buffer{}
	m.cmd.Stderr = log
	if err := m.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = m.cmd.Process.Signal(syscall.SIGTERM)
		if err := m.cmd.Wait(); err != nil || b.Failed() {
			b.Logf("master: %v\n%s", err, log)
		}
	})
	m.await("the master", func() bool { return m.command("members").Run() == nil })
	return m
}

func freePort(b *testing.B) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (m *crowdMaster) command(args ...string) *exec.Cmd {
	cmd := exec.Command(m.program, args...)
	cmd.Env = m.env
	return cmd
}

func (m *crowdMaster) must(args ...string) string {
	m.b.Helper()
	out, err := m.command(args...).CombinedOutput()
	if err != nil {
		m.b.Fatalf("mlfnode %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (m *crowdMaster) await(what string, ok func() bool) {
	m.b.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for over := time.Now().Add(2 * time.Minute); !ok(); <-tick.C {
		if time.Now().After(over) {
			m.b.Fatalf("waited in vain for %s", what)
		}
	}
}

// fill has all workers join, and waits until they work.
func (m *crowdMaster) fill() {
	text := regexp.MustCompile(`mlf1\.[0-9a-f]{64}\.[^\s'".]+\.[^\s'"]+`).FindString(m.must("token"))
	token, err := trust.ParseToken(text)
	if err != nil {
		m.b.Fatal(err)
	}
	var joining sync.WaitGroup
	turns := make(chan struct{}, 8)
	for i := range crowd {
		joining.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			m.join(i, token)
		})
	}
	joining.Wait()
	m.await("all members", func() bool { return strings.Count(m.must("members"), "alive") >= crowd+1 })
}

func (m *crowdMaster) join(i int, token trust.Token) {
	cfg := node.Config{
		StateDir: filepath.Join(m.dir, strconv.Itoa(i)), Machine: inventory.Machine{CPUs: slots, Memory: 1 << 34}, Executor: executortest.Instant{},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Cluster: node.DefaultCluster(), Retention: node.DefaultRetention(),
	}
	cfg.Cluster.Bind, cfg.Cluster.Advertise, cfg.Cluster.Ports.Gossip = "127.0.0.1", "127.0.0.1", 0
	err := cfg.SetNode(fmt.Sprintf("w%03d", i))
	if err == nil {
		err = os.Mkdir(cfg.StateDir, 0o700)
	}
	if err == nil {
		_, err = node.Join(m.b.Context(), cfg, fmt.Sprintf("127.0.0.1:%d", m.ports.API), token)
	}
	if err != nil {
		m.b.Errorf("join %d: %v", i, err)
		return
	}
	n, err := node.OpenWorker(m.b.Context(), cfg)
	if err != nil {
		m.b.Errorf("open worker %d: %v", i, err)
		return
	}
	m.b.Cleanup(n.Close)
	<-n.Working()
}
