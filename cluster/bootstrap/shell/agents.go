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

// sshAgents are the agents that hold keys, each connected to once. One that is gone is as good as
// none.
type sshAgents struct {
	mu       sync.Mutex
	bySocket map[string]agentConnection // by socket
}

type agentConnection struct {
	conn net.Conn
	keys agent.Agent
}

// keys lists the keys of the agent at a socket. An agent that asks a person answers nobody else
// meanwhile, so this may take long.
func (s *sshAgents) keys(socket string) []ssh.Signer {
	held, err := s.connect(socket)
	if err != nil {
		return nil
	}
	signers, err := held.Signers()
	if err != nil {
		return nil
	}
	return signers
}

// connect returns the agent at a socket.
func (s *sshAgents) connect(socket string) (agent.Agent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.bySocket[socket]
	if !ok {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return nil, err
		}
		held = agentConnection{conn: conn, keys: agent.NewClient(conn)}
		s.bySocket[socket] = held
	}
	return held.keys, nil
}

// agentSigner is a key of an agent, which may ask a person before it signs.
type agentSigner struct {
	ssh.Signer
	attempt *handshake
}

var _ ssh.AlgorithmSigner = agentSigner{}

// Sign implements ssh.Signer.
func (s agentSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.sign(func() (*ssh.Signature, error) { return s.Signer.Sign(rand, data) })
}

// SignWithAlgorithm implements ssh.AlgorithmSigner.
func (s agentSigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	with, ok := s.Signer.(ssh.AlgorithmSigner)
	if !ok {
		return s.Sign(rand, data)
	}
	return s.sign(func() (*ssh.Signature, error) { return with.SignWithAlgorithm(rand, data, algorithm) })
}

func (s agentSigner) sign(fn func() (*ssh.Signature, error)) (signature *ssh.Signature, err error) {
	return waitForAgent(s.attempt, func() (*ssh.Signature, error) {
		signature, err := fn()
		if err != nil {
			err = agentProblem(agentName(s.PublicKey()), err)
		}
		return signature, err
	})
}

// waitForAgent waits for an agent's answer. The request ends at the latest when the dialer closes.
func waitForAgent[T any](a *handshake, request func() (T, error)) (answer T, err error) {
	type reply struct {
		answer T
		err    error
	}
	replies := make(chan reply, 1)
	go func() {
		answer, err := request()
		replies <- reply{answer, err}
	}()
	err = a.withoutTimer(func() error {
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
func (s *sshAgents) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, held := range s.bySocket {
		_ = held.conn.Close() // nothing was written that could be lost
	}
}

// agentSocket is where the agent for a machine listens, "" for none. See IdentityAgent in
// ssh_config(5).
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
