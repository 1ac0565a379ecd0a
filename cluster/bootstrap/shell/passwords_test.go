package shell

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh/knownhosts"
)

// A password is asked for once for each machine, and again after a slip.
func TestPasswordOnce(t *testing.T) {
	for slips := range passwordTries {
		s := sshdByPassword(t, "secret")
		asked := &person{secret: "secret", slips: slips}
		d := dialer(t, Options{KnownHosts: s.know("ed25519"), Prompt: asked})
		for range 3 {
			open(t, d, s.target())
		}
		question := "password of root on " + s.address()
		want := append([]string{question}, repeated(slips, "that was refused, "+question)...)
		if fmt.Sprint(asked.asked) != fmt.Sprint(want) {
			t.Errorf("%d slips: asked %q; want %q", slips, asked.asked, want)
		}
	}
}

func repeated(n int, text string) (all []string) {
	for range n {
		all = append(all, text)
	}
	return all
}

// Connections that come at once wait for one answer, also where the server drops some of them.
func TestPasswordsSideBySide(t *testing.T) {
	s := sshdByPassword(t, "secret", "MaxStartups 2")
	known := s.know("ed25519")
	asked := []*person{{secret: "secret"}, {secret: "secret"}, {secret: "secret", slips: 1}}
	var all sync.WaitGroup
	for _, p := range asked {
		d := dialer(t, Options{KnownHosts: known, Prompt: p})
		for range 4 {
			all.Go(func() { open(t, d, s.target()) })
		}
	}
	all.Wait()
	for i, p := range asked {
		if len(p.asked) != 1+p.slips {
			t.Errorf("person %d was asked %d times: %q; want %d", i, len(p.asked), p.asked, 1+p.slips)
		}
	}
}

// An answer that the server did not wait for is sent over the next connection.
func TestPasswordAfterGrace(t *testing.T) {
	s := sshdByPassword(t, "secret", "LoginGraceTime 1")
	slow := &slowPerson{person: person{secret: "secret"}, until: make(chan struct{})}
	at := dropping(t, s.address, slow.until)
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, knownhosts.Normalize(at.String())+" "+authorized(s.hosts["ed25519"]))
	open(t, dialer(t, Options{KnownHosts: known, Prompt: slow}), Target{User: "root", Host: at.Host, Port: at.Port})
	if len(slow.asked) != 1 {
		t.Errorf("asked %q; want one question", slow.asked)
	}
}

// slowPerson answers when the connection is gone.
type slowPerson struct {
	person
	until chan struct{}
}

func (u *slowPerson) Secret(ctx context.Context, question string) ([]byte, error) {
	select {
	case <-u.until:
	case <-ctx.Done():
	}
	return u.person.Secret(ctx, question)
}

// dropping passes connections on, and tells when the far side has ended the first.
func dropping(t *testing.T, to func() string, ended chan struct{}) Target {
	t.Helper()
	l := listen(t)
	at, err := ParseTarget(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tell := sync.OnceFunc(func() { close(ended) })
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			passing.Go(func() { pass(near, to(), tell) })
		}
	})
	t.Cleanup(func() { l.Close(); passing.Wait() })
	return at
}

// pass passes a connection on until either side ends it.
func pass(near net.Conn, to string, ended func()) {
	defer near.Close()
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(near, far); near.Close(); ended() })
	_, _ = io.Copy(far, near) // ends with either side
	far.Close()
	back.Wait()
}

// What was typed for a machine goes to no other that stands at its address later.
func TestPasswordStays(t *testing.T) {
	one, two := sshdByPassword(t, "secret"), sshdByPassword(t, "secret")
	var to atomic.Pointer[server]
	to.Store(one)
	at := dropping(t, func() string { return to.Load().address() }, make(chan struct{}))
	known, name := filepath.Join(t.TempDir(), "known_hosts"), knownhosts.Normalize(at.String())+" "
	write(t, known, name+authorized(one.hosts["ed25519"])+name+authorized(two.hosts["ed25519"]))
	asked := &person{secret: "secret"}
	d := dialer(t, Options{KnownHosts: known, Prompt: asked})
	for i, s := range []*server{one, two, two, one} {
		to.Store(s)
		open(t, d, Target{User: "root", Host: at.Host, Port: at.Port})
		if want := min(i+1, 2); len(asked.asked) != want {
			t.Errorf("after machine %d: asked %q; want %d questions", i, asked.asked, want)
		}
	}
}

// A question of the machine is answered with what was typed before only where it asks for the
// password.
func TestPasswordQuestions(t *testing.T) {
	for question, want := range map[string]bool{
		"Password: ": true, "(root@gpu1) Password: ": true, "Password for root@gpu1:": true, "password:": true,
		"One-time password: ": false, "New password: ": false, "Verification code: ": false,
		"Password and code: ": false,
	} {
		if got := passwordQuestion.Get().MatchString(question); got != want {
			t.Errorf("%q asks for the password: %t; want %t", question, got, want)
		}
	}
}
