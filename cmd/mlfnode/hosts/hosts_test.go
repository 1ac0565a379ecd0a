package hosts

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid/gridtest"
)

// hear makes a host answer UDP and TCP on a port: it echoes what it receives.
func hear(t *testing.T, h *Host) (addr string) {
	t.Helper()
	err := h.Network.RunInside(func() error {
		l, err := net.Listen("tcp", h.Addr+":700")
		if err != nil {
			return err
		}
		packets, err := net.ListenPacket("udp", h.Addr+":700")
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close(); packets.Close() })
		go echoPackets(packets)
		go echoLines(l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return h.Addr + ":700"
}

func echoPackets(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}

func echoLines(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 1500)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				_, _ = c.Write(buf[:n])
			}
		}()
	}
}

// ask sends count messages, one at a time, and returns how many answers came and how long the
// slowest took.
func ask(
	t *testing.T, h *Host, network, addr string, count int, wait time.Duration,
) (answers int, slowest time.Duration) {
	t.Helper()
	c, err := h.Network.Dial(network, addr)
	if err != nil {
		return 0, 0
	}
	defer c.Close()
	buf := make([]byte, 1500)
	for i := range count {
		began := time.Now()
		want := fmt.Sprintf("message %d", i)
		if _, err := c.Write([]byte(want)); err != nil {
			continue
		}
		for {
			_ = c.SetReadDeadline(began.Add(wait)) // an open socket accepts it
			n, err := c.Read(buf)
			if err != nil {
				break
			}
			if string(buf[:n]) == want { // not a second copy of an earlier one
				answers++
				slowest = max(slowest, time.Since(began))
				break
			}
		}
	}
	return answers, slowest
}

func TestHostsHearEachOther(t *testing.T) {
	s := New(t, 3, Options{})
	for i, h := range s.Hosts {
		other := s.Hosts[(i+1)%3]
		addr := hear(t, other)
		for _, network := range []string{"tcp", "udp"} {
			if n, _ := ask(t, h, network, addr, 20, 3*time.Second); n != 20 {
				t.Errorf("%s: %s got %d answers of %s, want 20", network, h.Name, n, other.Name)
			}
		}
	}
	r := s.Hosts[1].Run(s.Hosts[1].Program("/bin/sh", "-c",
		"hostname; getent hosts host3; cat /proc/sys/kernel/random/boot_id; echo $HOME"))
	lines := strings.Split(r.Stdout, "\n")
	if r.Code != 0 || len(lines) < 4 || lines[0] != "host2" || !strings.HasPrefix(lines[1], "10.77.0.3") ||
		lines[3] != s.Hosts[1].Home {
		t.Errorf("got %q, %q", r.Stdout, r.Stderr)
	}
	before := lines[2]
	s.Hosts[1].PowerCut()
	s.Hosts[1].Boot()
	if r := s.Hosts[1].Run(s.Hosts[1].Program("/bin/cat", "/proc/sys/kernel/random/boot_id")); r.Code != 0 ||
		r.Stdout == before+"\n" {
		t.Errorf("the boot id after a power cut is %q, want another one", r.Stdout)
	}
	if n, _ := ask(t, s.Hosts[1], "tcp", s.Hosts[2].Addr+":700", 1, 3*time.Second); n != 1 {
		t.Error("a host that was booted again does not hear the others")
	}
}

func TestPartition(t *testing.T) {
	s := New(t, 3, Options{})
	a, b, c := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	atA, atB := hear(t, a), hear(t, b)
	const soon = 300 * time.Millisecond
	reaches := func(from *Host, to string, want bool) {
		t.Helper()
		if n, _ := ask(t, from, "udp", to, 1, soon); (n == 1) != want {
			t.Errorf("%s to %s: got %d answers, want %v", from.Name, to, n, want)
		}
	}
	reaches(a, atB, true)
	a.Network.Partition(b)
	reaches(a, atB, false)
	reaches(b, atA, false)
	reaches(c, atA, true)
	a.Network.Heal(b)
	reaches(a, atB, true)
	b.Network.Disconnect()
	reaches(a, atB, false)
	b.Network.Reconnect()
	reaches(a, atB, true)
	a.Network.SetConditions(LinkConditions{NoUDP: true})
	reaches(a, atB, false)
	if n, _ := ask(t, a, "tcp", atB, 1, soon); n != 1 {
		t.Error("TCP does not pass where only UDP is blocked")
	}
}

