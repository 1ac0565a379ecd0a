package shell

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// keysMost is how many keys a machine is offered: sshd counts each among six tries (MaxAuthTries), and one is left for a password.
const keysMost = 5

// attempt is one handshake: what was tried to be let in, and what the machine would take.
type attempt struct {
	d     *Dialer
	ctx   context.Context
	route route
	conn  *countedConn
	clock *patience

	certificates []userCertificate

	keys    []offer
	listed  bool // keys is filled
	tried   []string
	taken   []string
	hostKey string // that the machine has shown
	asked   bool   // a person was, now or for an earlier connection
	sent    int    // the number of the password that was sent and not yet judged, 0 for none
	tries   int    // how often a person's answers were sent
	passed  int    // how many methods the machine was content with, where it wants several
	problem error  // the first that a callback met
	file    error  // what is wrong with a file of the configuration
}

// offer is a key to try.
type offer struct {
	signer ssh.Signer
	name   string
}

// config gives the handshake its callbacks.
func (a *attempt) config(k *known) *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User:              a.route.user,
		HostKeyAlgorithms: k.algorithms(),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			a.hostKey = string(key.Marshal())
			return a.slowly(func() error { return a.d.checkHost(a.ctx, a.route, key) })
		},
		AuthCallback: a.next,
	}
}

// next gives what to try next: the keys, one at a time, so that one that cannot be opened keeps no other from its turn, and after
// them what a person answers.
func (a *attempt) next(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	if a.conn.ended.Load() {
		return nil, io.ErrUnexpectedEOF // nothing was refused
	}
	if n := len(c.PartialSuccessMethods); n > a.passed {
		a.passed, a.tries, a.sent = n, 0, 0
	}
	a.judged()
	a.taken = c.AllowedMethods
	for _, name := range a.route.methods {
		if !slices.Contains(a.taken, name) {
			continue
		}
		if m := a.method(name); m != nil {
			return m, nil
		}
	}
	return nil, nil
}

func (a *attempt) method(name string) ssh.AuthMethod {
	if name == "publickey" {
		return a.nextKey()
	}
	return a.byPerson(name)
}

// nextKey gives the next of the keys, nil after the last.
func (a *attempt) nextKey() ssh.AuthMethod {
	if !a.listed {
		a.listed = true
		a.list()
	}
	n := len(a.tried)
	if n >= len(a.keys) || n >= keysMost {
		return nil
	}
	a.tried = append(a.tried, a.keys[n].name)
	return ssh.PublicKeys(a.keys[n].signer)
}

// slowly runs what may wait for a person: the machine's time does not pass meanwhile.
func (a *attempt) slowly(f func() error) error {
	a.clock.stop()
	defer a.clock.start()
	err := f()
	if err != nil && a.problem == nil {
		a.problem = err
	}
	return err
}

// list finds the keys to offer: those named, those of the agent, those of the default files.
func (a *attempt) list() {
	named, defaults := a.d.keyFiles(a.route)
	var held []ssh.Signer
	if a.route.agent != "" {
		held, _ = askAgent(a, func() ([]ssh.Signer, error) { return a.d.agents.keys(a.route.agent), nil }) // slowly keeps the end of ctx
	}
	for i, s := range held {
		held[i] = askingSigner{Signer: s, attempt: a}
	}
	a.findCertificates(slices.Concat(named, defaults))
	add := func(files []string) {
		for _, path := range files {
			if s := a.fileSigner(path, held); s != nil {
				a.add(s, path)
			}
		}
	}
	add(named)
	if !a.route.only {
		for _, s := range held {
			a.add(s, agentName(s.PublicKey()))
		}
	}
	add(defaults)
}

// add offers a key, after its certificates.
func (a *attempt) add(s ssh.Signer, name string) {
	a.certified(s)
	a.offer(s, name)
}

// offer offers a key unless it is there.
func (a *attempt) offer(s ssh.Signer, name string) {
	if !slices.ContainsFunc(a.keys, func(o offer) bool { return sameKey(o.signer.PublicKey(), s.PublicKey()) }) {
		a.keys = append(a.keys, offer{signer: s, name: name})
	}
}

func sameKey(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

func agentName(key ssh.PublicKey) string {
	if k, ok := key.(*agent.Key); ok && k.Comment != "" {
		return k.Comment + " of the agent"
	}
	return ssh.FingerprintSHA256(key) + " of the agent"
}

// fileSigner gives what signs for a file, nil when it holds no key: with OpenSSH a file that is named in the configuration may be
// missing. A key that the agent has needs no passphrase.
func (a *attempt) fileSigner(path string, held []ssh.Signer) ssh.Signer {
	key := a.d.keys.at(path)
	open := func() (signer ssh.Signer, err error) {
		err = a.slowly(func() error {
			signer, err = key.open(a.ctx)
			return err
		})
		return signer, err
	}
	if key.public == nil && key.err == nil { // of an old format that hides it
		signer, _ := open() // slowly keeps the problem
		return signer
	}
	if key.err == nil {
		for _, s := range held {
			if sameKey(s.PublicKey(), key.public) {
				return s
			}
		}
	}
	if err := cmp.Or(key.err, key.unusable()); err != nil {
		if a.file == nil && !errors.Is(err, os.ErrNotExist) {
			a.file = keyFileProblem(path, err)
		}
		return nil
	}
	return lazySigner{key: key, open: open}
}

// outcome says why a handshake that came to an answer failed.
func (a *attempt) outcome(err error) error {
	a.judged()
	if a.problem != nil {
		return a.problem
	}
	return a.route.beyond.explain(a.refusal(err), a.taken)
}

// refusal says why the machine has let nobody in.
func (a *attempt) refusal(err error) error {
	switch {
	case !a.asked && strings.Contains(err.Error(), "Too many authentication failures"):
		return tooManyProblem(a.route, a.tried)
	case len(a.taken) > 0 && !slices.ContainsFunc(a.taken, func(m string) bool { return slices.Contains(a.route.methods, m) }):
		return methodsProblem(a.route, a.taken)
	case a.file != nil:
		return a.file
	case a.asked:
		return wrongPasswordProblem(a.route)
	case len(a.taken) == 0:
		return handshakeProblem(a.route, err)
	case !(slices.Contains(a.taken, "publickey") && slices.Contains(a.route.methods, "publickey")) && a.d.options.Prompt == nil &&
		(slices.Contains(a.taken, "password") || slices.Contains(a.taken, "keyboard-interactive")):
		return passwordProblem(a.route)
	}
	return keysProblem(a.route, a.tried, len(a.keys)-len(a.tried), a.taken)
}
