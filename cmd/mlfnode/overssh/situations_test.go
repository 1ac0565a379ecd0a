package overssh

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/cmd/mlfnode/hosts"
)

// situation is one kind of host that up meets, and what comes of it.
type situation struct {
	name    string
	how     hosts.SSHD
	arrange func(l *harness, h *hosts.Host) // after the servers run and the laptop knows them
	address string                          // how the host is named in -a; default its name
	cause   string                          // exactly; HOST is its name, HOME its user's home; "" comes up
	cure    string
}

func user(u hosts.User) hosts.SSHD { return hosts.SSHD{Users: []hosts.User{u}} }

var situations = []situation{
	{name: "bash, the master"},
	{name: "dash", how: user(hosts.User{Shell: "/bin/dash"})},
	{name: "a shell that prints a banner",
		how: user(hosts.User{ShellScript: "#!/bin/sh\necho '*** Welcome to the lab ***'\nexec /bin/bash \"$@\"\n"})},
	{name: "a startup file that prints", how: user(hosts.User{StartUp: "echo loading modules\necho careful >&2\n"})},
	{name: "root", address: "root@HOST"},
	{name: "sudo without a password", how: user(hosts.User{Sudo: hosts.SudoFreely})},
	{name: "no sudo at all", how: hosts.SSHD{NoSudo: true}},
	{name: "an rsa key alone", how: hosts.SSHD{HostKeys: []string{"rsa"}}},
	{name: "an ecdsa key, another port", how: hosts.SSHD{HostKeys: []string{"ecdsa"}, Port: 2222},
		address: "HOST:2222"},
	{name: "MaxStartups 2", how: hosts.SSHD{Config: "MaxStartups 2"}},
	{name: "no gzip, no tar", how: hosts.SSHD{Missing: []string{"gzip", "tar"}}},
	{name: "behind a jump host", arrange: func(l *harness, h *hosts.Host) {
		l.laptop.Network.Partition(h)
		l.laptop.WriteFile(".ssh/config", fmt.Sprintf("Host %s\n  ProxyJump host2\n", h.Name))
	}},
	{name: "a read-only home", how: user(hosts.User{HomeMount: "ro"}),
		cause: "ada can't write to HOME: Read-only file system",
		cure:  "make the folder writable, or choose another one below the home folder with -r"},
	{name: "a full disk", how: user(hosts.User{HomeSize: "1m", HomeFull: true}),
		cause: "the disk of HOME is full",
		cure:  "make room on it (df -h HOME), or choose a folder on another one with -r"},
	{name: "a small disk", how: user(hosts.User{HomeSize: "20m"}),
		cause: "only 20 MiB are free on the disk of HOME, and a node needs 512 MiB",
		cure:  "make room on it (df -h HOME), or choose a folder on another one with -r"},
	{name: "a home in which nothing may run", how: user(hosts.User{HomeMount: "noexec"}),
		cause: "nothing in HOME/mlfnode can be run, as if its disk were mounted with noexec",
		cure:  "choose a folder on another disk with -r"},
	{name: "no login shell", how: user(hosts.User{Shell: "/usr/sbin/nologin"}),
		cause: "the login shell of ada on HOST runs no programs, it said \"This account is currently not available.\"",
		cure:  "give the user a shell there, as with `chsh -s /bin/sh ada`"},
	{name: "a wrong key", how: user(hosts.User{Keys: []string{}}),
		cause: "HOST lets ada in with none of the keys here, tried LAPTOP/.ssh/id_ed25519; it takes publickey",
		cure:  "run `ssh-copy-id ada@HOST` once, or name the key with -i or an IdentityFile in ~/.ssh/config"},
	{name: "a changed host key", arrange: func(_ *harness, h *hosts.Host) { h.SSH.ReplaceHostKeys() },
		cause: "the host key of HOST is not the known one: it shows ssh-ed25519 …",
		cure:  "if it was reinstalled, forget the old key with `ssh-keygen -R 'HOST' -f 'LAPTOP/.ssh/known_hosts'` and try again"},
	{name: "password only", how: hosts.SSHD{Config: "PubkeyAuthentication no",
		Users: []hosts.User{{Password: "secret"}}},
		cause: "HOST lets ada in by password only, and there is no terminal to ask for it",
		cure:  "run this in a terminal, or have the ssh server there take keys"},
	{name: "no ssh server", arrange: func(_ *harness, h *hosts.Host) { h.SSH.Stop() },
		cause: "HOST refuses connections on port 22",
		cure:  "start the ssh server there, or give the right port"},
	{name: "no such host", address: "nosuch",
		cause: "the name nosuch could not be looked up (…",
		cure:  "check the network and its name server"},
	{name: "another processor", how: hosts.SSHD{Machine: "aarch64"},
		cause: "there is no mlfnode here for arm64",
		cure:  "put mlfnode-linux-arm64 beside …"},
	{name: "an unknown processor", how: hosts.SSHD{Machine: "riscv64"},
		cause: "its processor is riscv64, and there are programs for x86_64 and aarch64 only",
		cure:  "leave it out of -a"},
	{name: "a Mac", how: hosts.SSHD{System: "Darwin"},
		cause: "it runs Darwin, and nodes need Linux",
		cure:  "leave it out of -a; commands work there with: mlfnode token use"},
	{name: "a wrong clock", how: hosts.SSHD{Ahead: 7200e9},
		cause: "its clock is 2h0m0s ahead of this machine's",
		cure:  "set it, as with: sudo timedatectl set-ntp true"},
	{name: "a port that is taken", arrange: func(_ *harness, h *hosts.Host) { h.Network.OccupyPort(7422) },
		cause: "port 7422/tcp is held by another program",
		cure:  "end that program, or set ports.gossip under settings in cluster.yaml"},
	{name: "a server that says nothing",
		arrange: func(_ *harness, h *hosts.Host) { h.SSH.Stop(); h.Network.OccupyPort(22) },
		cause:   "HOST took the connection and then said nothing for 10s",
		cure:    "check that port 22 is an ssh server and that the machine is not overloaded"},
	{name: "an unknown host key", arrange: func(l *harness, h *hosts.Host) { l.forget(h) },
		cause: "the host key of HOST is not known, and there is no terminal to ask whether ssh-ed25519 …",
		cure:  "run `ssh ada@HOST` once and compare the fingerprint, or add --accept-new to trust machines that are new"},
	{name: "no way to the master's NATS port",
		arrange: func(l *harness, h *hosts.Host) { h.Network.Block(l.Hosts[0], "tcp", 7421) },
		cause:   "this machine can't reach the master's port 7421/tcp at host1 (timed out)",
		cure:    "open the port in the master's firewall, as with: sudo ufw allow 7421/tcp; or check that host1 is an address that this machine reaches"},
	{name: "no way to the master at all", arrange: func(l *harness, h *hosts.Host) { h.Network.Partition(l.Hosts[0]) },
		cause: "this machine can't reach the master's port 7420/tcp at host1 (timed out)",
		cure:  "open the port in the master's firewall, as with: sudo ufw allow 7420/tcp; or check that host1 is an address that this machine reaches"},
	{name: "no way back from the master", arrange: func(l *harness, h *hosts.Host) {
		l.Hosts[0].Network.Block(h, "tcp", 7422)
		l.Hosts[0].Network.Block(h, "udp", 7422)
	}, cause: "the master can't reach this machine's port 7422/tcp at ADDR (timed out)",
		cure: "open the port for TCP and UDP in this machine's firewall, as with: sudo ufw allow 7422"},
}