// TestPartitionOneWay cuts one direction: what a sends is lost, what b sends arrives.
func TestPartitionOneWay(t *testing.T) {
	s := New(t, 2, Options{})
	a, b := s.Hosts[0], s.Hosts[1]
	var heard net.PacketConn
	err := a.Network.RunInside(func() (err error) {
		heard, err = net.ListenPacket("udp", a.Addr+":701")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	to, err := b.Network.Dial("udp", a.Addr+":701")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	pass := func() error {
		if _, err := to.Write([]byte("x")); err != nil {
			return err
		}
		_ = heard.SetReadDeadline(time.Now().Add(300 * time.Millisecond)) // an open socket accepts it
		_, _, err := heard.ReadFrom(make([]byte, 8))
		return err
	}
	if err := pass(); err != nil { // the hosts also learn each other's hardware addresses
		t.Fatal(err)
	}
	a.Network.CutTo(b)
	if err := pass(); err != nil {
		t.Errorf("b to a: %v", err)
	}
	b.Network.CutTo(a)
	if err := pass(); err == nil {
		t.Error("what b sends arrives although it is cut")
	}
}

func TestWeather(t *testing.T) {
	s := New(t, 2, Options{})
	a, b := s.Hosts[0], s.Hosts[1]
	addr := hear(t, b)
	ask(t, a, "udp", addr, 1, time.Second)
	a.Network.SetConditions(LinkConditions{Loss: 0.2})
	if n, _ := ask(t, a, "udp", addr, 300, 10*time.Millisecond); n < 200 || n > 280 {
		t.Errorf("with 20 %% loss one way: got %d answers of 300, want about 240", n)
	}
	s.SetLinkConditions(LinkConditions{Delay: 100 * time.Millisecond})
	if n, d := ask(t, a, "tcp", addr, 5, 3*time.Second); n != 5 || d < 200*time.Millisecond ||
		d > 400*time.Millisecond {
		t.Errorf("with 100 ms each way: got %d answers within %v, want 5 within some 200 ms", n, d)
	}
	s.SetLinkConditions(LinkConditions{Duplicate: 1})
	c, err := a.Network.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second)) // an open socket accepts it
	for i := range 4 {                                 // duplicated in both directions
		if _, err := c.Read(make([]byte, 8)); err != nil {
			t.Fatalf("copy %d: %v", i, err)
		}
	}
	s.SetLinkConditions(LinkConditions{})
}

// TestPowerCut checks that a power cut also kills what escaped from its session, and leaves the
// other hosts alone.
func TestPowerCut(t *testing.T) {
	s := New(t, 2, Options{})
	mark := fmt.Sprintf("power-cut-%d", time.Now().UnixNano())
	script := "setsid sh -c 'trap \"\" TERM HUP INT; sleep 300; : " + mark + "' & sleep 300; : " + mark
	for _, h := range s.Hosts {
		h.StartCommand(h.Program("/bin/sh", "-c", script))
		WaitFor(t, Timeout, func() error {
			if n := len(h.Processes.List()); n < 4 {
				return fmt.Errorf("%d processes", n)
			}
			return nil
		})
	}
	s.Hosts[0].PowerCut()
	if n := running(t, mark); n != 2 {
		t.Errorf("got %d processes of the host that is on, want 2", n)
	}
	if left := s.Hosts[0].Processes.List(); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
	s.Hosts[1].PowerCut()
	if n := running(t, mark); n != 0 {
		t.Errorf("got %d processes, want none", n)
	}
}

