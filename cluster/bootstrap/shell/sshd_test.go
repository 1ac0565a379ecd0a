package shell

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"mlfnode/grid/gridtest"
)

// testTimeout bounds what a test waits for.
const testTimeout = 60 * time.Second

// server is a real sshd on this machine.
type server struct {
	t      *testing.T
	dir    string
	port   int
	binary string
	hosts  map[string]ssh.PublicKey
	user   ssh.PublicKey
	key    string // file of the private key that is let in
	shadow string // file that stands in the place of /etc/shadow, "" for none
}

// sshd starts a server with host keys of the kinds given and further lines of configuration.
func sshd(t *testing.T, kinds []string, lines ...string) *server {
	t.Helper()
	return sshdPrepared(t, kinds, func(*server) {}, lines...)
}

// sshdPrepared starts a server after a preparation that needs its host keys.
func sshdPrepared(t *testing.T, kinds []string, prepare func(*server), lines ...string) *server {
	t.Helper()
	gridtest.Root(t, "sshd")
	binary := "/usr/sbin/sshd" // not on every PATH
	if _, err := os.Stat(binary); err != nil {
		binary = gridtest.Program(t, "sshd")
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: t.TempDir(), binary: binary, port: gridtest.FreePort(t), hosts: map[string]ssh.PublicKey{}}
	s.key = filepath.Join(s.dir, "user")
	s.user = writeKey(t, s.key, "ed25519", "")
	write(t, filepath.Join(s.dir, "authorized"), string(ssh.MarshalAuthorizedKey(s.user)))
	s.start(kinds, prepare, lines)
	return s
}

// sshdByPassword starts a server that lets root in by a password alone.
func sshdByPassword(t *testing.T, password string, lines ...string) *server {
	t.Helper()
	hash := exec.Command(gridtest.Program(t, "openssl"), "passwd", "-6", "-stdin")
	hash.Stdin = strings.NewReader(password + "\n")
	hashed, err := hash.Output()
	if err != nil {
		t.Fatal(err)
	}
	return sshdPrepared(t, []string{"ed25519"}, func(s *server) {
		s.shadow = filepath.Join(s.dir, "shadow")
		write(t, s.shadow, "root:"+strings.TrimSpace(string(hashed))+":19000:0:99999:7:::\n")
	}, append(lines, "PubkeyAuthentication no", "KbdInteractiveAuthentication no")...)
}

func (s *server) start(kinds []string, prepare func(*server), lines []string) {
	t := s.t
	config := []string{"ListenAddress 127.0.0.1", fmt.Sprint("Port ", s.port),
		"AuthorizedKeysFile " + filepath.Join(s.dir, "authorized"),
		"PidFile none", "StrictModes no", "UsePAM no", "PermitRootLogin yes"}
	for _, kind := range kinds {
		path := filepath.Join(s.dir, "host_"+kind)
		s.hosts[kind] = writeKey(t, path, kind, "")
		config = append(config, "HostKey "+path)
	}
	prepare(s)
	file := filepath.Join(s.dir, "config")
	write(t, file, strings.Join(append(lines, config...), "\n")+"\n")
	run := exec.Command(s.binary, "-D", "-e", "-f", file)
	if s.shadow != "" {
		run = exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" /etc/shadow && exec "$0" -D -e -f "$2"`,
			s.binary, s.shadow, file)
	}
	log := &bytes.Buffer{}
	said, err := run.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		once := sync.OnceFunc(func() { close(listening) })
		defer once()
		buf := make([]byte, 4096)
		for {
			n, err := said.Read(buf)
			log.Write(buf[:n])
			if strings.Contains(log.String(), "listening") {
				once()
			}
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = run.Process.Kill()
		reading.Wait()
		_ = run.Wait()
		if t.Failed() {
			t.Logf("sshd:\n%s", log)
		}
	})
	<-listening
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// writeKey makes a key in a file.
func writeKey(t *testing.T, path, kind, passphrase string) ssh.PublicKey {
	t.Helper()
	var private any
	var err error
	if kind == "rsa" {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		_, private, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "a test")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "a test", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(pem.EncodeToMemory(block)))
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer.PublicKey()
}

// know writes a file of known hosts with the server's keys of the kinds given.
func (s *server) know(kinds ...string) string {
	path := filepath.Join(s.t.TempDir(), "known_hosts")
	var lines strings.Builder
	for _, kind := range kinds {
		lines.WriteString(knownhosts.Line([]string{knownhosts.Normalize(s.address())}, s.hosts[kind]) + "\n")
	}
	write(s.t, path, lines.String())
	return path
}

func (s *server) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

func (s *server) target() Target { return Target{User: "root", Host: "127.0.0.1", Port: s.port} }

// dialer makes a Dialer in an empty home.
func dialer(t *testing.T, o Options) *Dialer {
	t.Helper()
	if os.Getenv("HOME") != "" && !strings.HasPrefix(os.Getenv("HOME"), os.TempDir()) {
		t.Setenv("HOME", t.TempDir())
		t.Setenv("SSH_AUTH_SOCK", "")
	}
	d, err := NewDialer(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// open dials, and closes the connection with the test.
func open(t *testing.T, d *Dialer, target Target) *Connection {
	t.Helper()
	c, err := d.Dial(limited(t), target)
	if err != nil {
		t.Fatalf("dial %v: %v", target, err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close %v: %v", target, err)
		}
	})
	return c
}

// person is a Prompter with answers ready.
type person struct {
	yes    bool
	secret string
	slips  int // how many wrong answers come first

	mu    sync.Mutex
	asked []string
}

func (u *person) note(question string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked = append(u.asked, question)
}

func (u *person) Confirm(_ context.Context, question string) (bool, error) {
	u.note(question)
	return u.yes, nil
}

func (u *person) Secret(_ context.Context, question string) ([]byte, error) {
	u.note(question)
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.asked) <= u.slips {
		return []byte("a slip"), nil
	}
	return []byte(u.secret), nil
}

// endless is an input that ends with the test. A program that reads it ends with its connection,
// and so is not left behind.
func endless(t *testing.T) io.Reader {
	r, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	return r
}
