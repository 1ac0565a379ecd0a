package bench

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/trust"
)

const (
	crowd       = 200     // workers, of two slots each
	crowdPoints = 300_000 // trials
	crowdIdle   = 10 * time.Second
)

// BenchmarkWorkers is the rate of trials whose programs end immediately, and what that costs one
// master, with 1 to 200 workers. The master is one process; the workers are real ones with a
// connection each, and share another process. There is no gossip: what that costs is measured in
// cluster. All run on this machine, so the rate is what the master and all workers together reach
// on its processors.
func BenchmarkWorkers(b *testing.B) {
	if testing.Short() {
		b.Skip("it takes minutes")
	}
	dir := b.TempDir()
	enrol(b, dir)
	for _, n := range []int{1, 10, 50, crowd} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				measureCrowd(b, dir, n)
			}
		})
	}
}

func measureCrowd(b *testing.B, dir string, n int) {
	m := startPart(b, "master", filepath.Join(dir, "m"))
	defer m.end()
	address := m.hear()
	m.ask("settle")
	b.ReportMetric(m.resident(), "master-alone-MB")
	w := startPart(b, "workers", dir, address, strconv.Itoa(n))
	defer w.end()
	w.hear()
	m.ask("nodes %d", n)
	idle(b, m, w, n)
	b.ReportMetric(firstResult(b, m).Seconds()*1000, "ms-first-result")
	masterUsed, workersUsed, stored := m.cpu(), w.cpu(), m.number("events")
	took := m.sweep(crowdPoints)
	b.ReportMetric(float64(m.number("events")-stored), "event-batches")
	b.ReportMetric(crowdPoints/took.Seconds(), "trials/s")
	b.ReportMetric(float64((m.cpu()-masterUsed).Microseconds())/crowdPoints, "master-cpu-us/trial")
	b.ReportMetric(float64((w.cpu()-workersUsed).Microseconds())/crowdPoints, "workers-cpu-us/trial")
	b.ReportMetric(m.peak(), "master-peak-MB")
	b.ReportMetric(w.resident()/float64(n), "MB/worker")
	b.ReportMetric(0, "ns/op")
}

// idle measures what connected workers cost that have nothing to do.
func idle(b *testing.B, m, w *part, n int) {
	beats, masterUsed, workersUsed := m.number("beats"), m.cpu(), w.cpu()
	<-time.After(crowdIdle)
	seconds := crowdIdle.Seconds()
	b.ReportMetric(float64(m.number("beats")-beats)/seconds, "beats/s")
	b.ReportMetric((m.cpu()-masterUsed).Seconds()/seconds*100, "master-idle-%cpu")
	b.ReportMetric((w.cpu()-workersUsed).Seconds()/seconds*100/float64(n), "worker-idle-%cpu")
	m.ask("settle")
	b.ReportMetric(m.resident(), "master-idle-MB")
}

// firstResult is the shortest time from the submission of a single trial to the end of its sweep.
func firstResult(b *testing.B, m *part) time.Duration {
	b.Helper()
	best := m.sweep(1)
	for range 4 {
		best = min(best, m.sweep(1))
	}
	return best
}

// enrol makes a cluster's authority and has all workers join it.
func enrol(b *testing.B, dir string) {
	authority, err := trust.OpenAuthority(filepath.Join(dir, "m", "trust"), nil)
	if err != nil {
		b.Fatal(err)
	}
	token, err := authority.MakeToken(trust.TokenSpec{Role: trust.RoleNode})
	if err != nil {
		b.Fatal(err)
	}
	for i := range crowd {
		join, err := trust.NewJoin(filepath.Join(dir, string(crowdName(i)), "trust"), token, crowdName(i))
		if err != nil {
			b.Fatal(err)
		}
		answer, err := authority.Join(join.Request())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := join.Accept(answer); err != nil {
			b.Fatal(err)
		}
	}
}

// part is a process of the crowd.
type part struct {
	b   *testing.B
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startPart(b *testing.B, name string, args ...string) *part {
	p := &part{b: b, cmd: exec.Command(os.Args[0], args...)}
	p.cmd.Env = append(os.Environ(), partVar+"="+name)
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return p
}

// hear waits for a line of the part.
func (p *part) hear() string {
	p.b.Helper()
	if !p.out.Scan() {
		p.b.Fatalf("the part %s says nothing: %v", p.cmd.Args, p.out.Err())
	}
	return p.out.Text()
}

func (p *part) ask(format string, args ...any) string {
	p.b.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.b.Fatal(err)
	}
	return p.hear()
}

func (p *part) number(format string, args ...any) int64 {
	p.b.Helper()
	n, err := strconv.ParseInt(p.ask(format, args...), 10, 64)
	if err != nil {
		p.b.Fatal(err)
	}
	return n
}

func (p *part) sweep(n int64) time.Duration {
	p.b.Helper()
	return time.Duration(p.number("sweep %d", n))
}

func (p *part) end() {
	p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		p.b.Errorf("part %s: %v", p.cmd.Args, err)
	}
}

func (p *part) cpu() time.Duration { return cpuTime(p.b, p.cmd.Process.Pid) }

// resident is in MB.
func (p *part) resident() float64 { return float64(residentOf(p.b, p.cmd.Process.Pid)) / (1 << 20) }

// peak is the largest resident size so far, in MB: VmHWM of proc_pid_status(5).
func (p *part) peak() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
		p.b.Fatalf("no VmHWM: %v", err)
	}
	return float64(kib) / 1024
}
