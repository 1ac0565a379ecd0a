package shell

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxKeys is how many keys a machine is offered: sshd counts each among six tries (MaxAuthTries),
// and one is left for a password.
const maxKeys = 5

// handshake is one handshake: what was tried to authenticate the user, and what the machine
// accepts.
type handshake struct {
	dialer *Dialer
	ctx    context.Context
	route  route
	conn   *trackedConn
	timer  *handshakeTimer

	keys             *keyOffers // nil until the first key is wanted
	answers          userAnswers
	accepted         []string
	hostKey          string // that the machine presented
	partialSuccesses int    // how many of several required methods have succeeded
	callbackErr      error  // the first error of a callback
	keyFileErr       error  // what is wrong with a file of the configuration
}

// keyOffers is the keys to offer a machine, in their order.
type keyOffers struct {
	certificates []userCertificate
	offers       []keyOffer
	tried        []string // names of the first of the offers
}

// userCertificate is what an authority has signed for a key of the user.
type userCertificate struct {
	*ssh.Certificate
	path string
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
		var next ssh.AuthMethod
		if name == "publickey" {
			next = h.nextKey()
		} else {
			next = h.answers.method(name)
		}
		if next != nil {
			return next, nil
		}
	}
	return nil, nil
}

// nextKey returns the next key, or nil after the last.
func (h *handshake) nextKey() ssh.AuthMethod {
	if h.keys == nil {
		h.keys = h.listKeys()
	}
	n := len(h.keys.tried)
	if n >= len(h.keys.offers) || n >= maxKeys {
		return nil
	}
	next := h.keys.offers[n]
	h.keys.tried = append(h.keys.tried, next.name)
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
	var named, defaults []string
	if key := h.dialer.options.Key; key != "" {
		named = append(named, key)
	}
	if named = append(named, h.route.identities...); len(h.route.identities) == 0 {
		for _, name := range defaultKeys {
			defaults = append(defaults, filepath.Join(h.dialer.home, ".ssh", name))
		}
	}
	var held []ssh.Signer
	if h.route.agent != "" {
		list := func() ([]ssh.Signer, error) { return h.dialer.agents.keys(h.route.agent), nil }
		held, _ = waitForAgent(h, list) // withoutTimer records the error
	}
	for i, s := range held {
		held[i] = agentSigner{Signer: s, attempt: h}
	}
	keys, paths := &keyOffers{}, slices.Clone(h.route.certificates)
	for _, file := range slices.Concat(named, defaults) {
		paths = append(paths, file+"-cert.pub")
	}
	for _, path := range paths { // as with OpenSSH, a file that is not a certificate is passed over
		key, err := readPublic(path)
		if cert, ok := key.(*ssh.Certificate); err == nil && ok {
			keys.certificates = append(keys.certificates, userCertificate{cert, path})
		}
	}
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
	for _, c := range k.certificates {
		if !sameKey(c.Key, s.PublicKey()) {
			continue
		}
		if signer, err := ssh.NewCertSigner(c.Certificate, s); err == nil {
			k.addOffer(signer, c.path)
		}
	}
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

// fileSigner returns a signer for the key in a file, or nil if it holds none: as with OpenSSH, a
// file that the configuration names may be missing. A key that the agent has needs no passphrase.
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
	r, keys := h.route, cmp.Or(h.keys, &keyOffers{})
	accepts := func(method string) bool { return slices.Contains(h.accepted, method) }
	allows := func(method string) bool { return slices.Contains(r.methods, method) }
	var reason error
	switch {
	case !h.answers.userAsked && strings.Contains(err.Error(), "Too many authentication failures"):
		reason = problemf("name the right key with -i, or with IdentityFile and IdentitiesOnly yes in ~/.ssh/config",
			"%s allows no more tries to let %s in, tried %s", r, r.user, strings.Join(keys.tried, ", "))
	case len(h.accepted) > 0 && !slices.ContainsFunc(h.accepted, allows):
		reason = methodsProblem(r, h.accepted)
	case h.keyFileErr != nil:
		reason = h.keyFileErr
	case h.answers.userAsked:
		reason = problemf("try again", "%s did not take the password of %s", r, r.user)
	case len(h.accepted) == 0:
		text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "ssh: handshake failed: "), "ssh: ")
		reason = problemf("see what `"+r.command()+"` says", "there is no ssh connection to %s (%s)", r, text)
	case !(accepts("publickey") && allows("publickey")) && h.dialer.options.Prompt == nil &&
		(accepts("password") || accepts("keyboard-interactive")):
		reason = problemf("run this in a terminal, or have the ssh server there take keys",
			"%s lets %s in by password only, and there is no terminal to ask for it", r, r.user)
	default:
		reason = keysProblem(r, keys.tried, len(keys.offers)-len(keys.tried), h.accepted)
	}
	return r.unsupported.explain(reason, h.accepted)
}
