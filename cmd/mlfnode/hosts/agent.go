package hosts

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"time"
)

// Agent is the node agent of a host, and what it reports about other nodes.
type Agent struct {
	*Proc // nil until the agent is started, and after a power cut

	host *Host
}

// Start starts the host's node agent.
func (a *Agent) Start(args ...string) *Proc {
	a.host.harness.t.Helper()
	return a.StartCommand(a.host.Command(args...))
}

// StartCommand starts a command that is the host's node agent.
func (a *Agent) StartCommand(cmd *exec.Cmd) *Proc {
	a.host.harness.t.Helper()
	a.Proc = a.host.StartCommand(cmd)
	return a.Proc
}

// Member is what one node reports about another, in the form that `mlfnode members --json` prints.
type Member struct {
	Node        string   `json:"node"`
	State       string   `json:"state"` // alive, suspect, dead or left
	Address     string   `json:"address"`
	Version     string   `json:"version"`
	Roles       []string `json:"roles"`
	CPUs        float64  `json:"cpus"`
	Memory      int64    `json:"memory_bytes"`
	Running     int      `json:"running"`
	Drained     bool     `json:"drained"`
	Quarantined bool     `json:"quarantined"`
	Reason      string   `json:"reason"`
}

// Members returns the members that the host's node reports.
func (a *Agent) Members() ([]Member, error) {
	r := a.host.Try("members", "--json")
	if r.Code != 0 {
		return nil, fmt.Errorf("%s: mlfnode members: exit code %d: %s", a.host.Name, r.Code, tail(r.Stderr))
	}
	var all []Member
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil {
		return nil, fmt.Errorf("%s: mlfnode members: %w:\n%s", a.host.Name, err, tail(r.Stdout))
	}
	return all, nil
}

// StateOf returns the state that the host's node reports for another one, or "" if it does not know
// it.
func (a *Agent) StateOf(of string) (string, error) {
	all, err := a.Members()
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(all, func(m Member) bool { return m.Node == of })
	if i < 0 {
		return "", nil
	}
	return all[i].State, nil
}

// WaitForState waits until the host's node reports another one to be in this state.
func (a *Agent) WaitForState(of, want string, limit time.Duration) {
	a.host.harness.t.Helper()
	WaitFor(a.host.harness.t, limit, func() error {
		got, err := a.StateOf(of)
		if err == nil && got != want {
			err = fmt.Errorf("%s says that %s is %q, want %q", a.host.Name, of, got, want)
		}
		return err
	})
}

// waitForMembers waits until the host's node reports n nodes as alive.
func (a *Agent) waitForMembers(n int) {
	a.host.harness.t.Helper()
	WaitFor(a.host.harness.t, Timeout, func() error {
		if a.Proc != nil {
			select {
			case <-a.Ended():
				a.host.harness.t.Fatalf("%s: the node has ended:\n%s", a.host.Name, tail(a.Output()))
			default:
			}
		}
		all, err := a.Members()
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(m Member) bool { return m.State != "alive" })
		if len(all) != n {
			return fmt.Errorf("%s: %d nodes are alive, want %d", a.host.Name, len(all), n)
		}
		return nil
	})
}
