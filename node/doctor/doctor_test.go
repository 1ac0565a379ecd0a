package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// want checks a finding; a bad one must have a cure.
func want(t *testing.T, got Finding, state State, cause, cure string) {
	t.Helper()
	if got.State != state || !strings.Contains(got.Cause, cause) || !strings.Contains(got.Cure, cure) {
		t.Errorf("got %s: %s: %s; try %s\nwant %s, %q, %q", got.Name, got.State, got.Cause,
			got.Cure, state, cause, cure)
	}
	if (got.State == OK) != (got.Cure == "") {
		t.Errorf("%s is %s, with the cure %q", got.Name, got.State, got.Cure)
	}
}

func TestJudgements(t *testing.T) {
	tests := []struct {
		name  string
		got   Finding
		state State
		cause string
		cure  string
	}{
		{"room", judgeRoom("/s", 50<<30), OK, "50 GiB free for /s", ""},
		{"little room", judgeRoom("/s", 5<<30), Warn, "5.0 GiB", "--state-dir"},
		{"no room", judgeRoom("/s", 1), Bad, "1 B", "make room"},
		{"inodes", judgeInodes("/s", 1e7, 1e6), OK, "1000000 files more", ""},
		{"few inodes", judgeInodes("/s", 1e7, 5e4), Warn, "50000 files", "small files"},
		{"no inodes", judgeInodes("/s", 1e7, 7), Bad, "7 files", "small files"},
		{"endless inodes", judgeInodes("/s", 0, 0), OK, "no limit", ""},
		{"fast disk", judgeSync("/s", time.Millisecond), OK, "takes 1ms", ""},
		{"slow disk", judgeSync("/s", 90*time.Millisecond), Warn, "90ms", "solid-state"},
		{"hopeless disk", judgeSync("/s", time.Second), Bad, "1s", "network file system"},
		{"memory", judgeMemory("MemTotal: 9 kB\nMemAvailable:  2097152 kB\n"), OK, "2.0 GiB available", ""},
		{"little memory", judgeMemory("MemAvailable: 1024 kB\n"), Warn, "1.0 MiB", "ps -eo"},
		{"files", judgeOpenFiles(1<<20, true), OK, "1048576", ""},
		{"endless files", judgeOpenFiles(1<<63, true), OK, "no limit", ""},
		{"few files", judgeOpenFiles(20000, true), Warn, "65536 may be needed", "service install"},
		{"enough for a worker", judgeOpenFiles(20000, false), OK, "20000", ""},
		{"limits", judgeLimits("memory"), OK, "enforced: memory", ""},
		{"no limits", judgeLimits(""), Warn, "no limit of memory", "--run-as USER"},
		{"no systemd", judgeService(Service{}), Warn, "not run by systemd", "says what to do instead"},
		{"no service", judgeService(Service{Systemd: true}), Warn, "is not a service", "mlfnode service install"},
		{"no linger", judgeService(Service{Systemd: true, Installed: true, Active: true, User: true}), Warn,
			"does not linger", "enable-linger"},
		{"dead service", judgeService(Service{Systemd: true, Installed: true}), Bad, "not active", "journalctl"},
		{"service", judgeService(Service{Systemd: true, Installed: true, Active: true}), OK, "active", ""},
		{"name", judgeOwnName("a", []string{"10.0.0.1"}, nil, ""), OK, "a is 10.0.0.1", ""},
		{"loopback name", judgeOwnName("a", []string{"127.0.1.1", "::1"}, nil, ""), Warn,
			"no other host can reach", "advertise"},
		{"nameless", judgeOwnName("a", nil, errors.New("no such host"), ""), Warn, "has no address", "/etc/hosts"},
		{"advertised", judgeOwnName("a", []string{"127.0.1.1"}, nil, "10.0.0.9"), OK, "10.0.0.9", ""},
		{"seed", judgeSeedName("m", []string{"10.0.0.1"}, nil), OK, "m is 10.0.0.1", ""},
		{"no such seed", judgeSeedName("m", nil, &net.DNSError{Err: "no such host", Name: "m", IsNotFound: true}), Bad,
			"has no address", "/etc/hosts"},
		{"silent name server", judgeSeedName("m", nil, &net.DNSError{Err: "i/o timeout", Name: "m", IsTimeout: true}),
			Bad, "could not be looked up: i/o timeout", "/etc/resolv.conf"},
		{"clock", judgeClock(-900 * time.Millisecond), OK, "agrees", ""},
		{"clock ahead", judgeClock(5 * time.Second), Warn, "5s ahead of the master's", "timedatectl"},
		{"clock behind", judgeClock(-time.Hour), Bad, "1h0m0s behind the master's", "chronyd"},
		{"one version", judgeVersions("v1.2.3", "v1.2.3"), OK, "both have v1.2.3", ""},
		{"next version", judgeVersions("v1.2.3", "v1.3.0"), OK, "the master v1.3.0", ""},
		{"far version", judgeVersions("v1.2.3", "v1.4.0"), Bad, "more than one minor version", "install the master's"},
		{"other age", judgeVersions("v1.2.3", "v2.2.3"), Bad, "apart", "update"},
		{"made by hand", judgeVersions("devel", "v1.2.3"), Warn, "can't be compared", "install"},
		{"reached back", judgeDialBack("tcp", "7422", nil), OK, "reaches port 7422", ""},
		{"not tried", judgeDialBack("udp", "7422", ErrSameHost), OK, "not tried", ""},
		{"not reached back", judgeDialBack("tcp", "7422", syscall.ETIMEDOUT), Bad, "timed out", "ufw allow 7422/tcp"},
		{"no datagram back", judgeDialBack("udp", "7422", syscall.ETIMEDOUT), Warn, "does not reach", "--dport 7422"},
		{"no right to listen", Host{}.judgePort(port{"api port", "tcp", 99, "ports.api"}, syscall.EACCES), Bad,
			"may not listen", "from 1024 on"},
		{"foreign address", Host{Bind: "10.1.1.1"}.judgePort(port{}, syscall.EADDRNOTAVAIL), Bad,
			"10.1.1.1 is not an address", "bind:"},
		{"free again", Host{Bind: "127.0.0.1"}.judgePort(port{network: "udp"}, syscall.EADDRINUSE), OK, "free", ""},
		{"not listening", Host{Running: true}.judgePort(port{}, nil), Bad, "does not listen", "log"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { want(t, tt.got, tt.state, tt.cause, tt.cure) })
	}
}

func TestPorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	held := l.Addr().(*net.TCPAddr).Port
	h := Host{Bind: "127.0.0.1", Ports: Ports{Gossip: held, API: held, NATS: held}, Master: true}
	me := fmt.Sprintf("process %d (", os.Getpid())
	found := h.checkPorts()
	if len(found) != 4 {
		t.Fatalf("got %d findings, want those of 4 ports", len(found))
	}
	want(t, found[0], Bad, "held by "+me, "ports.gossip")
	want(t, found[1], OK, "free", "")
	want(t, found[2], Bad, me, "ports.api")
	want(t, found[3], Bad, me, "ports.nats")

	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	h = Host{Bind: "127.0.0.1", Ports: Ports{Gossip: u.LocalAddr().(*net.UDPAddr).Port}}
	want(t, h.checkPorts()[1], Bad, me, "ports.gossip")
}

// TestCheckLeavesPortsFree listens on ports, as a node does when it starts, while they are being
// checked continuously.
func TestCheckLeavesPortsFree(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	number := l.Addr().(*net.TCPAddr).Port
	l.Close()
	for _, bind := range []string{"127.0.0.1", ""} {
		h := Host{Bind: bind}
		stop := make(chan struct{})
		var looking sync.WaitGroup
		for _, network := range []string{"tcp", "udp"} {
			looking.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_ = h.tryPort(port{network: network, number: number}) // the result changes all the time
					}
				}
			})
		}
		for range 1000 {
			address := net.JoinHostPort(bind, strconv.Itoa(number))
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			u, err := net.ListenPacket("udp", address)
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			u.Close()
		}
		close(stop)
		looking.Wait()
	}
	u, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	l, err = net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, bind := range []string{"", "0.0.0.0", "::", "127.0.0.1"} {
		h := Host{Bind: bind}
		for _, p := range []port{{network: "udp", number: u.LocalAddr().(*net.UDPAddr).Port},
			{network: "tcp", number: l.Addr().(*net.TCPAddr).Port}} {
			if err := h.tryPort(p); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%s port that is held, of the address %q: got %v", p.network, bind, err)
			}
		}
	}
	if err := (Host{Bind: "192.0.2.1"}).tryPort(port{network: "tcp"}); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("an address of somebody else: got %v", err)
	}
}

