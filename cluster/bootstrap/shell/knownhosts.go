package shell

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// knownHosts is what the files of known hosts say about one machine.
type knownHosts struct {
	keys        []knownhosts.KnownKey // its own
	otherPorts  []knownhosts.KnownKey // of the same host, without a port
	authorities []knownhosts.KnownKey // may sign its keys
	revoked     []knownhosts.KnownKey // of any machine
}

// loadKnownHosts reads the files that are there.
func loadKnownHosts(r route) (*knownHosts, error) {
	lines, err := readLines(r.knownHostsFiles)
	if err != nil {
		return nil, unreadableProblem(err)
	}
	k, name := &knownHosts{}, knownhosts.Normalize(r.knownHostsName())
	for _, l := range lines {
		switch {
		case l.marker == "revoked":
			k.revoked = append(k.revoked, l.KnownKey)
		case l.marker == "" && l.appliesTo(name):
			k.keys = append(k.keys, l.KnownKey)
		case l.marker == "cert-authority" && (l.appliesTo(name) || r.alias == "" && l.appliesTo(r.host)):
			k.authorities = append(k.authorities, l.KnownKey)
		case l.marker == "" && r.alias == "" && l.appliesTo(r.host):
			k.otherPorts = append(k.otherPorts, l.KnownKey)
		}
	}
	return k, nil
}

// find looks for a key in lines.
func find(lines []knownhosts.KnownKey, key ssh.PublicKey) (knownhosts.KnownKey, bool) {
	i := slices.IndexFunc(lines, func(l knownhosts.KnownKey) bool { return sameKey(l.Key, key) })
	if i < 0 {
		return knownhosts.KnownKey{}, false
	}
	return lines[i], true
}

// algorithms puts those first that the machine is known by: it then shows a key that can be
// compared. A machine known by one kind of key that shows another kind would look changed.
func (k *knownHosts) algorithms() []string {
	var first []string
	if len(k.authorities) > 0 {
		first = certificateAlgorithms()
	}
	for _, line := range slices.Concat(k.keys, k.otherPorts) {
		if t := line.Key.Type(); t == ssh.KeyAlgoRSA {
			first = append(first, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA)
		} else {
			first = append(first, t)
		}
	}
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		// A certificate of an authority that is not known could not be checked, the plain key can.
		if !slices.Contains(first, a) && !strings.Contains(a, "-cert-") {
			first = append(first, a)
		}
	}
	return first
}

func certificateAlgorithms() []string {
	all := ssh.SupportedAlgorithms().HostKeys
	return slices.DeleteFunc(all, func(a string) bool { return !strings.Contains(a, "-cert-") })
}

// checkHostKey is asked for each machine whether its key is the right one. One at a time, so that a
// machine that is reached twice dialTransport once is asked about once.
func (d *Dialer) checkHostKey(ctx context.Context, r route, key ssh.PublicKey) error {
	d.hostKeyMu.Lock()
	defer d.hostKeyMu.Unlock()
	k, err := loadKnownHosts(r)
	if err != nil {
		return err
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		if _, signed := find(k.authorities, cert.SignatureKey); signed {
			return k.checkCertificate(r, cert)
		}
		key = cert.Key // signed by somebody unknown it is as good as a plain one
	}
	if line, ok := find(k.revoked, key); ok {
		return revokedProblem(r, key, line)
	}
	if _, ok := find(k.keys, key); ok {
		return nil
	}
	if len(k.keys) > 0 {
		return changedProblem(r, key, k.keys)
	}
	if _, ok := find(k.otherPorts, key); ok {
		return nil // as with OpenSSH; another key at another port is not a changed key
	}
	if err := d.acceptHostKey(ctx, r, key); err != nil {
		return err
	}
	return addKnownHost(r, key)
}

// checkCertificate checks what a known authority has signed.
func (k *knownHosts) checkCertificate(r route, cert *ssh.Certificate) error {
	for _, key := range []ssh.PublicKey{cert.Key, cert.SignatureKey} {
		if line, ok := find(k.revoked, key); ok {
			return revokedProblem(r, key, line)
		}
	}
	checker := ssh.CertChecker{IsHostAuthority: func(key ssh.PublicKey, _ string) bool {
		_, ok := find(k.authorities, key)
		return ok
	}}
	if err := checker.CheckHostKey(r.knownHostsName(), noAddr{}, cert); err != nil {
		return certificateProblem(r, err)
	}
	return nil
}

// acceptHostKey decides about a machine that was never seen.
func (d *Dialer) acceptHostKey(ctx context.Context, r route, key ssh.PublicKey) error {
	if r.acceptNew {
		return nil
	}
	if d.options.Prompt == nil {
		return unknownProblem(r, key)
	}
	yes, err := d.options.Prompt.Confirm(ctx, fmt.Sprintf("%s was never seen before. Its host key is %s. Connect and remember it?",
		r, fingerprint(key)))
	if err == nil && !yes {
		err = refusedProblem(r, key)
	}
	return err
}

// addKnownHost appends a key to the first file of known hosts.
func addKnownHost(r route, key ssh.PublicKey) error {
	file := r.knownHostsFiles[0]
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return rememberProblem(file, err)
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return rememberProblem(file, err)
	}
	line := knownhosts.Line([]string{knownhosts.Normalize(r.knownHostsName())}, key) + "\n"
	if !endsInNewline(f) {
		line = "\n" + line
	}
	_, err = f.WriteString(line)
	if err = errors.Join(err, f.Close()); err != nil {
		return rememberProblem(file, err)
	}
	return nil
}

// endsInNewline reports whether what is appended to a file starts a line of its own.
func endsInNewline(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return true
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, info.Size()-1)
	return err != nil || last[0] == '\n'
}

// fingerprint shows a key as OpenSSH does.
func fingerprint(key ssh.PublicKey) string { return key.Type() + " " + ssh.FingerprintSHA256(key) }

// noAddr is an address that matches no line: machines are known by their names, whatever address
// those have today.
type noAddr struct{}

var _ net.Addr = noAddr{}

// Network implements net.Addr.
func (noAddr) Network() string { return "tcp" }

// String implements net.Addr.
func (noAddr) String() string { return "0.0.0.0:0" }
