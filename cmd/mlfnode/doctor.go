package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/cluster/inventory"
	"mlfnode/node"
	"mlfnode/node/doctor"
	"mlfnode/node/service"
)

func doctorCommand(a *app) *cobra.Command {
	seed, output, code := "", "", 1
	c := &cobra.Command{
		Use: "doctor", Short: "Check whether this machine can be a node, and say what to fix", Args: noArgument,
		Long: `doctor checks ports, clock, disk, memory, cgroups, names, GPUs and their driver, the container engine, the service and, with --seed,
the connection to the master. Each finding names its cause and a remedy. The exit code is 1 if any of them keeps the node from working.

With --classify it says which failure class a program's output has, and by which rule: those of failures.yaml in the current folder come
first, then those of this node, then mlfnode's own.`,
		Example: "  mlfnode doctor\n  mlfnode doctor --seed hostA --json\n  mlfnode doctor --classify train.log",
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" {
				return classifyOutput(a, output, code)
			}
			h, err := doctorHost(c.Context(), a, seed)
			if err != nil {
				return err
			}
			return showFindings(a.console, doctor.Check(c.Context(), h))
		},
	}
	c.Flags().StringVar(&seed, "seed", "", "the master to check, as `HOST` or HOST:PORT")
	c.Flags().StringVar(&output, "classify", "", "classify a program's output in `FILE` instead; - is standard input")
	c.Flags().IntVar(&code, "exit-code", 1, "with --classify: the program's exit code; above 128 a signal ended it")
	a.jsonFlag(c)
	return c
}

// gpuLimit bounds doctor's look at the GPUs.
const gpuLimit = 10 * time.Second

// gpuFacts asks the driver of this machine's GPUs, and names those that trials can have.
func gpuFacts(ctx context.Context) (facts doctor.GPUs, uuids []string) {
	ctx, stop := context.WithTimeout(ctx, gpuLimit)
	defer stop()
	m, err := inventory.Read(ctx)
	if err != nil {
		return doctor.GPUs{Problem: err.Error()}, nil
	}
	facts = doctor.GPUs{Driver: m.Driver, CUDA: m.CUDA, Problem: m.GPUProblem}
	for _, g := range m.GPUs {
		facts.Devices = append(facts.Devices, doctor.GPU{
			Name: g.Name, Problem: g.Problem, Recovery: g.Recovery.String(), Mode: g.Mode, Persistent: g.Persistence, MIG: g.MIG,
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

// doctorHost is this host as its settings describe it.
func doctorHost(ctx context.Context, a *app, seed string) (doctor.Host, error) {
	cfg, err := a.settings()
	if err != nil {
		return doctor.Host{}, err
	}
	facts := serviceFacts(ctx)
	gpus, uuids := gpuFacts(ctx)
	h := doctor.Host{
		StateDir: cfg.StateDir, Node: cfg.Node, Version: cfg.Version, Ports: ports(&cfg), Seed: seed,
		Bind: cfg.Cluster.Bind, Advertise: cfg.Cluster.Advertise, GPUs: gpus, Containers: node.ContainerFacts(ctx, cfg, uuids),
		Limits: doctor.Limits(facts), Service: facts, Running: node.Running(ctx, cfg),
	}
	askMaster(a, &h)
	if h.Master, h.Roots, err = node.Credentials(cfg); err != nil {
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

// serviceFacts looks for a service of the system first, then for one of this user.
func serviceFacts(ctx context.Context) *doctor.Service {
	f := &doctor.Service{Systemd: true}
	for _, user := range []bool{false, true} {
		s, err := service.Status(ctx, service.Home{User: user})
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

func showFindings(ui *console, found []doctor.Finding) error {
	ill := 0
	for _, f := range found {
		if f.State == doctor.Bad {
			ill++
		}
	}
	if err := printFindings(ui, found); err != nil {
		return err
	}
	if ill > 0 {
		return &failure{code: exitFailed}
	}
	return nil
}

// printFindings prints a line for each finding, and below it what to do. Cures are to be copied, so nothing of them is cut.
func printFindings(ui *console, found []doctor.Finding) error {
	if ui.json {
		return json.NewEncoder(ui.stdout).Encode(found)
	}
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
	return nil
}
