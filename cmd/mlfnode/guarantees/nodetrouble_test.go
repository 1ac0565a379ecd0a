package guarantees

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cmd/mlfnode/hosts"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// troubled is a cluster of three hosts, of which the second gets into trouble under a sweep of 200
// trials.
type troubled struct {
	*scenario
	sick *hosts.Host
}

// TestNodeTroubleIsNotTrialFailure lets a node lack or suffer what a node can, each under a sweep
// of 200 trials on three nodes that has no retries of its own. All trials succeed: they run
// elsewhere, or later.
func TestNodeTroubleIsNotTrialFailure(t *testing.T) {
	t.Parallel()
	programs := t.TempDir() // in PATH before all others
	p := newScenario(t, 3, hosts.Options{Disk: smallDisk, Env: []string{"PATH=" + programs + ":" + os.Getenv("PATH")}})
	brief := []string{"sleep", "0.1{i}"} // one process: a node that can start it can run it
	writes := []string{"sh", "-c",
		`echo "$1" >file || exit 1; sleep 0.1; echo "$1" >>file || exit 1; sync file; test -s file`, "sh"}
	gate := p.newFile("gate")
	waits := []string{"sh", "-c", `until [ -e "$1" ]; do sleep 0.1; done`, "sh", gate}
	for _, c := range []struct {
		name    string
		command []string
		trouble func(*troubled)
	}{
		{"shim killed", brief, (*troubled).killShims},
		{"no processes", brief, (*troubled).takeProcesses},
		{"no open files", brief, (*troubled).takeFiles},
		{"full disk", writes, (*troubled).fillDisk},
		{"agent that fails to start ten times", waits, func(p *troubled) { p.startInVain(10, gate) }},
		{"hung driver", brief, func(p *troubled) { p.hangDriver(programs) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			own := *p
			own.t = t
			q := &troubled{scenario: &own, sick: p.Hosts[1]}
			q.count = 200
			q.sweep = grid.SweepID(strings.TrimSpace(q.Master.Must(append([]string{
				"sweep", "--detach", "--set", fmt.Sprintf("i=0:%d",
					q.count), "--retries", "0", "--"}, c.command...)...)))
			q.awaitAtWork()
			c.trouble(q)
			q.finish(settle)
			checkResults(t, q.trials(q.client(q.Master)), q.count, grid.Succeeded)
			q.allAlive()
			hosts.WaitFor(t, settle, func() error {
				if why := q.reason(); why != "" {
					return errors.New("the node still says: " + why)
				}
				return nil
			})
		})
	}
}

// awaitAtWork waits until the sick host has a trial of the sweep, and not only just.
func (p *troubled) awaitAtWork() {
	p.t.Helper()
	hosts.WaitFor(p.t, hosts.Timeout, func() error {
		for tr, err := range p.client(p.Master).Trials().List(p.t.Context(), p.sweep, api.TrialQuery{}) {
			if err != nil {
				return err
			}
			if string(tr.Node) == p.sick.Name {
				return nil
			}
		}
		return errors.New("the host runs no trial of the sweep yet")
	})
}

// reason is what members says of the sick host.
func (p *troubled) reason() string {
	p.t.Helper()
	all, err := p.Master.Agent.Members()
	if err != nil {
		return err.Error()
	}
	for _, m := range all {
		if m.Node == p.sick.Name {
			return m.Reason
		}
	}
	return "it is not there"
}

// awaitReason waits until members says why the sick host runs nothing.
func (p *troubled) awaitReason(part string) {
	p.t.Helper()
	hosts.WaitFor(p.t, hosts.Timeout, func() error {
		if why := p.reason(); !strings.Contains(why, part) {
			return fmt.Errorf("members says %q of the host, want %q in it", why, part)
		}
		return nil
	})
}

