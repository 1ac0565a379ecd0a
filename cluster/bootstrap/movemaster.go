package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
	"mlfnode/grid"
)

// Move is the step of MoveMaster.
const Move Step = "move"

// MoveMaster makes another machine of the cluster the master, with all that the old one stores:
// both are stopped, the state is copied, the roles in o.Cluster are changed and stored with save,
// and Up does the rest, which puts the old state aside. Trials on other machines continue. Once the
// copy is made, the old master no longer starts: until the roles are stored, calling MoveMaster
// again completes the move, and from then on Up does. If it fails before, Up brings the cluster up
// as it was.
func MoveMaster(ctx context.Context, o Options, to string, save func(*Cluster) error) ([]Outcome, error) {
	all, err := moveState(ctx, o, to)
	if err != nil || slices.ContainsFunc(all, func(o Outcome) bool { return !o.OK }) {
		return all, err
	}
	old := o.Cluster.findHost(func(h *Host) bool { return h.HasRole(grid.Master) })
	master := o.Cluster.findHost(func(h *Host) bool { return h.isNamed([]string{to}) })
	master.setRole(grid.Master, true)
	old.setRole(grid.Master, false)
	if err := save(o.Cluster); err != nil {
		return nil, problem(fmt.Sprintf("%s has the state of the master %s, but cluster.yaml could not be changed: %s",
			master.Name, old.Name, err),
			"fix that, and run this again: mlfnode move-master "+to)
	}
	up := Up(ctx, o)
	for i := range up {
		for j := range all {
			if all[j].Host == up[i].Host {
				up[i].Changed, up[i].Notes = append(all[j].Changed, up[i].Changed...),
					append(all[j].Notes, up[i].Notes...)
				up[i].Cluster = append(all[j].Cluster, up[i].Cluster...)
			}
		}
	}
	return up, nil
}

// findHost returns the first such host, or nil if there is none.
func (c *Cluster) findHost(is func(*Host) bool) *Host {
	for i := range c.Hosts {
		if is(&c.Hosts[i]) {
			return &c.Hosts[i]
		}
	}
	return nil
}

// moveState does the part of MoveMaster that Up does not do.
func moveState(ctx context.Context, o Options, name string) ([]Outcome, error) {
	r := newOperation(o)
	defer r.close()
	if err := r.machines.checkNames([]string{name}); err != nil {
		return nil, err
	}
	old, _ := r.machines.masterAndWorkers()
	to := r.machines[slices.IndexFunc(r.machines, func(m *machine) bool { return m.isNamed([]string{name}) })]
	switch old {
	case nil:
		return nil, problem("no host of the cluster is the master", "run it where the cluster.yaml of the master is")
	case to:
		return nil, problem(to.Name+" is already the master", "")
	}
	r.machines = []*machine{old, to}
	r.forEach(r.machines, func(m *machine) { r.inspect(ctx, m) })
	r.refuseDuplicates(ctx)
	if !r.checkMovable(old, to) {
		return r.results(), nil
	}
	if holdsCopy(old, to) {
		r.step(to, Move, func() (string, error) { return "has the state of " + old.Name, nil })
		return r.results(), nil
	}
	if to.observed != nil && to.observed.Joined {
		r.forEach([]*machine{to}, func(m *machine) { // while the master runs and can record how the trials ended
			r.stop(ctx, m, protocol.Request{Purge: true})
			m.facts.Digest, m.observed = "", nil
		})
		r.forEach([]*machine{old}, func(m *machine) {
			r.step(m, Move, func() (string, error) { return "freed its name", to.releaseName(ctx, m) })
		})
	}
	r.forEach([]*machine{to}, func(m *machine) {
		_ = r.ok(old) && r.step(m, Install, func() (string, error) { return r.install(ctx, m) })
	})
	r.forEach([]*machine{old}, func(m *machine) {
		if r.ok(to) {
			r.stop(ctx, m, protocol.Request{})
		}
	})
	r.forEach([]*machine{to}, func(m *machine) {
		if r.ok(old) {
			r.step(m, Move, func() (string, error) { return "moved the state of " + old.Name, copyMaster(ctx, old, m) })
		}
	})
	return r.results(), nil
}