// outcome is what up --json says of a host.
type outcome struct {
	Host    string
	OK      bool
	Problem struct{ Cause, Cure string }
}

// fits compares a text with an expected one, of which … stands for the rest: names of temporary
// files, fingerprints.
func fits(got, want string) bool {
	if begin, ok := strings.CutSuffix(want, "…"); ok {
		return strings.HasPrefix(got, begin)
	}
	return got == want
}

// forget takes a host's key out of the laptop's known_hosts.
func (hs *harness) forget(h *hosts.Host) {
	hs.t.Helper()
	file := filepath.Join(hs.laptop.Accounts.Home(hosts.DefaultUser), ".ssh", "known_hosts")
	b, err := os.ReadFile(file)
	if err != nil {
		hs.t.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, h.Name+" ") && !strings.HasPrefix(line, h.Name+",") {
			kept.WriteString(line)
		}
	}
	hs.laptop.WriteFile(".ssh/known_hosts", kept.String())
}

// TestSituations meets all of them in one cluster: each has its own outcome, and none stops the
// others.
func TestSituations(t *testing.T) {
	t.Parallel()
	var how []hosts.SSHD
	for _, s := range situations {
		how = append(how, s.how)
	}
	l := newHarness(t, len(how), how...)
	var addresses, workers []string
	for i, s := range situations {
		h := l.Hosts[i]
		if s.arrange != nil {
			s.arrange(l, h)
		}
		address := strings.ReplaceAll(s.address, "HOST", h.Name)
		if address == "" {
			address = h.Name
		}
		if addresses = append(addresses, address); i > 0 {
			workers = append(workers, fmt.Sprint(i+1))
		}
	}
	r := l.laptop.Try("up", "--json", "-a", strings.Join(addresses, ","), "-m", "1", "-w", strings.Join(workers, ","))
	if r.Code != 1 {
		t.Errorf("exit code %d, want 1\n%s", r.Code, r.Stderr)
	}
	var all struct{ Hosts []outcome }
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil {
		t.Fatalf("%v:\n%s%s", err, r.Stdout, r.Stderr)
	}
	for i, s := range situations {
		o, h := all.Hosts[i], l.Hosts[i]
		place := strings.NewReplacer("HOST", h.Name, "ADDR", h.Addr, "MASTER", l.Hosts[0].Addr,
			"HOME", h.Accounts.Home(hosts.DefaultUser), "LAPTOP", l.laptop.Accounts.Home(hosts.DefaultUser))
		cause, cure := place.Replace(s.cause), place.Replace(s.cure)
		if !fits(o.Problem.Cause, cause) || !fits(o.Problem.Cure, cure) || o.OK != (s.cause == "") {
			t.Errorf("%s:\n got  %q\n      %q\n want %q\n      %q", s.name, o.Problem.Cause,
				o.Problem.Cure, cause, cure)
		}
	}
}