// shims gives the processes on a host that run its programs.
func shims(h *hosts.Host) (pids []int) {
	for _, p := range h.Processes.List() {
		if strings.Contains(p.Command, " shim --dir ") {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// shim waits for the process that runs the programs of the sick host. A child of it looks the same
// until it runs its own program, so it is looked for twice.
func (p *troubled) shim() (pid int) {
	p.t.Helper()
	var before []int
	hosts.WaitFor(p.t, hosts.Timeout, func() error {
		all := shims(p.sick)
		stayed := slices.DeleteFunc(slices.Clone(all), func(pid int) bool { return !slices.Contains(before, pid) })
		if before = all; len(stayed) > 0 {
			pid = stayed[len(stayed)-1]
			return nil
		}
		return errors.New("nothing runs the programs of the host")
	})
	return pid
}

func (p *troubled) killShims() {
	for range 6 {
		for _, h := range p.Hosts {
			for _, pid := range shims(h) {
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			}
		}
		wait(200 * time.Millisecond)
	}
}

// takeProcesses lets the host's programs start no process, as ulimit -u does for users other than
// root.
func (p *troubled) takeProcesses() {
	p.t.Helper()
	limit := func(text string) (found bool) {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/cgroup", p.shim())) // the pattern is right
		for _, file := range files {
			groups, _ := os.ReadFile(file) // the thread may have ended
			for line := range strings.Lines(string(groups)) {
				if _, path, ok := strings.Cut(strings.TrimSpace(line), ":pids:"); ok &&
					strings.Contains(path, "/slot-") {
					found = os.WriteFile(filepath.Join("/sys/fs/cgroup/pids", path, "pids.max"), []byte(text),
						0o600) == nil || found
				}
			}
		}
		return found
	}
	if !limit("1") {
		p.t.Skip("no slot of the host is in a cgroup of version 1 that limits processes")
	}
	p.awaitReason("reached its limit of processes")
	wait(time.Second)
	limit("max")
}

// takeFiles lets what runs the host's programs open no more files.
func (p *troubled) takeFiles() {
	p.t.Helper()
	pid := p.shim()
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		p.t.Fatal(err)
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, n := range []int{len(open), len(open) - 1, len(open) - 2, 4} {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: old.Max}, nil); err != nil {
			p.t.Fatal(err)
		}
		wait(300 * time.Millisecond)
	}
	p.awaitReason("open files")
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil); err != nil {
		p.t.Fatal(err)
	}
}

func (p *troubled) fillDisk() {
	p.sick.Disk.Fill()
	p.awaitReason("disk is full")
	wait(time.Second)
	p.sick.Disk.Free()
}

// startInVain kills the host's agent under its trials, and has the next ones fail at their start.
// Then the trials end, with their first attempts.
func (p *troubled) startInVain(times int, gate string) {
	p.t.Helper()
	p.waitForReported(3 * slotsOfHost)
	p.sick.Agent.Kill()
	var taken net.Listener
	err := p.sick.Network.RunInside(func() (err error) {
		taken, err = net.Listen("tcp", "0.0.0.0:7422")
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	for range times {
		if agent := p.Relaunch(p.sick); agent.Exit(hosts.Timeout) == 0 ||
			!strings.Contains(agent.Output(), "already in use") {
			p.t.Errorf("an agent without its port has printed\n%s", agent.Output())
		}
	}
	taken.Close()
	p.Relaunch(p.sick).WaitForOutput("node is up")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.finish(settle)
	for _, tr := range p.trials(p.client(p.Master)) {
		if tr.Attempts != 1 {
			p.t.Errorf("trial %d ran %d times, the last time on %s; want one attempt that outlives all agents",
				tr.Index, tr.Attempts, tr.Node)
		}
	}
}

// hangDriver has the program that asks for GPUs hang, and kills the host's agent.
func (p *troubled) hangDriver(programs string) {
	p.t.Helper()
	asked := filepath.Join(programs, "asked")
	script := "#!/bin/sh\n: >" + asked + "\nsleep 1000\n"
	if err := os.WriteFile(filepath.Join(programs, "nvidia-smi"), []byte(script), 0o700); err != nil {
		p.t.Fatal(err)
	}
	p.sick.Agent.Kill()
	began := time.Now()
	p.Relaunch(p.sick).WaitForOutput("node is up")
	for _, args := range [][]string{{"sweeps"}, {"results", string(p.sweep)}, {"members"}} {
		p.sick.Try(args...)
		p.Master.Must(args...)
	}
	if took := time.Since(began); took > 12*time.Second {
		p.t.Errorf("an agent's start and six commands took %v with a driver that hangs", took)
	}
	hosts.WaitFor(p.t, hosts.Timeout, func() error { _, err := os.Stat(asked); return err })
}
