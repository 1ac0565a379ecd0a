package hosts

import (
	"time"

	"golang.org/x/sys/unix"
)

// SetLinkConditions determines what happens to frames that the host sends from now on.
func (h *Host) SetLinkConditions(w LinkConditions) {
	f := h.harness.network
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conditions[h.number] = w
}

// SetLinkConditions determines what happens to the frames of all hosts from now on.
func (hs *Harness) SetLinkConditions(w LinkConditions) {
	for _, h := range hs.Hosts {
		h.SetLinkConditions(w)
	}
}

// LinkDown disconnects the host from the network. Its programs keep running and are not notified.
func (h *Host) LinkDown() { h.setDown(true) }

// LinkUp undoes LinkDown.
func (h *Host) LinkUp() { h.setDown(false) }

func (h *Host) setDown(down bool) {
	f := h.harness.network
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down[h.number] = down
}

// CutTo drops everything that the host sends to another one. The other direction is not affected.
func (h *Host) CutTo(other *Host) { h.setCut(other, true) }

// Partition drops everything between two hosts, in both directions.
func (h *Host) Partition(other *Host) {
	h.setCut(other, true)
	other.setCut(h, true)
}

// Heal undoes CutTo and Partition, in both directions.
func (h *Host) Heal(other *Host) {
	h.setCut(other, false)
	other.setCut(h, false)
}

func (h *Host) setCut(other *Host, cut bool) {
	f := h.harness.network
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut[[2]int{h.number, other.number}] = cut
}

// Suspend pauses all processes of the host, as happens when a laptop's lid is closed or a virtual
// machine is moved. The network stays up.
func (h *Host) Suspend() { h.signal(unix.SIGSTOP) }

// Continue undoes Suspend.
func (h *Host) Continue() { h.signal(unix.SIGCONT) }

func (h *Host) signal(sig unix.Signal) {
	for _, p := range h.Processes() {
		_ = unix.Kill(p.PID, sig) // it may have ended
	}
}

// ClockJump sets the wall clock of the host's mlfnode processes, both current and future ones,
// ahead by d, or back if d is negative. It changes neither the monotonic clock nor the machine's
// own clock.
func (h *Host) ClockJump(d time.Duration) {
	h.harness.t.Helper()
	h.mu.Lock()
	h.skew = d
	h.mu.Unlock()
	for _, p := range h.Processes() {
		if !p.is(h.program()) && !p.isShipped() {
			continue
		}
		if err := setClock(p.PID, d); err != nil && alive(p.PID) {
			h.harness.t.Fatalf("set the clock of %s: %v", h.Name, err)
		}
	}
}