func TestPermissions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	h := Host{StateDir: dir}
	want(t, checkStateFolder(h.StateDir)[0], OK, "will be made", "")
	if err := os.MkdirAll(filepath.Join(dir, "trust"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"node.key": 0o600, "tokens.json": 0o644, "ca.crt": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, "trust", name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	found := checkStateFolder(h.StateDir)
	if len(found) != 2 {
		t.Fatalf("got %+v, want the folder and one secret", found)
	}
	want(t, found[0], OK, dir, "")
	want(t, found[1], Bad, "mode 0644", "chmod 0600 "+filepath.Join(dir, "trust", "tokens.json"))
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want(t, checkStateFolder(h.StateDir)[0], Bad, "mode 0755", "chmod 0700 "+dir)
	if os.Getuid() == 0 {
		if err := os.Chown(dir, 12345, 0); err != nil {
			t.Fatal(err)
		}
		want(t, checkStateFolder(h.StateDir)[0], Bad, "number 12345", "chown -R 0 "+dir)
	}
}

func TestLimitsUnder(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"cgroup.controllers": "cpu memory pids\n", "memory/c/tasks": "",
		"shell/cgroup.type": "domain\n", "shell/cgroup.controllers": "memory\n",
		"shell/cgroup.procs": fmt.Sprintf("1\n%d\n", os.Getpid()),
		"alone/cgroup.type":  "domain\n", "alone/cgroup.controllers": "cpu memory\n",
		"alone/cgroup.procs": fmt.Sprintf("%d\n", os.Getpid()),
		"passed/cgroup.type": "domain\n", "passed/cgroup.controllers": "memory\n",
		"passed/cgroup.subtree_control": "pids memory\n",
		"none/cgroup.type":              "domain\n", "none/cgroup.controllers": "pids\n",
		"none/cgroup.procs": fmt.Sprintf("%d\n", os.Getpid()),
	} {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ cgroups, scopes, want string }{
		{"0::/\n", "", "memory"}, {"0::/alone\n", "", "memory"}, {"0::/passed\n", "", "memory"}, {"0::/none\n", "", ""},
		{"0::/shell\n", "", ""}, {"0::/shell\n", "/", "memory"}, {"0::/shell\n", "/none", ""},
		{"0::/missing\n", "", ""},
		{"5:memory:/c\n0::/none\n", "", "memory"}, {"3:cpu:/c\n", "", ""}, {"", "", ""},
	} {
		if got := limitsUnder(dir, c.cgroups, c.scopes); got != c.want {
			t.Errorf("%q with scopes in %q: got %q, want %q", c.cgroups, c.scopes, got, c.want)
		}
	}
}

// TestCheck examines this host as the worker of a master that answers, and expects one finding of
// each kind.
func TestCheck(t *testing.T) {
	h := serving(t)
	h.StateDir, h.Version, h.Limits, h.Service = t.TempDir(), "v1.2.3",
		"memory", &Service{Systemd: true, Installed: true, Active: true}
	h.AskMaster = func(context.Context) (MasterInfo, error) {
		return MasterInfo{Time: time.Now().Add(-time.Hour), Version: "v1.2.9"}, nil
	}
	h.DialBack = func(_ context.Context, network, _ string) error {
		return map[string]error{"udp": errors.New("silence")}[network]
	}
	got := map[string]State{}
	for _, f := range Check(t.Context(), h) {
		got[f.Name] = f.State
	}
	for name, want := range map[string]State{
		"disk room": got["disk room"], "disk speed": got["disk speed"], "memory": got["memory"],
		"open files": got["open files"], "own name": got["own name"],
		"cgroups": OK, "gpu driver": OK, "service": OK, "seed name": OK, "master's api": OK, "master's nats": OK,
		"master's gossip":      OK,
		"master's gossip, udp": OK, "clock": Bad, "versions": OK, "back from master, tcp": OK,
		"back from master, udp": Warn,
	} {
		if got[name] != want || got[name] == "" {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	h.Seed = "no-such-host.invalid"
	found := Check(t.Context(), h)
	want(t, found[len(found)-1], Bad, "no-such-host.invalid has no address", "/etc/hosts")
}
