package service

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier tells systemd how the agent is (sd_notify(3)). Where the process was not started by a systemd that listens, its
// methods do nothing. The zero value is ready.
type Notifier struct{}

// Ready says that the agent serves: at its first start, and again after each Reloading. The text is shown by
// `systemctl status`.
func (Notifier) Ready(status string) error { return tell("READY=1", statusLine(status)) }

// Status changes the text that `systemctl status` shows.
func (Notifier) Status(status string) error { return tell(statusLine(status)) }

// Reloading says that the settings are being read again. Ready must follow, also if they could not be read.
func (Notifier) Reloading() error {
	return tell("RELOADING=1", strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
}

// Stopping says that the agent is ending in good order.
func (Notifier) Stopping(status string) error { return tell("STOPPING=1", statusLine(status)) }

// Extend says that the stop goes on and that the agent gives another sign within this time. From version 236 on, systemd waits for it beyond
// the unit's TimeoutStopSec.
func (Notifier) Extend(within time.Duration) error {
	return tell(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", within.Microseconds()))
}

// Run pings systemd's watchdog while healthy returns nil, at a third of the time that systemd allows, until ctx ends. When
// healthy returns an error or does not return, systemd kills the agent with SIGABRT, which writes all its goroutines into the
// journal, and restarts it. Without a watchdog, Run waits for ctx.
func (n Notifier) Run(ctx context.Context, healthy func() error) error {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read the watchdog's time: %w", err)
	}
	if every <= 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		if err := n.ping(healthy()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n Notifier) ping(ill error) error {
	if ill != nil {
		return n.Status("not healthy: " + ill.Error())
	}
	return tell(daemon.SdNotifyWatchdog)
}

// statusLine keeps the status on one line, which is all that the protocol has.
func statusLine(text string) string {
	return "STATUS=" + strings.Join(strings.Fields(text), " ")
}

func tell(lines ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("tell systemd %s: %w", lines[0], err)
	}
	return nil
}
