package overssh

import (
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
)

// TestInterruptedQuestion presses Ctrl-C where a secret is asked for: that ends the command, and
// the terminal shows what is typed again.
func TestInterruptedQuestion(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 1, hosts.SSHD{Config: "PubkeyAuthentication no", Users: []hosts.User{{Password: "secret"}}})
	for command, question := range map[string]string{
		"mlfnode up -a host1 -r ML -m 1": "password of ada on host1: ",
		"mlfnode join --seed host1":      "token: ",
	} {
		cmd := l.laptop.Program("/bin/sh", "-c",
			"trap : INT; "+command+"; echo \"ended with $?\"; read line; echo \"read $line\"")
		term := l.laptop.OnTerminal(cmd)
		term.Expect(question)
		began := time.Now()
		term.Press("\x03")
		term.Expect("ended with 130")
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s ended %v after Ctrl-C", command, took)
		}
		term.Type("shown")
		term.Expect("shown\nread shown")
		term.Close(hosts.Timeout)
	}
}
