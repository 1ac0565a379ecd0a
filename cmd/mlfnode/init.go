package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// lastSignal is the highest signal number (SIGRTMAX, signal(7)).
const lastSignal = 64

// runAsInit runs as the first process of a container or another process namespace: it runs mlfnode
// as a child and returns its exit status.
//
// Orphaned processes become children of the first process, including those that somebody else has
// started (docker exec), while a node takes its children for parts of trials. So orphans are
// awaited here.
func runAsInit(args []string, stderr io.Writer) int {
	signals := make(chan os.Signal, 16)
	for n := syscall.Signal(1); n <= lastSignal; n++ {
		// SIGCHLD is the end of the child; the Go runtime sends SIGURG to itself.
		if !signal.Ignored(n) && n != unix.SIGCHLD && n != unix.SIGURG {
			signal.Notify(signals, n)
		}
	}
	program, err := os.Executable() // gives the child its process name
	if err != nil {
		program = "/proc/self/exe"
	}
	c := exec.Command(program, args[1:]...)
	c.Args[0] = args[0]
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	// A group of its own, so that the child gets signals of the terminal once, from the terminal.
	group, err := unix.IoctlGetInt(unix.Stdin, unix.TIOCGPGRP)
	foreground := err == nil && group == unix.Getpgrp()
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Foreground: foreground, Ctty: unix.Stdin}
	if err := c.Start(); err != nil {
		fmt.Fprintf(stderr, "error: start mlfnode as a child of process 1: %v\n", err)
		return 1
	}
	go func() { // ends with this process
		for s := range signals {
			_ = c.Process.Signal(s) // it may have ended
			if s == unix.SIGTERM || s == unix.SIGINT || s == unix.SIGHUP {
				_ = c.Process.Signal(unix.SIGCONT) // a stopped process does not handle the signal
			}
		}
	}()
	for {
		var ended syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ended, syscall.WUNTRACED, nil)
		switch {
		case err == syscall.EINTR || err == nil && pid != c.Process.Pid:
			continue
		case err != nil:
			fmt.Fprintf(stderr, "error: await mlfnode: %v\n", err)
			return 1
		case ended.Stopped():
			if ended.StopSignal() == unix.SIGTSTP { // Ctrl-Z, and there is no shell to continue it
				_ = unix.Kill(-pid, unix.SIGCONT) // it may have ended
			}
			continue
		case ended.Signaled():
			return 128 + int(ended.Signal())
		}
		return ended.ExitStatus()
	}
}
