package service_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/node/service"
)

// listenNotify takes the place of systemd: it listens on a notification socket.
func listenNotify(t *testing.T) func() string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestNotifier(t *testing.T) {
	next := listenNotify(t)
	var n service.Notifier
	steps := []struct {
		name, want string
		err        error
	}{
		{"ready", "READY=1\nSTATUS=up and running", n.Ready("up\nand running")},
		{"status", "STATUS=3 trials", n.Status("3 trials")},
		{"reloading", "RELOADING=1\nMONOTONIC_USEC=", n.Reloading()},
		{"stopping", "STOPPING=1\nSTATUS=leaving", n.Stopping("leaving")},
		{"extend", "EXTEND_TIMEOUT_USEC=15000000", n.ExtendTimeout(15 * time.Second)},
	}
	for _, s := range steps {
		if got := next(); s.err != nil || !strings.HasPrefix(got, s.want) {
			t.Errorf("%s: got %q, %v, want %q", s.name, got, s.err, s.want)
		}
	}
}

func TestNotifierWatchdog(t *testing.T) {
	next := listenNotify(t)
	t.Setenv("WATCHDOG_USEC", "3000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	calls, done := 0, make(chan error)
	go func() {
		done <- service.Notifier{}.Run(ctx, func() error {
			if calls++; calls == 2 {
				return errors.New("the loop\nhangs")
			}
			return nil
		})
	}()
	for _, want := range []string{"WATCHDOG=1", "STATUS=not healthy: the loop hangs", "WATCHDOG=1"} {
		if got := next(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNotifierAlone runs without systemd: every call does nothing, and the watchdog waits for the
// end of its context.
func TestNotifierAlone(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var n service.Notifier
	if err := errors.Join(n.Ready("x"), n.Status("x"), n.Reloading(), n.Stopping("x"), n.ExtendTimeout(1),
		n.Run(ctx, nil)); err != nil {
		t.Error(err)
	}
}
