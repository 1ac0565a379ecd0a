// Package processid names processes so that none is taken for another one: not for a later one with
// the same number, and not for one of another machine that has written its number into a folder
// that both see.
package processid

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ID is a process of this machine or of another one. The zero value means no process.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks from the start of the machine to that of the process
	Boot  string `json:"boot"`  // of the machine, since its start
}

// Self is this process.
func Self() ID {
	id, _ := Of(os.Getpid()) // it lives
	return id
}

// Of names the live process with a number; false is for none.
func Of(pid int) (ID, bool) {
	start, ok := startOf(pid)
	return ID{PID: pid, Start: start, Boot: Boot()}, ok
}

// Alive reports whether it is this very process that runs under its number here.
func (id ID) Alive() bool {
	now, ok := Of(id.PID)
	return ok && now == id
}

// Signal sends a signal to the process, and to no other that has got its number meanwhile. The
// error is unix.ESRCH for one that is gone, or is not of this machine.
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

// String gives it as Parse reads it.
func (id ID) String() string { return fmt.Sprintf("%d %d %s", id.PID, id.Start, id.Boot) }

// Parse reads what String gives.
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

// Boot names this machine since its start.
func Boot() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without one, start times alone must do
	return strings.TrimSpace(string(b))
}

// startOf gives the start time of a live process: field 22 of proc_pid_stat(5), counted from the
// name in parentheses.
func startOf(pid int) (start uint64, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	text := string(b)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return 0, false
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	return start, err == nil
}
