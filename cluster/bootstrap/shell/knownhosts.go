package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// knownHosts is what the files of known hosts say about one machine, see sshd(8), SSH_KNOWN_HOSTS
// FILE FORMAT. The package knownhosts does not read them: it refuses a file for one line that it
// can't read, and takes the key of an authority for a host's.
type knownHosts struct {
	keys        []knownhosts.KnownKey // its own
	otherPorts  []knownhosts.KnownKey // of the same host, without a port
	authorities []knownhosts.KnownKey // may sign its keys
	revoked     []knownhosts.KnownKey // of any machine
}

// loadKnownHosts reads the files that are there. As with OpenSSH, lines that can't be read are
// skipped.
func loadKnownHosts(r route) (*knownHosts, error) {
	k, name := &knownHosts{}, knownhosts.Normalize(r.knownHostsName())
	for _, file := range r.knownHostsFiles {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, problemf("make the file readable", "the known hosts cannot be read, %v", err)
		}
		for i, text := range bytes.Split(data, []byte("\n")) {
			marker, patterns, key, _, _, err := ssh.ParseKnownHosts(text)
			if err != nil {
				continue
			}
			line := knownhosts.KnownKey{Key: key, Filename: file, Line: i + 1}
			switch {
			case marker == "revoked":
				k.revoked = append(k.revoked, line)
			case marker == "" && matchesAny(patterns, name):
				k.keys = append(k.keys, line)
			case marker == "cert-authority" &&
				(matchesAny(patterns, name) || r.alias == "" && matchesAny(patterns, r.host)):
				k.authorities = append(k.authorities, line)
			case marker == "" && r.alias == "" && matchesAny(patterns, r.host):
				k.otherPorts = append(k.otherPorts, line)
			}
		}
	}
	return k, nil
}

// findKey looks for a key in lines.
func findKey(lines []knownhosts.KnownKey, key ssh.PublicKey) (knownhosts.KnownKey, bool) {
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
		isPlain := func(a string) bool { return !strings.Contains(a, "-cert-") }
		first = slices.DeleteFunc(ssh.SupportedAlgorithms().HostKeys, isPlain)
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

// checkHostKey checks whether a key is that of the machine. It runs for one machine at a time, so
// that the user is asked once about a machine that is dialed twice at the same time.
func (d *Dialer) checkHostKey(ctx context.Context, r route, key ssh.PublicKey) error {
	d.hostKeyMu.Lock()
	defer d.hostKeyMu.Unlock()
	k, err := loadKnownHosts(r)
	if err != nil {
		return err
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		if _, signed := findKey(k.authorities, cert.SignatureKey); signed {
			return k.checkCertificate(r, cert)
		}
		key = cert.Key // signed by somebody unknown it is as good as a plain one
	}
	if line, ok := findKey(k.revoked, key); ok {
		return revokedProblem(r, key, line)
	}
	if _, ok := findKey(k.keys, key); ok {
		return nil
	}
	if len(k.keys) > 0 {
		return changedProblem(r, key, k.keys)
	}
	if _, ok := findKey(k.otherPorts, key); ok {
		return nil // as with OpenSSH; another key at another port is not a changed key
	}
	if r.acceptNew {
		return addKnownHost(r, key)
	}
	if d.options.Prompt == nil {
		return problemf("run `"+r.command()+
			"` once and compare the fingerprint, or add --accept-new to trust machines that are new",
			"the host key of %s is not known, and there is no terminal to ask whether %s is right", r, fingerprint(key))
	}
	yes, err := d.options.Prompt.Confirm(ctx,
		fmt.Sprintf("%s was never seen before. Its host key is %s. Connect and remember it?",
			r, fingerprint(key)))
	if err != nil {
		return err
	}
	if !yes {
		return problemf("compare it with what `ssh-keygen -l -f` says of the file in /etc/ssh there",
			"the host key of %s was not accepted, %s", r, fingerprint(key))
	}
	return addKnownHost(r, key)
}

// checkCertificate checks what a known authority has signed.
func (k *knownHosts) checkCertificate(r route, cert *ssh.Certificate) error {
	for _, key := range []ssh.PublicKey{cert.Key, cert.SignatureKey} {
		if line, ok := findKey(k.revoked, key); ok {
			return revokedProblem(r, key, line)
		}
	}
	checker := ssh.CertChecker{IsHostAuthority: func(key ssh.PublicKey, _ string) bool {
		_, ok := findKey(k.authorities, key)
		return ok
	}}
	if err := checker.CheckHostKey(r.knownHostsName(), noAddr{}, cert); err != nil {
		return problemf(
			"have the host key signed again for that name, or correct the @cert-authority line of the known hosts",
			"the host certificate of %s does not hold (%s)", r, strings.TrimPrefix(err.Error(), "ssh: "))
	}
	return nil
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
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			line = "\n" + line
		}
	}
	_, err = f.WriteString(line)
	if err = errors.Join(err, f.Close()); err != nil {
		return rememberProblem(file, err)
	}
	return nil
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
