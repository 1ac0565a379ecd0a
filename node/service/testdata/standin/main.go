// Command standin takes the place of mlfnode in the tests of package service. As `master` or `join`
// it is an agent that follows systemd's protocols and records what happens to it in its state
// folder; the other commands call the package.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"mlfnode/node/service"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

func run(command string, args []string) error {
	var o service.Options
	f := flag.NewFlagSet(command, flag.ContinueOnError)
	f.BoolVar(&o.User, "user", false, "")
	f.StringVar(&o.Seed, "seed", "", "")
	f.StringVar(&o.ConfigFile, "config", "", "")
	f.StringVar(&o.StateDir, "state-dir", "", "")
	f.StringVar((*string)(&o.Role), "role", "worker", "")
	f.BoolVar(&o.NoStart, "no-start", false, "")
	purge := f.Bool("purge", false, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx := context.Background()
	switch command {
	case "install":
		r, err := service.Install(ctx, o)
		return show(r, err)
	case "uninstall":
		r, err := service.Uninstall(ctx, o.Manager, *purge)
		return show(r, err)
	case "status":
		s, err := service.Status(ctx, o.Manager)
		return show(s, err)
	}
	return agent(command, o.ConfigFile, f.Args())
}

func show(v any, err error) error {
	b, _ := json.Marshal(v)
	fmt.Println(string(b))
	return err
}

// agent serves until SIGTERM. Files in /run/standin determine how it behaves, and it records there
// what it observes.
func agent(command, config string, args []string) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	if _, err := os.Stat(note("broken")); err == nil {
		return errors.New("the store is broken, says the test")
	}
	var ill atomic.Bool
	var n service.Notifier
	go n.Run(context.Background(), func() error {
		if _, err := os.Stat(note("ill")); err == nil || ill.Load() {
			return errors.New("ill, says the test")
		}
		return nil
	})
	shim()
	if _, err := os.Stat(note("slow")); err == nil {
		for s := range signals { // the test decides when it is ready
			if s == syscall.SIGHUP {
				break
			}
		}
	}
	write("started", fmt.Sprintln(command, config, args, os.Getenv("HOME")))
	n.Ready("serving")
	for s := range signals {
		if s == syscall.SIGTERM {
			n.Stopping("leaving")
			write("ended", fmt.Sprint(service.Restarting(context.Background())))
			return nil
		}
		n.Reloading()
		write("reloaded", "yes")
		n.Ready("serving again")
	}
	return nil
}

// shim starts a process that outlives the agent, unless there already is one.
func shim() {
	if b, err := os.ReadFile(note("shim")); err == nil && syscall.Kill(number(b), 0) == nil {
		return
	}
	wrap, ok := service.Scope("standin/1")
	write("scope", fmt.Sprint(ok))
	command := append(wrap, "/bin/sh", "-c", "exec sleep 100000")
	c := exec.Command(command[0], command[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		write("scope", err.Error())
		return
	}
	write("shim", fmt.Sprint(c.Process.Pid))
	go c.Wait()
}

func number(b []byte) (n int) {
	fmt.Sscan(string(b), &n)
	return n
}

func note(name string) string {
	return filepath.Join(os.TempDir(), "standin", name)
}

func write(name, text string) {
	_ = os.MkdirAll(filepath.Dir(note(name)), 0o777)
	half := note(name) + ".half"
	_ = os.WriteFile(half, []byte(text), 0o644)
	_ = os.Rename(half, note(name))
}
