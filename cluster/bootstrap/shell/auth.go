package shell

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// keysMost is how many keys a machine is offered: sshd counts each among six tries (MaxAuthTries), and one is left for a password.
const keysMost = 5

// passwordTries is how often OpenSSH asks for a password.
const passwordTries = 3

// attempt is one handshake: what was tried to be let in, and what the machine would take.
type attempt struct {
	d     *Dialer
	ctx   context.Context
	route route
	clock *patience

	keys    []offer
	listed  bool // keys is filled
	tried   []string
	taken   []string
	asked   bool
	problem error // the first that a callback met
	file    error // what is wrong with a file of the configuration
}

// offer is a key to try.
type offer struct {
	signer ssh.Signer
	name   string
}

// config gives the handshake its callbacks.
func (a *attempt) config(k *known) *ssh.ClientConfig {
	c := &ssh.ClientConfig{
		User:              a.route.user,
		HostKeyAlgorithms: k.algorithms(),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			return a.slowly(func() error { return a.d.checkHost(a.ctx, a.route, key) })
		},
		AuthCallback: a.next,
	}
	if a.d.options.Prompt != nil {
		c.Auth = append(c.Auth, ssh.RetryableAuthMethod(ssh.PasswordCallback(a.password), passwordTries),
			ssh.RetryableAuthMethod(ssh.KeyboardInteractive(a.answer), passwordTries))
	}
	return c
}

// next offers the keys, one at a time: one that cannot be opened then keeps no other from its turn. After them comes what config
// lists.
func (a *attempt) next(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	a.taken = c.AllowedMethods
	if !slices.Contains(a.taken, "publickey") {
		return nil, nil
	}
	if !a.listed {
		a.listed = true
		a.list()
	}
	n := len(a.tried)
	if n >= len(a.keys) || n >= keysMost {
		return nil, nil
	}
	a.tried = append(a.tried, a.keys[n].name)
	return ssh.PublicKeys(a.keys[n].signer), nil
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
	held := a.d.agentKeys()
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

// add offers a key unless it is there.
func (a *attempt) add(s ssh.Signer, name string) {
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

// password asks for the password of the user.
func (a *attempt) password() (secret string, err error) {
	err = a.slowly(func() error {
		a.asked = true
		answer, err := a.d.options.Prompt.Secret(a.ctx, "password of "+a.route.user+" on "+a.route.String())
		secret = string(answer)
		return err
	})
	return secret, err
}

// answer passes on the questions of the machine.
func (a *attempt) answer(_, instruction string, questions []string, _ []bool) ([]string, error) {
	answers := make([]string, 0, len(questions))
	err := a.slowly(func() error {
		for _, q := range questions {
			a.asked = true
			answer, err := a.d.options.Prompt.Secret(a.ctx, a.route.user+" on "+a.route.String()+", "+instruction+q)
			if err != nil {
				return err
			}
			answers = append(answers, string(answer))
		}
		return nil
	})
	return answers, err
}

// outcome says why a handshake that came to an answer failed.
func (a *attempt) outcome(err error) error {
	switch {
	case a.problem != nil:
		return a.problem
	case strings.Contains(err.Error(), "Too many authentication failures"):
		return tooManyProblem(a.route, a.tried)
	case a.file != nil:
		return a.file
	case a.asked:
		return wrongPasswordProblem(a.route)
	case len(a.taken) == 0:
		return handshakeProblem(a.route, err)
	case !slices.Contains(a.taken, "publickey") && a.d.options.Prompt == nil &&
		(slices.Contains(a.taken, "password") || slices.Contains(a.taken, "keyboard-interactive")):
		return passwordProblem(a.route)
	}
	return keysProblem(a.route, a.tried, len(a.keys)-len(a.tried), a.taken)
}
