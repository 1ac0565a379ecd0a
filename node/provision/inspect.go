package provision

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/membership"
	"mlfnode/node/service"
)

// inspect reports what is on the machine.
func (o *operation) inspect(ctx context.Context) error {
	seen := o.observe(ctx)
	if !seen.Active && seen.Config != "" { // what keeps the node from starting
		cfg, err := o.loadConfig(o.Config())
		if err != nil {
			seen.Problems = []protocol.Problem{*problemOf(configProblem(o.Layout, err, o.Config()))}
		} else {
			_, taken := ports(o.Layout, cfg, readRecord(o.Layout).Role == grid.Master)
			for _, t := range taken {
				seen.Problems = append(seen.Problems, *portProblem(t))
			}
		}
	}
	o.response.Observed = &seen
	return nil
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
	id, err := trust.LoadIdentity(filepath.Join(i.State(), "trust"))
	if err == nil && node.CheckRestored(i.State()) == nil {
		cfg := stateOf(i.Layout)
		s.Moved, s.Node, s.Role, s.Cluster = node.Moved(cfg), string(id.Node), id.Role, id.Cluster.String()
		s.Joined = !s.Moved && !membership.Refused(cfg.StateDir)
	}
	observeService(ctx, i.Layout, &s)
	if about := askAgent(ctx, i.Layout); about != nil {
		s.Active, s.Working, s.Running, s.PID = true, about.Working, about.Version, cmp.Or(s.PID, about.PID)
	}
	r, sum := readRecord(i.Layout), sha256.Sum256(config)
	s.Stale = (s.Active || s.Service != "") && (r.Program != s.Digest || r.Config != hex.EncodeToString(sum[:]))
	return s
}

// observeService finds out what keeps the node running, and what could do so best.
func observeService(ctx context.Context, p protocol.Layout, s *protocol.Observed) {
	h := service.Manager{User: os.Getuid() != 0}
	if state, err := service.Status(ctx, h); err == nil {
		if s.BestService = protocol.ServiceSystem; h.User {
			s.BestService = protocol.ServiceUser
		}
		if state.Installed && strings.HasPrefix(state.Program, p.Program()+" ") {
			s.Service, s.PID, s.Linger = s.BestService, state.PID, state.Linger
		}
	}
	if own, _ := findSupervisor(p); own.PID > 0 {
		s.Service, s.PID = protocol.ServiceBackground, own.PID
	}
}

// agentPID returns the process ID of the agent that answers, or 0 if none does.
func agentPID(ctx context.Context, p protocol.Layout) int {
	about := askAgent(ctx, p)
	if about == nil {
		return 0
	}
	return about.PID
}

// askAgent returns what the agent says about itself, or nil if none answers.
func askAgent(ctx context.Context, p protocol.Layout) *api.Node {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	session, about := node.At(ctx, stateOf(p))
	if session == nil {
		return nil
	}
	_ = session.Close() // nothing is under way
	return &about
}

// stateOf returns settings with nothing but the state folder.
func stateOf(p protocol.Layout) config.Config { return config.Config{StateDir: p.State()} }
