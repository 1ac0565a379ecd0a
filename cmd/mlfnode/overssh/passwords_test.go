package overssh

import (
	"fmt"
	"strings"
	"testing"

	"mlfnode/cmd/mlfnode/hosts"
)

// TestPasswords starts a cluster whose hosts take nothing but passwords, two of them behind a third
// that drops connections: the person at the terminal is asked once for each host, and once more
// after a slip.
func TestPasswords(t *testing.T) {
	t.Parallel()
	byPassword := hosts.SSHD{Config: "PubkeyAuthentication no\nMaxStartups 1",
		Users: []hosts.User{{Password: "secret"}}}
	l := newHarness(t, 3, byPassword, byPassword, byPassword)
	config := ""
	for _, h := range l.Hosts[1:3] {
		l.laptop.Network.Partition(h)
		config += fmt.Sprintf("Host %s\n  ProxyJump host1\n", h.Name)
	}
	l.laptop.WriteFile(".ssh/config", config)
	term := l.laptop.OnTerminal(l.laptop.Command("up", "-a", "host1,host2,host3", "-r", "ML", "-m", "1", "-w", "2,3"))
	const question = "password of ada on "
	answers := map[string]int{}
	for asked := range 4 { // host1 is one login, for itself and as the jump host; its first answer is a slip
		hosts.WaitFor(t, hosts.Timeout, func() error {
			if n := strings.Count(term.Screen(), question); n <= asked {
				return fmt.Errorf("asked %d times:\n%s", n, term.Screen())
			}
			return nil
		})
		host := strings.Split(term.Screen(), question)[asked+1][:len("host1")]
		if answers[host]++; host == "host1" && answers[host] == 1 {
			term.Type("a slip")
		} else {
			term.Type("secret")
		}
	}
	code, screen := term.Close(hosts.Timeout)
	if code != 0 {
		t.Fatalf("up: exit code %d\n%s", code, screen)
	}
	if n := strings.Count(screen, question); n != 4 {
		t.Errorf("asked %d times, want 4: once for each host, and once after a slip\n%s", n, screen)
	}
	if n := l.members(); n != 3 {
		t.Errorf("%d nodes are alive, want 3", n)
	}
}
