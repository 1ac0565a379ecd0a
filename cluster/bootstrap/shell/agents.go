package shell

import (
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// agents are the agents that hold keys, each connected to once. One that is gone is as good as none.
type agents struct {
	mu   sync.Mutex
	each map[string]heldAgent // by socket
}

type heldAgent struct {
	conn net.Conn
	keys agent.Agent
}

// keys lists the keys of the agent at a socket.
func (a *agents) keys(socket string) []ssh.Signer {
	if socket == "" {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	held, ok := a.each[socket]
	if !ok {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return nil
		}
		held = heldAgent{conn: conn, keys: agent.NewClient(conn)}
		a.each[socket] = held
	}
	signers, err := held.keys.Signers()
	if err != nil {
		return nil
	}
	return signers
}

// close gives up all of them.
func (a *agents) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, held := range a.each {
		_ = held.conn.Close() // nothing was written that could be lost
	}
}

// agentSocket is where the agent for a machine listens, "" for none. See IdentityAgent in ssh_config(5).
func (d *Dialer) agentSocket(configured string, r route) string {
	name, variable := strings.CutPrefix(configured, "$")
	switch {
	case configured == "", configured == "SSH_AUTH_SOCK":
		return os.Getenv("SSH_AUTH_SOCK")
	case strings.EqualFold(configured, "none"):
		return ""
	case variable:
		return os.Getenv(strings.TrimSuffix(strings.TrimPrefix(name, "{"), "}"))
	}
	return d.expand(configured, r)
}
