package shell

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"mlfnode/grid/gridtest"
)

// A ProxyCommand gives the connection, where it comes before a ProxyJump, and ends with it.
func TestProxyCommand(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, "inner "+authorized(s.hosts["ed25519"]))
	script := filepath.Join(s.dir, "proxy")
	write(t, script, fmt.Sprintf("echo $$ \"$@\" >> %s/ran\nexec %s -F none -i %s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p %d -W 127.0.0.1:$2 root@127.0.0.1\n",
		s.dir, gridtest.Program(t, "ssh"), s.key, s.port))
	config := filepath.Join(t.TempDir(), "config")
	write(t, config,
		fmt.Sprintf(
			"Host gpu1\nProxyCommand none\nHost gpu*\nProxyCommand sh %s %%h %%p %%r %%n 100%%%%\nProxyJump nowhere.invalid\n"+
				"HostName inside\nPort %d\nHostKeyAlias inner\n", script, s.port))
	d := dialer(t, Options{ConfigFile: config, KnownHosts: known, Key: s.key})
	c := open(t, d, Target{User: "root", Host: "gpu2"})
	if got, err := Output(limited(t), c, "echo hello", nil); got != "hello\n" {
		t.Errorf("output = %q, %v; want hello", got, err)
	}
	ran, err := os.ReadFile(filepath.Join(s.dir, "ran"))
	pid, args, _ := strings.Cut(strings.TrimSpace(string(ran)), " ")
	if want := fmt.Sprintf("inside %d root gpu2 100%%", s.port); args != want {
		t.Errorf("the command was given %q, %v; want %q", args, err, want)
	}
	closing(t, c)
	if n, err := strconv.Atoi(pid); err != nil || syscall.Kill(n, 0) == nil {
		t.Errorf("the command %s runs after Close: %v", pid, err)
	}
	if _, err := d.Dial(limited(t), Target{Host: "gpu1"}); err == nil ||
		!strings.Contains(err.Error(), "the name inside") {
		t.Errorf("with ProxyCommand none before it: %v; want that inside is not found", err)
	}
}
