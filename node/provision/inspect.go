package provision

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/trust"
	"mlfnode/node"
	"mlfnode/node/config"
	"mlfnode/node/membership"
	"mlfnode/node/service"
)

// inspect reports what is on the machine.
func (o *operation) inspect(ctx context.Context) error {
	seen := o.observe(ctx)
	if !seen.Active && seen.Config != "" {
		seen.Problems = o.startProblems()
	}
	o.response.Observed = &seen
	return nil
}

// startProblems returns what keeps a node that does not answer from working.
func (i *installation) startProblems() []protocol.Problem {
	cfg, err := i.loadConfig(i.Config())
	if err != nil {
		return []protocol.Problem{*problemOf(i.configProblem(err, i.Config()))}
	}
	role := readRecord(i.Layout).Role
	var found []protocol.Problem
	for _, t := range i.takenPorts(cfg, role == string(trust.Master)) {
		found = append(found, *portProblem(t))
	}
	return found
}

// agentTimeout bounds a request to the agent, which may hang.
const agentTimeout = time.Second

// observe returns the state of the machine.
func (i *installation) observe(ctx context.Context) protocol.Observed {
	s := protocol.Observed{Digest: i.programDigest(), BestService: protocol.ServiceBackground}
	if s.Digest != "" {
		s.Release = i.release
	}
	config, _ := os.ReadFile(i.Config())
	s.Config = string(config)
	i.observeIdentity(&s)
	i.observeService(ctx, &s)
	i.observeAgent(ctx, &s)
	r := readRecord(i.Layout)
	s.Stale = (s.Active || s.Service != "") && (r.Program != s.Digest || r.Config != digestOf(config))
	return s
}

func (i *installation) observeIdentity(s *protocol.Observed) {
	id, err := trust.LoadIdentity(filepath.Join(i.State(), "trust"))
	if err == nil && node.CheckRestored(i.State()) == nil {
		cfg := config.Config{StateDir: i.State()}
		s.Moved, s.Node, s.Role, s.Cluster = node.Moved(cfg), string(id.Node), string(id.Role), id.Cluster.String()
		s.Joined = !s.Moved && !membership.Refused(cfg.StateDir)
	}
}

// observeService finds out what keeps the node running, and what could do so best.
func (i *installation) observeService(ctx context.Context, s *protocol.Observed) {
	homes := []service.Manager{{}}
	if os.Getuid() != 0 {
		homes = []service.Manager{{User: true}}
	}
	for _, h := range homes {
		state, err := service.Status(ctx, h)
		if err != nil {
			continue
		}
		if s.BestService = protocol.ServiceSystem; h.User {
			s.BestService = protocol.ServiceUser
		}
		if state.Installed && strings.HasPrefix(state.Program, i.Program()+" ") {
			s.Service, s.PID, s.Linger = s.BestService, state.PID, state.Linger
		}
	}
	if own, _ := findSupervisor(i.Layout); own.PID > 0 {
		s.Service, s.PID = protocol.ServiceBackground, own.PID
	}
}

// observeAgent asks the agent.
func (i *installation) observeAgent(ctx context.Context, s *protocol.Observed) {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	session, about := node.At(ctx, config.Config{StateDir: i.State()})
	if session == nil {
		return
	}
	defer session.Close()
	s.Active, s.Working, s.Running = true, about.Working, about.Version
	if s.PID == 0 {
		s.PID = about.PID
	}
}

// agentPID returns the process ID of the agent that answers, or 0 if none does.
func (i *installation) agentPID(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	session, about := node.At(ctx, config.Config{StateDir: i.State()})
	if session == nil {
		return 0
	}
	defer session.Close()
	return about.PID
}

// refuseOtherInstallation refuses a machine on which a service of another installation runs.
func (i *installation) refuseOtherInstallation(ctx context.Context) error {
	h := service.Manager{User: os.Getuid() != 0}
	state, err := service.Status(ctx, h)
	if err != nil || !state.Installed || strings.HasPrefix(state.Program, i.Program()+" ") {
		return nil
	}
	cure := "mlfnode service uninstall"
	if h.User {
		cure += " --user"
	}
	return &protocol.Problem{Cause: "another mlfnode is a service of this machine: " + state.Program, Cure: "on this machine: " + cure}
}
