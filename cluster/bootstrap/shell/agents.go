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

// sign waits for the agent, whose request ends at the latest when the dialer closes.
func (s askingSigner) sign(fn func() (*ssh.Signature, error)) (signature *ssh.Signature, err error) {
	type answer struct {
		signature *ssh.Signature
		err       error
	}
	answers := make(chan answer, 1)
	go func() {
		signature, err := fn()
		answers <- answer{signature, err}
	}()
	err = s.attempt.slowly(func() error {
		select {
		case a := <-answers:
			if signature = a.signature; a.err != nil {
				return agentProblem(agentName(s.PublicKey()), a.err)
			}
			return nil
		case <-s.attempt.ctx.Done():
			return context.Cause(s.attempt.ctx)
		}
	})
	return signature, err
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