func running(t *testing.T, mark string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), mark) {
			n++
		}
	}
	return n
}

// TestKilledTestLeavesNothing checks that a killed test leaves no process, no interface and no disk
// behind. It runs itself for that.
func TestKilledTestLeavesNothing(t *testing.T) {
	if mark := os.Getenv("HOSTS_TEST_MARK"); mark != "" {
		s := New(t, 2, Options{Disk: "1m"})
		s.Hosts[0].StartCommand(s.Hosts[0].Program("/bin/sh", "-c", "sleep 300; : "+mark))
		if err := os.WriteFile(os.Getenv("HOSTS_TEST_READY"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	gridtest.Root(t, "test hosts in namespaces")
	mark, ready := fmt.Sprintf("killed-%d", time.Now().UnixNano()), filepath.Join(t.TempDir(), "ready")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledTestLeavesNothing$")
	cmd.Env = append(os.Environ(), "HOSTS_TEST_MARK="+mark, "HOSTS_TEST_READY="+ready, "TMPDIR="+t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	WaitFor(t, Timeout, func() error { _, err := os.Stat(ready); return err })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	WaitFor(t, Timeout, func() error {
		if n := running(t, mark); n > 0 {
			return fmt.Errorf("%d processes are left", n)
		}
		return nil
	})
	removeDeadDisks(t)
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if left := fmt.Sprintf("%s%d ", diskName, cmd.Process.Pid); strings.Contains(string(mounts), left) {
		t.Error("a disk is left")
	}
}

func TestNothingIsLeft(t *testing.T) {
	gridtest.Root(t, "test hosts in namespaces")
	before := leftovers(t)
	t.Run("harness", func(t *testing.T) {
		s := New(t, 3, Options{Disk: "1m"})
		s.Hosts[0].StartCommand(s.Hosts[0].Program("/bin/sleep", "300"))
		s.Hosts[1].PowerCut()
	})
	if after := leftovers(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// leftovers lists what a harness could leave on the machine: interfaces, mounts, and children of
// this test.
func leftovers(t *testing.T) string {
	t.Helper()
	links, err := exec.Command("ip", "-o", "link").Output()
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	// it fails if there is none
	own, _ := exec.Command("pgrep", "-P", fmt.Sprint(os.Getpid()), "-x", "sleep|sh").Output()
	var lines []string
	for line := range strings.Lines(string(mounts)) {
		if strings.HasPrefix(line, fmt.Sprintf("%s%d ", diskName, os.Getpid())) {
			lines = append(lines, line)
		}
	}
	return strings.Join(append(lines, string(links), string(own)), "")
}

// TestTwoHarnesses checks that two harnesses with the same names and addresses are isolated from
// each other.
func TestTwoHarnesses(t *testing.T) {
	a, b := New(t, 2, Options{}), New(t, 2, Options{})
	addr := hear(t, a.Hosts[1])
	if n, _ := ask(t, a.Hosts[0], "tcp", addr, 1, time.Second); n != 1 {
		t.Error("the hosts of one harness do not hear each other")
	}
	if c, err := b.Hosts[0].Network.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, %v, want the other harness's host to refuse", c, err)
	}
}

// TestClockJump checks that the wall clock jumps for the programs of one host, both current and new
// ones, and that no other clock does.
func TestClockJump(t *testing.T) {
	program := filepath.Join(t.TempDir(), "clock")
	source := filepath.Join(t.TempDir(), "clock.go")
	text := `package main
import ("fmt"; "time")
func main() { began := time.Now(); for range 200 { fmt.Println(time.Now().Unix(), time.Since(began) < time.Minute); time.Sleep(50 * time.Millisecond) } }`
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := New(t, 2, Options{Program: program})
	for _, h := range s.Hosts {
		h.Agent.Start()
	}
	shows := func(p *Proc, skew time.Duration) {
		t.Helper()
		WaitFor(t, 5*time.Second, func() error {
			lines := strings.Fields(p.Output())
			if len(lines) < 2 || len(lines)%2 != 0 {
				return errors.New("nothing printed")
			}
			var at int64
			if _, err := fmt.Sscan(lines[len(lines)-2], &at); err != nil {
				return err
			}
			off := time.Since(time.Unix(at, 0)) + skew
			if off < -5*time.Second || off > 5*time.Second || lines[len(lines)-1] != "true" {
				return fmt.Errorf("the clock is off by %v from what it should be; monotonic time is right: %s", off,
					lines[len(lines)-1])
			}
			return nil
		})
	}
	shows(s.Hosts[0].Agent.Proc, 0)
	s.Hosts[0].Clock.SetOffset(time.Hour)
	shows(s.Hosts[0].Agent.Proc, time.Hour)
	shows(s.Hosts[1].Agent.Proc, 0)
	shows(s.Hosts[0].Start(), time.Hour)
	s.Hosts[0].Clock.SetOffset(-time.Hour)
	shows(s.Hosts[0].Agent.Proc, -time.Hour)
	s.Hosts[0].Clock.SetOffset(0)
	shows(s.Hosts[0].Agent.Proc, 0)
}

func TestStopAndContinue(t *testing.T) {
	s := New(t, 1, Options{})
	h := s.Hosts[0]
	p := h.StartCommand(h.Program("/bin/sh", "-c", "while :; do echo x; sleep 0.02; done"))
	p.WaitForOutput("x\nx\n")
	h.Processes.Suspend()
	before := len(p.Output())
	timer := time.NewTimer(300 * time.Millisecond)
	<-timer.C
	if after := len(p.Output()); after > before+2 {
		t.Errorf("a stopped program went from %d bytes to %d", before, after)
	}
	h.Processes.Continue()
	WaitFor(t, Timeout, func() error {
		if len(p.Output()) < before+10 {
			return errors.New("it does not go on")
		}
		return nil
	})
	p.Signal(unix.SIGTERM)
	if code := p.Exit(Timeout); code != -1 {
		t.Errorf("got exit code %d, want an end by signal", code)
	}
}

func TestFillDisk(t *testing.T) {
	s := New(t, 2, Options{Disk: "1m"})
	h := s.Hosts[0]
	write := func() int {
		return h.Run(h.Program("/bin/sh", "-c", "echo text > "+h.StateDir()+"/file && grep -q text "+
			h.StateDir()+"/file")).Code
	}
	h.Disk.Fill()
	if write() == 0 {
		t.Errorf("a full disk takes more: %s", h.Disk.Used())
	}
	h.Disk.Free()
	if code := write(); code != 0 {
		t.Errorf("got exit code %d with room on the disk: %s", code, h.Disk.Used())
	}
	h.PowerCut()
	h.Boot()
	if r := h.Run(h.Program("/bin/cat", h.StateDir()+"/file")); r.Stdout != "text\n" {
		t.Errorf("after a reboot the disk has %q", r.Stdout)
	}
}

// TestPowerCutLosesWhatWasNotSynced checks that a power cut of a real disk loses exactly what no
// program has synced.
func TestPowerCutLosesWhatWasNotSynced(t *testing.T) {
	s := New(t, 2, Options{Disk: "16m", Lossy: true})
	h := s.Hosts[0]
	for range 3 {
		r := h.Run(h.Program("/bin/sh", "-c", "cd "+h.StateDir()+
			" && echo kept > synced && sync synced && sync . && echo gone > other && cat synced other"))
		if r.Stdout != "kept\ngone\n" {
			t.Fatalf("got %q, %q", r.Stdout, r.Stderr)
		}
		h.PowerCut()
		h.Boot()
		r = h.Run(h.Program("/bin/sh", "-c", "cd "+h.StateDir()+" && cat synced other"))
		if r.Stdout != "kept\n" {
			t.Errorf("after a power cut: got %q, want only what was synced", r.Stdout)
		}
	}
	h.Disk.Fill()
	h.Disk.Free()
}
