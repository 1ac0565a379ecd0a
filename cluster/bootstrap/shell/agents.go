package shell

import (
	"context"
	"io"
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

// keys lists the keys of the agent at a socket. An agent that asks a person answers nobody else meanwhile, so this may take long.
func (a *agents) keys(socket string) []ssh.Signer {
	held, err := a.at(socket)
	if err != nil {
		return nil
	}
	signers, err := held.Signers()
	if err != nil {
		return nil
	}
	return signers
}

// at gives the agent at a socket.
func (a *agents) at(socket string) (agent.Agent, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	held, ok := a.each[socket]
	if !ok {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return nil, err
		}
		held = heldAgent{conn: conn, keys: agent.NewClient(conn)}
		a.each[socket] = held
	}
	return held.keys, nil
}

// askingSigner is a key of an agent, which may ask a person before it signs.
type askingSigner struct {
	ssh.Signer
	attempt *attempt
}

var _ ssh.AlgorithmSigner = askingSigner{}

// Sign implements ssh.Signer.
func (s askingSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.sign(func() (*ssh.Signature, error) { return s.Signer.Sign(rand, data) })
}

// SignWithAlgorithm implements ssh.AlgorithmSigner.
func (s askingSigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	with, ok := s.Signer.(ssh.AlgorithmSigner)
	if !ok {
		return s.Sign(rand, data)
	}
	return s.sign(func() (*ssh.Signature, error) { return with.SignWithAlgorithm(rand, data, algorithm) })
}

func (s askingSigner) sign(fn func() (*ssh.Signature, error)) (signature *ssh.Signature, err error) {
	return askAgent(s.attempt, func() (*ssh.Signature, error) {
		signature, err := fn()
		if err != nil {
			err = agentProblem(agentName(s.PublicKey()), err)
		}
		return signature, err
	})
}

// askAgent waits for an agent, whose request ends at the latest when the dialer closes.
func askAgent[T any](a *attempt, request func() (T, error)) (answer T, err error) {
	type reply struct {
		answer T
		err    error
	}
	replies := make(chan reply, 1)
	go func() {
		answer, err := request()
		replies <- reply{answer, err}
	}()
	err = a.slowly(func() error {
		select {
		case r := <-replies:
			answer = r.answer
			return r.err
		case <-a.ctx.Done():
			return context.Cause(a.ctx)
		}
	})
	return answer, err
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
