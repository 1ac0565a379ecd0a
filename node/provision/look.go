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
	"mlfnode/node/service"
)

// look says what is there.
func (w *work) look(ctx context.Context) error {
	seen := w.see(ctx)
	if !seen.Active && seen.Config != "" {
		seen.Problems = w.obstacles()
	}
	w.reply.Observed = &seen
	return nil
}

// obstacles are what keeps a node from working that does not answer.
func (w *work) obstacles() []protocol.Problem {
	cfg, err := w.settings(w.Config())
	if err != nil {
		return []protocol.Problem{*problemOf(w.wrongSettings(err, w.Config()))}
	}
	role := readRecord(w.Layout).Role
	var found []protocol.Problem
	for _, t := range w.takenPorts(cfg, role == string(trust.Master)) {
		found = append(found, *portProblem(t))
	}
	return found
}

// askPatience bounds the question to an agent, which may hang.
const askPatience = time.Second

// see looks at the machine.
func (w *work) see(ctx context.Context) protocol.Observed {
	s := protocol.Observed{Digest: w.programDigest(), BestService: protocol.ServiceBackground}
	if s.Digest != "" {
		s.Release = w.release
	}
	config, _ := os.ReadFile(w.Config())
	s.Config = string(config)
	w.seeIdentity(&s)
	w.seeService(ctx, &s)
	w.seeAgent(ctx, &s)
	r := readRecord(w.Layout)
	s.Stale = (s.Active || s.Service != "") && (r.Program != s.Digest || r.Config != digestOf(config))
	return s
}

func (w *work) seeIdentity(s *protocol.Observed) {
	id, err := trust.LoadIdentity(filepath.Join(w.State(), "trust"))
	if err == nil && node.CheckRestored(w.State()) == nil {
		cfg := config.Config{StateDir: w.State()}
		s.Moved, s.Node, s.Role, s.Cluster = node.Moved(cfg), string(id.Node), string(id.Role), id.Cluster.String()
		s.Joined = !s.Moved && !node.Refused(cfg)
	}
}

// seeService finds how the node is kept running, and what is the best way.
func (w *work) seeService(ctx context.Context, s *protocol.Observed) {
	homes := []service.Home{{}}
	if os.Getuid() != 0 {
		homes = []service.Home{{User: true}}
	}
	for _, h := range homes {
		state, err := service.Status(ctx, h)
		if err != nil {
			continue
		}
		if s.BestService = protocol.ServiceSystem; h.User {
			s.BestService = protocol.ServiceUser
		}
		if state.Installed && strings.HasPrefix(state.Program, w.Program()+" ") {
			s.Service, s.PID, s.Linger = s.BestService, state.PID, state.Linger
		}
	}
	if own, _ := supervisor(w.Layout); own.PID > 0 {
		s.Service, s.PID = protocol.ServiceBackground, own.PID
	}
}

// seeAgent asks the agent.
func (w *work) seeAgent(ctx context.Context, s *protocol.Observed) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	session, about := node.At(ctx, config.Config{StateDir: w.State()})
	if session == nil {
		return
	}
	defer session.Close()
	s.Active, s.Working, s.Running = true, about.Working, about.Version
	if s.PID == 0 {
		s.PID = about.PID
	}
}

// agentPID gives the process of the agent that answers, 0 when none does.
func (w *work) agentPID(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	session, about := node.At(ctx, config.Config{StateDir: w.State()})
	if session == nil {
		return 0
	}
	defer session.Close()
	return about.PID
}

// foreign refuses a machine on which a service of another installation runs.
func (w *work) foreign(ctx context.Context) error {
	h := service.Home{User: os.Getuid() != 0}
	state, err := service.Status(ctx, h)
	if err != nil || !state.Installed || strings.HasPrefix(state.Program, w.Program()+" ") {
		return nil
	}
	cure := "mlfnode service uninstall"
	if h.User {
		cure += " --user"
	}
	return &protocol.Problem{Cause: "another mlfnode is a service of this machine: " + state.Program, Cure: "on this machine: " + cure}
}
