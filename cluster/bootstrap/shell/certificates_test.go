package shell

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// A user is let in by the certificate of a key, beside its file or named, whoever holds the key.
func TestUserCertificate(t *testing.T) {
	dir := t.TempDir()
	authority := writeKey(t, filepath.Join(dir, "authority"), "ed25519", "")
	write(t, filepath.Join(dir, "authorities"), authorized(authority))
	s := sshd(t, []string{"ed25519"}, "TrustedUserCAKeys "+filepath.Join(dir, "authorities"), "MaxAuthTries 2")
	for _, kind := range []string{"ed25519", "rsa"} {
		key := filepath.Join(dir, kind)
		cert := certify(t, filepath.Join(dir, "authority"), writeKey(t, key, kind, "secret"))
		t.Setenv("HOME", t.TempDir())
		t.Setenv("SSH_AUTH_SOCK", "")
		o := Options{ConfigFile: filepath.Join(dir, "config"), KnownHosts: s.know("ed25519"),
			Prompt: &person{secret: "secret"}}
		write(t, o.ConfigFile, "Host *\nIdentityFile "+key+"\nPasswordAuthentication no\n")
		write(t, key+"-cert.pub", cert)
		open(t, dialer(t, o), s.target())
		write(t, key+"-cert.pub", "")
		write(t, filepath.Join(dir, "elsewhere"), cert)
		write(t, o.ConfigFile, "Host *\nIdentityFile "+key+"\nCertificateFile "+filepath.Join(dir, "elsewhere")+"\n")
		open(t, dialer(t, o), s.target())
		socket := serveAgent(t, holding(t, key, "secret"))
		write(t, o.ConfigFile, fmt.Sprintf("Host *\nIdentityAgent %s\nCertificateFile %s/elsewhere\n", socket, dir))
		o.Prompt = nil
		open(t, dialer(t, o), s.target())
	}
}

// certify gives the line of a certificate for root.
func certify(t *testing.T, authority string, key ssh.PublicKey) string {
	t.Helper()
	signer, err := readKey(authority, nil).open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cert := &ssh.Certificate{Key: key, CertType: ssh.UserCert, ValidPrincipals: []string{"root"},
		ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	return authorized(cert)
}

// holding makes an agent with the key of a file.
func holding(t *testing.T, path, passphrase string) agent.Agent {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ssh.ParseRawPrivateKeyWithPassphrase(data, []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	return keys
}

// Which agent is asked is the configuration's to say.
func TestIdentityAgent(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	locked := filepath.Join(s.dir, "locked")
	write(t, filepath.Join(s.dir, "authorized"), authorized(writeKey(t, locked, "ed25519", "secret")))
	socket, empty := serveAgent(t, holding(t, locked, "secret")), serveAgent(t, agent.NewKeyring())
	for _, tt := range []struct{ config, environment, want string }{
		{"", socket, ""},
		{"IdentityAgent " + socket, empty, ""},
		{`IdentityAgent "` + socket + `"`, "", ""},
		{"IdentityAgent SSH_AUTH_SOCK", socket, ""},
		{"IdentityAgent $OTHER_AGENT", empty, ""},
		{"IdentityAgent ${OTHER_AGENT}", empty, ""},
		{"IdentityAgent none", socket, "none of the keys here"},
		{"IdentityAgent " + empty, socket, "none of the keys here"},
	} {
		t.Run(tt.config, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			t.Setenv("SSH_AUTH_SOCK", tt.environment)
			t.Setenv("OTHER_AGENT", socket)
			o := Options{ConfigFile: filepath.Join(t.TempDir(), "config"), KnownHosts: s.know("ed25519")}
			write(t, o.ConfigFile, "Host *\n"+tt.config+"\n")
			dialed(t, o, s, tt.want)
		})
	}
}
