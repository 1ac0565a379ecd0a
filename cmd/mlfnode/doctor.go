package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/doctor"
	"mlfnode/node/membership"
	"mlfnode/node/service"
)

func doctorCommand(a *app) *cobra.Command {
	seed, output, code := "", "", 1
	c := &cobra.Command{
		Use: "doctor", Short: "Check whether this machine can be a node, and say what to fix", Args: noArgument,
		Long: `doctor checks ports, clock, disk, memory, cgroups, names, GPUs and their driver, the container
engine, the service and, with --seed, the connection to the master. Each finding names its cause and
a remedy. The exit code is 1 if any of them keeps the node from working.

With --classify it says which failure class a program's output has, and by which rule: those of
failures.yaml in the current folder come first, then those of this node, then mlfnode's own.`,
		Example: `  mlfnode doctor
  mlfnode doctor --seed hostA --json
  mlfnode doctor --classify train.log`,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" {
				return classifyOutput(a, output, code)
			}
			h, err := doctorHost(c.Context(), a, seed)
			if err != nil {
				return err
			}
			return printFindings(a.console, doctor.Check(c.Context(), h))
		},
	}
	c.Flags().StringVar(&seed, "seed", "", "the master to check, as `HOST` or HOST:PORT")
	c.Flags().StringVar(&output, "classify", "", "classify a program's output in `FILE` instead; - is standard input")
	c.Flags().IntVar(&code, "exit-code", 1, "with --classify: the program's exit code; above 128 a signal ended it")
	a.jsonFlag(c)
	return c
}

// gpuQueryTimeout bounds how long doctor queries the GPUs.
const gpuQueryTimeout = 10 * time.Second

// queryGPUs asks the driver for this machine's GPUs and returns the UUIDs of those that trials can
// have.
func queryGPUs(ctx context.Context) (facts doctor.GPUs, uuids []string) {
	ctx, stop := context.WithTimeout(ctx, gpuQueryTimeout)
	defer stop()
	m, err := inventory.Read(ctx)
	if err != nil {
		return doctor.GPUs{Problem: err.Error()}, nil
	}
	facts = doctor.GPUs{Driver: m.Driver, CUDA: m.CUDA, Problem: m.GPUProblem}
	for _, g := range m.GPUs {
		facts.Devices = append(facts.Devices, doctor.GPU{
			Name: g.Name, Problem: g.Problem, Recovery: g.Recovery.String(), Mode: g.Mode, Persistent: g.Persistence,
			MIG:       g.MIG,
			Instances: len(g.Instances),
		})
		if !g.MIG {
			uuids = append(uuids, g.UUID)
		}
		for _, i := range g.Instances {
			uuids = append(uuids, i.UUID)
		}
	}
	return facts, uuids
}

// doctorHost describes this host for doctor, by its settings.
func doctorHost(ctx context.Context, a *app, seed string) (doctor.Host, error) {
	cfg, err := a.settings()
	if err != nil {
		return doctor.Host{}, err
	}
	facts := queryService(ctx)
	gpus, uuids := queryGPUs(ctx)
	ports := cfg.Cluster.Ports
	h := doctor.Host{
		StateDir: cfg.StateDir, Version: cfg.Version, RemoteMaster: doctor.RemoteMaster{Seed: seed},
		Ports: doctor.Ports{API: ports.API, NATS: ports.NATS, Gossip: ports.Gossip},
		Bind:  cfg.Cluster.Bind, Advertise: cfg.Cluster.Advertise, GPUs: gpus,
		Containers: node.ContainerFacts(ctx, cfg, uuids),
		Limits:     doctor.Limits(facts), Service: facts, Running: node.Running(ctx, cfg),
	}
	if contact, err := a.contact(); err == nil && contact != nil { // else the host is checked without the master
		m := &masterProbe{client: contact.Client(), node: cfg.Node, agent: h.Running}
		h.AskMaster, h.DialBack = func(ctx context.Context) (doctor.MasterInfo, error) {
			about, err := m.client.Node(ctx)
			return doctor.MasterInfo{Time: about.Time, Version: about.Version}, err
		}, m.reachPort
	}
	if h.Master, h.Roots, err = membership.Credentials(cfg.StateDir); err != nil {
		return h, err
	}
	if seed == "" {
		seed, h.Seed = cfg.Cluster.Seed, cfg.Cluster.Seed
	}
	if host, port, err := net.SplitHostPort(seed); err == nil {
		if h.Seed = host; port != "" {
			h.Ports.API, err = strconv.Atoi(port)
		}
		if err != nil {
			return h, usage(fmt.Sprintf("--seed %s: %q is not a port", seed, port), "--seed HOST or --seed HOST:PORT")
		}
	}
	return h, nil
}

