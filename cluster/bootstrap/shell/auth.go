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

// maxKeys is how many keys a machine is offered: sshd counts each among six tries (MaxAuthTries),
// and one is left for a password.
const maxKeys = 5

// handshake is one handshake: what was tried to be let in, and what the machine would take.
type handshake struct {
	dialer *Dialer
	ctx    context.Context
	route  route
	conn   *trackedConn
	timer  *handshakeTimer

	keys             *keyOffers // nil until the first key is wanted
	tried            []string   // names of the keys
	answers          userAnswers
	accepted         []string
	hostKey          string // that the machine presented
	partialSuccesses int    // how many of several required methods have succeeded
	callbackErr      error  // the first error of a callback
	keyFileErr       error  // what is wrong with a file of the configuration
}

func newHandshake(ctx context.Context, d *Dialer, r route, conn *trackedConn, timer *handshakeTimer) *handshake {
	h := &handshake{dialer: d, ctx: ctx, route: r, conn: conn, timer: timer}
	h.answers.handshake = h
	return h
}

// keyOffers is the keys to offer a machine, in their order.
type keyOffers struct {
	certificates []userCertificate
	offers       []keyOffer
}

// keyOffer is a key to try.
type keyOffer struct {
	signer ssh.Signer
	name   string
}

// config gives the handshake its callbacks.
func (h *handshake) config(k *knownHosts) *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User:              h.route.user,
		HostKeyAlgorithms: k.algorithms(),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			h.hostKey = string(key.Marshal())
			return h.withoutTimer(func() error { return h.dialer.checkHostKey(h.ctx, h.route, key) })
		},
		AuthCallback: h.nextMethod,
	}
}

// nextMethod returns the next method to try: the keys, one at a time, so that one that can't be
// opened does not block the others, and after them the user's answers.
func (h *handshake) nextMethod(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	if h.conn.ended.Load() {
		return nil, io.ErrUnexpectedEOF // nothing was refused
	}
	if n := len(c.PartialSuccessMethods); n > h.partialSuccesses {
		h.partialSuccesses, h.answers.tries, h.answers.sentPassword = n, 0, 0
	}
	h.answers.recordRefusal()
	h.accepted = c.AllowedMethods
	for _, name := range h.route.methods {
		if !slices.Contains(h.accepted, name) {
			continue
		}
		if m := h.method(name); m != nil {
			return m, nil
		}
	}
	return nil, nil
}

func (h *handshake) method(name string) ssh.AuthMethod {
	if name == "publickey" {
		return h.nextKey()
	}
	return h.answers.method(name)
}

// nextKey returns the next key, or nil after the last.
func (h *handshake) nextKey() ssh.AuthMethod {
	if h.keys == nil {
		h.keys = h.listKeys()
	}
	n := len(h.tried)
	if n >= len(h.keys.offers) || n >= maxKeys {
		return nil
	}
	next := h.keys.offers[n]
	h.tried = append(h.tried, next.name)
	return ssh.PublicKeys(next.signer)
}

// withoutTimer calls f, which may wait for the user, and stops the handshake's timer meanwhile.
func (h *handshake) withoutTimer(f func() error) error {
	h.timer.stop()
	defer h.timer.start()
	err := f()
	if err != nil && h.callbackErr == nil {
		h.callbackErr = err
	}
	return err
}

// listKeys collects the keys to offer: those that are named, those of the agent, those of the
// default files.
func (h *handshake) listKeys() *keyOffers {
	named, defaults := h.dialer.keyFiles(h.route)
	var held []ssh.Signer
	if h.route.agent != "" {
		held, _ = waitForAgent(h, func() ([]ssh.Signer, error) { return h.dialer.agents.keys(h.route.agent), nil }) // withoutTimer records the error
	}
	for i, s := range held {
		held[i] = agentSigner{Signer: s, attempt: h}
	}
	keys := &keyOffers{certificates: findCertificates(h.route.certificates, slices.Concat(named, defaults))}
	add := func(files []string) {
		for _, path := range files {
			if s := h.fileSigner(path, held); s != nil {
				keys.add(s, path)
			}
		}
	}
	add(named)
	if !h.route.identitiesOnly {
		for _, s := range held {
			keys.add(s, agentName(s.PublicKey()))
		}
	}
	add(defaults)
	return keys
}

// add offers a key, after its certificates.
func (k *keyOffers) add(s ssh.Signer, name string) {
	k.addCertified(s)
	k.addOffer(s, name)
}

// addOffer adds a key unless it is already there.
func (k *keyOffers) addOffer(s ssh.Signer, name string) {
	if !slices.ContainsFunc(k.offers, func(o keyOffer) bool { return sameKey(o.signer.PublicKey(), s.PublicKey()) }) {
		k.offers = append(k.offers, keyOffer{signer: s, name: name})
	}
}

func sameKey(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

func agentName(key ssh.PublicKey) string {
	if k, ok := key.(*agent.Key); ok && k.Comment != "" {
		return k.Comment + " of the agent"
	}
	return ssh.FingerprintSHA256(key) + " of the agent"
}

// fileSigner gives what signs for a file, nil when it holds no key: with OpenSSH a file that is
// named in the configuration may be missing. A key that the agent has needs no passphrase.
func (h *handshake) fileSigner(path string, held []ssh.Signer) ssh.Signer {
	key := h.dialer.keys.key(path)
	open := func() (signer ssh.Signer, err error) {
		err = h.withoutTimer(func() error {
			signer, err = key.open(h.ctx)
			return err
		})
		return signer, err
	}
	if key.public == nil && key.err == nil { // of an old format that hides it
		signer, _ := open() // withoutTimer records the error
		return signer
	}
	if key.err == nil {
		for _, s := range held {
			if sameKey(s.PublicKey(), key.public) {
				return s
			}
		}
	}
	if err := cmp.Or(key.err, key.usableErr()); err != nil {
		if h.keyFileErr == nil && !errors.Is(err, os.ErrNotExist) {
			h.keyFileErr = keyFileProblem(path, err)
		}
		return nil
	}
	return lazySigner{key: key, open: open}
}

// explain returns why a handshake that the machine answered failed.
func (h *handshake) explain(err error) error {
	h.answers.recordRefusal()
	if h.callbackErr != nil {
		return h.callbackErr
	}
	return h.route.unsupported.explain(h.explainRefusal(err), h.accepted)
}

// explainRefusal returns why the machine refused the user.
func (h *handshake) explainRefusal(err error) error {
	switch {
	case !h.answers.userAsked && strings.Contains(err.Error(), "Too many authentication failures"):
		return tooManyProblem(h.route, h.tried)
	case len(h.accepted) > 0 && !slices.ContainsFunc(h.accepted, func(m string) bool { return slices.Contains(h.route.methods, m) }):
		return methodsProblem(h.route, h.accepted)
	case h.keyFileErr != nil:
		return h.keyFileErr
	case h.answers.userAsked:
		return wrongPasswordProblem(h.route)
	case len(h.accepted) == 0:
		return handshakeProblem(h.route, err)
	case !(slices.Contains(h.accepted, "publickey") && slices.Contains(h.route.methods, "publickey")) && h.dialer.options.Prompt == nil &&
		(slices.Contains(h.accepted, "password") || slices.Contains(h.accepted, "keyboard-interactive")):
		return passwordProblem(h.route)
	}
	left := 0
	if h.keys != nil {
		left = len(h.keys.offers) - len(h.tried)
	}
	return keysProblem(h.route, h.tried, left, h.accepted)
}
