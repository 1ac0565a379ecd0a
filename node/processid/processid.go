// Package processid identifies processes beyond their PID, so that none is mistaken for a later one
// with the same PID, or for a process of another machine that shares a folder with this one.
package processid

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mlfnode/node/procfs"
)

// ID is a process of this machine or of another one. The zero value means no process.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks from the start of the machine to that of the process
	Boot  string `json:"boot"`  // of the machine, since its start
}

// Self returns the ID of this process.
func Self() ID {
	id, _ := Of(os.Getpid()) // it lives
	return id
}

// Of returns the ID of the live process with a PID, and false if there is none.
func Of(pid int) (ID, bool) {
	s, ok := procfs.ReadStat(pid)
	return ID{PID: pid, Start: s.Start, Boot: Boot()}, ok && !s.Dead
}

// Alive reports whether the process still runs on this machine.
func (id ID) Alive() bool {
	now, ok := Of(id.PID)
	return ok && now == id
}

// Signal sends a signal to the process, and never to another one that has its PID now. The error is
// unix.ESRCH if the process has ended or belongs to another machine.
func (id ID) Signal(signal unix.Signal) error {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err != nil {
		return unix.ESRCH
	}
	defer unix.Close(fd)
	if !id.Alive() { // if it is, it was when the descriptor was its own already
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, signal, nil, 0)
}

// String returns the ID in the form that Parse reads.
func (id ID) String() string { return fmt.Sprintf("%d %d %s", id.PID, id.Start, id.Boot) }

// Parse reads the result of String.
func Parse(text string) (ID, error) {
	f := strings.Fields(text)
	if len(f) != 3 {
		return ID{}, fmt.Errorf("read a process: %q is none", text)
	}
	var id ID
	var err error
	if id.PID, err = strconv.Atoi(f[0]); err != nil || id.PID < 1 {
		return ID{}, fmt.Errorf("read a process: %q is none", text)
	}
	if id.Start, err = strconv.ParseUint(f[1], 10, 64); err != nil {
		return ID{}, fmt.Errorf("read a process: %q is none", text)
	}
	id.Boot = f[2]
	return id, nil
}

// Boot identifies this boot of this machine.
func Boot() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without one, start times alone must do
	return strings.TrimSpace(string(b))
}
