package servicetest_test

import (
	"fmt"
	"strings"
	"testing"

	"mlfnode/node/service/servicetest"
)

func TestMachine(t *testing.T) {
	m := servicetest.Boot(t)
	if got := m.Run("cat /proc/1/comm"); got != "systemd" {
		t.Errorf("got init %q, want systemd", got)
	}
	if failed := m.Run("systemctl --failed --no-legend --plain"); failed != "" {
		t.Errorf("got failed units\n%s", failed)
	}
	m.Copy("machine_test.go", "/root/sub/file")
	if got := m.Run("head -n 1 /root/sub/file"); !strings.HasPrefix(got, "package servicetest_test") {
		t.Errorf("got first line %q", got)
	}
	if out, err := m.Try("echo why; exit 3"); err == nil || out != "why" {
		t.Errorf("got %q, %v, want the output and an exit status", out, err)
	}
	m.Shutdown()
}

func TestLink(t *testing.T) {
	a, b := servicetest.Boot(t), servicetest.Boot(t)
	servicetest.Link(t, a, b)
	const ask = `bash -c 'exec 3<>/dev/tcp/%s/1' 2>&1`
	for i, m := range []*servicetest.Machine{b, a} {
		out, err := m.Try(fmt.Sprintf(ask, servicetest.Address(i+1)))
		if err == nil || !strings.Contains(out, "refused") {
			t.Errorf("got %v, %s; want to be refused by the other machine", err, out)
		}
	}
}
