package shell

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Names may be hashed, or stand in patterns and lists.
func TestKnownHosts(t *testing.T) {
	s := sshd(t, []string{"rsa", "ed25519"})
	name := knownhosts.Normalize(s.address())
	for what, line := range map[string]string{
		"hashed":  knownhosts.HashHostname(name) + " ",
		"pattern": fmt.Sprintf("[127.0.0.?]:%d,!other ", s.port),
		"comment": "# a comment\n\n" + name + ",elsewhere ",
	} {
		known := filepath.Join(t.TempDir(), "known_hosts")
		write(t, known, line+authorized(s.hosts["ed25519"]))
		d := dialer(t, Options{Key: s.key, KnownHosts: known})
		if c, err := d.Dial(limited(t), s.target()); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// A machine may show a certificate of an authority that is known.
func TestHostCertificate(t *testing.T) {
	dir := t.TempDir()
	authority := writeKey(t, filepath.Join(dir, "authority"), "ed25519", "")
	file := filepath.Join(dir, "host-cert.pub")
	write(t, file, "")
	s := sshdPrepared(t, []string{"ed25519"}, func(s *server) {
		signer, err := readKey(filepath.Join(dir, "authority"), nil).open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cert := &ssh.Certificate{Key: s.hosts["ed25519"], CertType: ssh.HostCert,
			ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity}
		if err := cert.SignCert(rand.Reader, signer); err != nil {
			t.Fatal(err)
		}
		write(t, file, authorized(cert))
	}, "HostCertificate "+file)
	known := filepath.Join(dir, "known_hosts")
	write(t, known, fmt.Sprintf("@cert-authority [127.0.0.*]:%d ", s.port)+authorized(authority))
	open(t, dialer(t, Options{Key: s.key, KnownHosts: known}), s.target())
}

// A key that the agent holds needs no passphrase, and IdentitiesOnly keeps the agent's other keys
// out.
func TestAgent(t *testing.T) {
	s := sshd(t, []string{"ed25519"}, "MaxAuthTries 2")
	known := s.know("ed25519")
	locked := filepath.Join(s.dir, "locked")
	write(t, filepath.Join(s.dir, "authorized"), authorized(writeKey(t, locked, "ed25519", "secret")))
	data, err := os.ReadFile(locked)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ssh.ParseRawPrivateKeyWithPassphrase(data, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	keys := agent.NewKeyring()
	for range 5 { // more than the server lets try
		path := filepath.Join(s.dir, "more")
		writeKey(t, path, "ed25519", "")
		more, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := ssh.ParseRawPrivateKey(more)
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.Add(agent.AddedKey{PrivateKey: raw}); err != nil {
			t.Fatal(err)
		}
	}
	if err := keys.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("SSH_AUTH_SOCK", serveAgent(t, keys))
	config := filepath.Join(s.dir, "ssh_config")
	write(t, config, "Host *\nIdentitiesOnly yes\nIdentityFile "+locked+"\n")
	open(t, dialer(t, Options{ConfigFile: config, KnownHosts: known}), s.target())
}

// askingAgent asks a person, who takes some time, before it signs, and signs only if they agree. It
// does one thing at a time, as OpenSSH's does.
type askingAgent struct {
	agent.Agent
	takes time.Duration
	agree bool

	asking chan struct{} // gets something when a person is asked, unless nil
	busy   sync.Mutex
}

// List implements agent.Agent.
func (a *askingAgent) List() ([]*agent.Key, error) {
	a.busy.Lock()
	defer a.busy.Unlock()
	return a.Agent.List()
}

// Sign implements agent.Agent.
func (a *askingAgent) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	a.busy.Lock()
	defer a.busy.Unlock()
	if a.asking != nil {
		a.asking <- struct{}{}
	}
	<-time.After(a.takes)
	if !a.agree {
		return nil, errors.New("declined")
	}
	return a.Agent.Sign(key, data)
}

// TestAgentThatAsks waits for a person who takes longer than a machine may for a handshake, and
// says so when they decline.
func TestAgentThatAsks(t *testing.T) {
	s, held, config := behindAgent(t)
	for _, test := range []struct {
		agent *askingAgent
		want  string
	}{
		{&askingAgent{Agent: held, takes: handshakeTimeout + 3*time.Second, agree: true}, ""},
		{&askingAgent{Agent: held}, "the ssh agent did not sign with the key"},
	} {
		t.Setenv("SSH_AUTH_SOCK", serveAgent(t, test.agent))
		dialed(t, Options{ConfigFile: config, KnownHosts: s.know("ed25519")}, s, test.want)
	}
}

// TestAgentThatAsksForAnother connects to a machine while the agent asks about another one for
// longer than a handshake may take.
func TestAgentThatAsksForAnother(t *testing.T) {
	s, held, config := behindAgent(t)
	asks := &askingAgent{Agent: held, takes: handshakeTimeout + 5*time.Second, agree: true,
		asking: make(chan struct{}, 2)}
	t.Setenv("SSH_AUTH_SOCK", serveAgent(t, asks))
	d := dialer(t, Options{ConfigFile: config, KnownHosts: s.know("ed25519")})
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	var dials sync.WaitGroup
	dial := func() {
		c, err := d.Dial(ctx, s.target())
		if err != nil {
			t.Errorf("dial = %v; want a connection", err)
			return
		}
		_ = c.Close() // only the dial is looked at
	}
	dials.Go(dial)
	select {
	case <-asks.asking:
	case <-ctx.Done():
		t.Error("the agent is not asked to sign")
	}
	dials.Go(dial)
	dials.Wait()
}

// behindAgent is a server that lets in with a key that only an agent can use, that agent, and an
// empty configuration.
func behindAgent(t *testing.T) (s *server, held agent.Agent, config string) {
	t.Helper()
	s = sshd(t, []string{"ed25519"}, "LoginGraceTime 600")
	locked := filepath.Join(s.dir, "locked")
	write(t, filepath.Join(s.dir, "authorized"), authorized(writeKey(t, locked, "ed25519", "secret")))
	t.Setenv("HOME", t.TempDir())
	config = filepath.Join(s.dir, "ssh_config")
	write(t, config, "")
	return s, holding(t, locked, "secret"), config
}

func serveAgent(t *testing.T, keys agent.Agent) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { _ = agent.ServeAgent(keys, conn) })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return socket
}