// queryService looks for a system service first, then for one of this user.
func queryService(ctx context.Context) *doctor.Service {
	f := &doctor.Service{Systemd: true}
	for _, user := range []bool{false, true} {
		s, err := service.Status(ctx, service.Manager{User: user})
		if errors.Is(err, service.ErrNoSystemd) {
			f.Systemd = false
			return f
		}
		if err == nil && s.Installed {
			f.Installed, f.Active, f.User, f.Linger = true, s.Active == "active", user, s.Linger
			return f
		}
	}
	return f
}

// printFindings prints a line for each finding, and below it what to do. Cures are meant to be
// copied, so they are never truncated. It fails if a finding keeps the node from working.
func printFindings(ui *console, found []doctor.Finding) error {
	if ui.json {
		if err := json.NewEncoder(ui.stdout).Encode(found); err != nil {
			return err
		}
	} else {
		wide := 0
		for _, f := range found {
			wide = max(wide, len(f.Name))
		}
		for _, f := range found {
			fmt.Fprintf(ui.stdout, "%-4s  %-*s  %s\n", f.State, wide, f.Name, oneLine(f.Cause))
			if f.Cure != "" {
				fmt.Fprintf(ui.stdout, "%-*s    try: %s\n", wide+4, "", oneLine(f.Cure))
			}
		}
	}
	if slices.ContainsFunc(found, func(f doctor.Finding) bool { return f.State == doctor.Bad }) {
		return &failure{code: exitFailed}
	}
	return nil
}

// masterProbe asks the master about this host: what time it is there, and whether it can reach this
// host.
type masterProbe struct {
	client *api.Client
	node   grid.NodeID
	agent  bool // a node of this host listens on the ports
}

// reachPort has the master connect to a port of this host. If no node listens there, this process
// does meanwhile.
func (m *masterProbe) reachPort(ctx context.Context, network, port string) error {
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	switch {
	case network == "udp" && m.agent:
		return m.seenByGossip(ctx)
	case network == "udp":
		return m.receiveWord(ctx, number)
	case !m.agent:
		l, err := net.Listen("tcp", net.JoinHostPort("", port))
		if err != nil {
			return err
		}
		defer l.Close()
	}
	return m.tryPort(ctx, api.Reach{Network: network, Port: number})
}

// tryPort has the master connect to a port.
func (m *masterProbe) tryPort(ctx context.Context, r api.Reach) error {
	err := m.client.Members().Reach(ctx, r)
	var refusal *api.Error
	if errors.As(err, &refusal) && refusal.Status == api.StatusSameHost {
		return doctor.ErrSameHost
	}
	return err
}

// seenByGossip checks that the master's gossip, which uses UDP, sees this host's node as alive.
func (m *masterProbe) seenByGossip(ctx context.Context) error {
	all, err := m.client.Members().List(ctx)
	if err != nil {
		return err
	}
	return checkAlive(all, m.node)
}

// checkAlive returns an error unless the node is among the members and alive. A node that gossip
// does not see gets no trials.
func checkAlive(all []api.Member, node grid.NodeID) error {
	i := slices.IndexFunc(all, func(m api.Member) bool { return m.Node == node })
	switch {
	case i < 0:
		return errors.New("its gossip does not see this node, so this node gets no trials")
	case all[i].State != "alive":
		return fmt.Errorf("its gossip lists this node as %s", all[i].State)
	}
	return nil
}

// receiveWord waits for the packet that the master sends.
func (m *masterProbe) receiveWord(ctx context.Context, port int) error {
	l, err := net.ListenPacket("udp", net.JoinHostPort("", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer l.Close()
	word := rand.Text()
	if err := m.tryPort(ctx, api.Reach{Network: "udp", Port: port, Word: word}); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := l.SetReadDeadline(deadline); err != nil {
			return err
		}
	}
	b := make([]byte, 512)
	for {
		n, _, err := l.ReadFrom(b)
		if err != nil {
			return errors.New("packets do not arrive")
		}
		if string(b[:n]) == word {
			return nil
		}
	}
}
