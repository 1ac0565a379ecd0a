package bootstrap

import (
	"strings"
	"testing"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
)

// TestFormerCommand asks a machine with an mlfnode that knows the command by its former name only.
func TestFormerCommand(t *testing.T) {
	m := &machine{Host: &Host{Name: "a"}, facts: &Facts{Layout: protocol.Layout{Root: "/home/a/mlfnode"}}}
	m.shell = fakeMachine(func(program, stdin string) (string, error) {
		if !strings.Contains(program, " "+protocol.FormerCommand+" "+protocol.ActionInspect) {
			return "", &shell.ExitError{Code: exitNoSuchCommand, Stderr: `there is no command "provision"`}
		}
		if !strings.Contains(stdin, `"root":"/home/a/mlfnode"`) {
			t.Errorf("the older mlfnode reads %q, want the order", stdin)
		}
		return `{"version":1,"seen":{"node":"a"}}`, nil
	})
	if _, err := m.call(t.Context(), protocol.ActionInspect, protocol.Request{}, nil); err != nil ||
		m.observed.Node != "a" {
		t.Errorf("got %v, %+v, want what the older mlfnode reports", err, m.observed)
	}
}
