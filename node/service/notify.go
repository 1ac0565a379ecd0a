package service

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier reports the agent's state to systemd (sd_notify(3)). If systemd does not listen to this
// process, its methods do nothing. The zero value is ready to use.
type Notifier struct{}

// Ready reports that the agent serves: after its start, and again after each Reloading. `systemctl
// status` shows the text.
func (Notifier) Ready(status string) error { return notify("READY=1", statusLine(status)) }

// Status changes the text that `systemctl status` shows.
func (Notifier) Status(status string) error { return notify(statusLine(status)) }

// Reloading reports that the agent reads its settings again. Ready must follow, even if that fails.
func (Notifier) Reloading() error {
	return notify("RELOADING=1", strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
}

// Stopping reports that the agent shuts down.
func (Notifier) Stopping(status string) error { return notify("STOPPING=1", statusLine(status)) }

// ExtendTimeout reports that the shutdown continues and that the agent notifies systemd again
// within this time. Since version 236, systemd then waits beyond the unit's TimeoutStopSec.
func (Notifier) ExtendTimeout(within time.Duration) error {
	return notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", within.Microseconds()))
}

// Run pings systemd's watchdog while healthy returns nil, three times per watchdog interval, until
// ctx ends. If healthy returns an error or does not return, systemd kills the agent with SIGABRT,
// which logs the stacks of all goroutines to the journal, and restarts it. Without a watchdog, Run
// waits for ctx.
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
		if unhealthy := healthy(); unhealthy != nil {
			err = n.Status("not healthy: " + unhealthy.Error())
		} else {
			err = notify(daemon.SdNotifyWatchdog)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// statusLine joins the text into one line, as the protocol requires.
func statusLine(text string) string {
	return "STATUS=" + strings.Join(strings.Fields(text), " ")
}

func notify(lines ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("notify systemd of %s: %w", lines[0], err)
	}
	return nil
}