// checkMovable reports whether old runs the master, and to has nothing that would be lost.
func (r *operation) checkMovable(old, to *machine) bool {
	refuse := func(m *machine, p *shell.Problem) {
		if r.ok(m) {
			r.fail(m, Check, p)
		}
	}
	if old.observed == nil || old.observed.Role != grid.Master || !old.observed.Active && !old.observed.Moved {
		refuse(old, problem("the master is not running there", "start the cluster first: mlfnode up -f"))
	}
	if seen := to.observed; seen != nil && seen.Moved {
		refuse(to, problem("this machine has the state of a master that was moved",
			"move that state aside with: mlfnode up -f"))
	} else if seen != nil && seen.Joined && old.observed != nil && !holdsCopy(old, to) {
		switch {
		case seen.Role == grid.Worker && old.observed.Moved:
			refuse(old, interruptedMove(old))
		case seen.Role == grid.Master:
			refuse(to, problem("this machine is a master already, and its results would be lost",
				"choose another one, or: mlfnode down "+to.Name+" --purge"))
		case seen.Cluster != old.observed.Cluster:
			refuse(to, protocol.OtherCluster(seen.Node, seedOf(seen.Config)))
		}
	}
	return r.ok(old) && r.ok(to)
}

// holdsCopy reports whether to has a complete copy of the old master's state, from an interrupted
// move.
func holdsCopy(old, to *machine) bool {
	return old.observed != nil && old.observed.Moved && to.observed != nil && to.observed.Joined &&
		to.observed.Role == grid.Master && to.observed.Cluster == old.observed.Cluster
}

// interruptedMove reports that another machine may have a copy of the master's state.
func interruptedMove(m *machine) *shell.Problem {
	state := m.facts.Layout.State()
	return problem("a move of this master to another machine was interrupted; its state is in "+state+
		" there, and on the other machine if it was copied",
		"complete it, with the same HOST: mlfnode move-master HOST; or, if no other machine has it, on this one: rm "+
			state+"/moved")
}

// unretireScript lets the old master start again.
const unretireScript = `rm -f STATE/moved`

// copyMaster copies the master's state from old to to.
func copyMaster(ctx context.Context, old, to *machine) error {
	read, write := io.Pipe()
	var sent error
	var sending sync.WaitGroup
	sending.Go(func() {
		sent = old.shell.Run(ctx, old.commandLine("", "--config", old.facts.Layout.Config(), "backup", "--move", "-"),
			nil, write)
		write.CloseWithError(sent)
	})
	err := to.shell.Run(ctx, to.commandLine("env MLF_NODE="+shell.Quote(to.Name)+" ", "restore", "-"), read, nil)
	read.CloseWithError(errors.New("the other machine stopped reading"))
	sending.Wait()
	exit, failed := errors.AsType[*shell.ExitError](sent)
	if err == nil || failed && exit.Stderr != "" { // then the other error only follows from sent
		err = sent
	}
	if err != nil {
		again := strings.ReplaceAll(unretireScript, "STATE", shell.Quote(old.facts.Layout.State()))
		_ = old.shell.Run(context.WithoutCancel(ctx), again, nil, nil) // the first error counts
		message := lastLine(err.Error())
		for line := range strings.Lines(err.Error()) { // mlfnode's message counts, not its hint and its log
			if said, ok := strings.CutPrefix(line, "mlfnode: "); ok {
				message = protocol.Line(said)
			}
		}
		return problem(fmt.Sprintf("could not copy the state of %s: %s", old.Name, message),
			"the cluster comes up as it was with: mlfnode up -f")
	}
	return nil
}