// What start-up files print does not count as output, whatever shell they are for.
func TestChatter(t *testing.T) {
	s := sshd(t, []string{"ed25519"}, `ForceCommand echo welcome; echo warning >&2; eval "$SSH_ORIGINAL_COMMAND"`)
	c := open(t, dialer(t, Options{Key: s.key, KnownHosts: s.know("ed25519")}), s.target())
	if got, err := Output(limited(t), c, "echo hello", nil); err != nil || got != "hello\n" {
		t.Errorf("output = %q, %v; want hello", got, err)
	}
	var exit *ExitError
	if err := c.Run(limited(t), "echo no >&2; exit 1", nil, nil); !errors.As(err, &exit) || exit.Stderr != "no\n" {
		t.Errorf("error = %v; want no", err)
	}
}

var errEnough = errors.New("enough")

// What is waited for ends with its context.
func TestContext(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	hung := listen(t)
	defer hung.Close()
	d := dialer(t, Options{Key: s.key, KnownHosts: s.know("ed25519")})
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(errEnough) })
	at, err := ParseTarget(hung.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Dial(ctx, at); !errors.Is(err, errEnough) {
		t.Errorf("dial = %v; want %v", err, errEnough)
	}
	c := open(t, d, s.target())
	ctx, cancel = context.WithCancelCause(t.Context())
	out := writer(func(p []byte) (int, error) { cancel(errEnough); return len(p), nil })
	if err := c.Run(ctx, "echo; cat", endless(t), out); !errors.Is(err, errEnough) {
		t.Errorf("run = %v; want %v", err, errEnough)
	}
	full := writer(func(p []byte) (int, error) { return 0, errEnough })
	if err := c.Run(limited(t), "cat /dev/zero", nil, full); !errors.Is(err, errEnough) {
		t.Errorf("run to a writer that fails = %v; want %v", err, errEnough)
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// A machine that goes silent is given up within half a minute.
func TestKeepalive(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	s := sshd(t, []string{"ed25519"})
	at, silence := proxy(t, s.address())
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, knownhosts.Normalize(at.String())+" "+authorized(s.hosts["ed25519"]))
	c := open(t, dialer(t, Options{Key: s.key, KnownHosts: known}), Target{User: "root", Host: at.Host, Port: at.Port})
	silent := writer(func(p []byte) (int, error) { silence(); return len(p), nil })
	err := c.Run(limited(t), "echo; cat", endless(t), silent)
	if want := fmt.Sprintf("the connection to %s was lost", at); err == nil || err.Error() != want {
		t.Errorf("error = %v; want %s", err, want)
	}
}

// proxy passes one connection on, until it falls silent.
func proxy(t *testing.T, to string) (at Target, silence func()) {
	t.Helper()
	l := listen(t)
	at, err := ParseTarget(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	quiet := make(chan struct{})
	var passing sync.WaitGroup
	passing.Go(func() {
		near, err := l.Accept()
		if err != nil {
			return
		}
		defer near.Close()
		far, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		passing.Go(func() { _, _ = io.Copy(far, near); far.Close() })
		_, _ = io.Copy(writer(func(p []byte) (int, error) {
			select {
			case <-quiet:
				return len(p), nil
			default:
				return near.Write(p)
			}
		}), far)
	})
	t.Cleanup(func() { l.Close(); passing.Wait() })
	return at, sync.OnceFunc(func() { close(quiet) })
}
