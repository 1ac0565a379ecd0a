package shell

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// sshAgents are the agents that hold keys, each with one connection. An agent that is gone counts
// as none.
type sshAgents struct {
	mu       sync.Mutex
	bySocket map[string]agentConnection
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
			err = problemf(
				"confirm it when the agent asks, or touch the security key; ssh-add -l lists the agent's keys",
				"the ssh agent did not sign with the key %s (%s)", agentName(s.PublicKey()),
				strings.TrimPrefix(err.Error(), "agent: "))
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

// close closes the connections to all agents.
func (s *sshAgents) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, held := range s.bySocket {
		_ = held.conn.Close() // nothing was written that could be lost
	}
}
