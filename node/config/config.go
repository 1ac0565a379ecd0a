// Package config is the settings of one node: flags override the environment (MLF_*), which
// overrides node.yaml, which overrides the defaults. It reads files and variables, and touches no
// GPU and no network: every command loads the settings, and so does an agent whose programs wait
// for it.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/worker"
	"mlfnode/node/worker/allocator"
	gpuwatch "mlfnode/node/worker/devices"
)

// Config is the settings of one node. The node.yaml in the root of the repository explains each of
// them.
type Config struct {
	StateDir  string
	Node      grid.NodeID
	Labels    []string          // by which tasks select the node
	Machine   inventory.Machine // what trials may use; without GPUs, which the running node detects
	Retention Retention
	Cluster   Cluster
	Devices   worker.Policy // what trials may have of the machine's GPUs
	Engine    Engine

	CheckpointRate int64 // limit of checkpoint traffic in each direction, in bytes per second; 0 means no limit

	Version  string // of this program
	Logger   *slog.Logger
	Executor executor.Executor // nil runs processes and containers
	GPUs     inventory.Source  // nil asks the driver of this machine

	CertificateLife time.Duration // of certificates that a master signs; 0 is a year. Only tests set it
}

// Retention bounds what the node keeps.
type Retention struct {
	Sweeps    int           // ended sweeps kept, the newest; 0 keeps all
	Age       time.Duration // ended sweeps older than this go; 0 keeps them
	Logs      int64         // bytes of output, the newest
	Events    int64         // bytes of events; when full, trials wait
	Artifacts int64         // bytes of artifacts
	Bundles   int64         // bytes of bundles
	Projects  int64         // bytes of unpacked projects and setups on each node; 0 is a tenth of the disk

	Checkpoints int64 // bytes of snapshots; when full, new ones are refused
}

// fileSettings is node.yaml. Every value is read as text, so that an invalid one is explained in
// the same words as one in the environment. The tag named form gives its type in the JSON Schema,
// see JSONSchema.
type fileSettings struct {
	State  string `yaml:"state" form:"text"`
	Node   string `yaml:"node" form:"text"`
	Labels texts  `yaml:"labels" form:"texts"`
	CPUs   string `yaml:"cpus" form:"amount"`
	Memory string `yaml:"memory" form:"size"`

	GPUs struct {
		Use     texts  `yaml:"use" form:"texts"`
		Foreign string `yaml:"foreign" form:"avoid,ignore"`
		Reserve string `yaml:"reserve" form:"size"`
		Share   string `yaml:"share" form:"positive"`
	} `yaml:"gpus"`

	clusterSettings `yaml:",inline"`
	engineSettings  `yaml:",inline"`

	Retention struct {
		Sweeps    string `yaml:"sweeps" form:"count"`
		Age       string `yaml:"age" form:"duration"`
		Logs      string `yaml:"logs" form:"size"`
		Events    string `yaml:"events" form:"size"`
		Artifacts string `yaml:"artifacts" form:"size"`
		Bundles   string `yaml:"bundles" form:"size"`
		Projects  string `yaml:"projects" form:"size"`

		Checkpoints string `yaml:"checkpoints" form:"size"`
	} `yaml:"retention"`

	Checkpoints struct {
		Rate string `yaml:"rate" form:"size"`
	} `yaml:"checkpoints"`
}

// texts is a list of texts; a single text may stand for a list of one.
type texts []string

// UnmarshalYAML implements yaml.Unmarshaler.
func (t *texts) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*t = texts{n.Value}
		return nil
	}
	return n.Decode((*[]string)(t))
}

// Load reads the settings of this machine's node. If file is empty, it reads $MLF_CONFIG, else
// node.yaml in the user's configuration folder, else /etc/mlfnode/node.yaml if it is readable, else
// none. The error lists every problem.
func Load(file string) (Config, error) {
	c, err := defaults()
	if err != nil {
		return c, err
	}
	s, name, err := readSettings(file)
	if err != nil {
		return c, err
	}
	var problems []error
	set := func(key, env, value string, apply func(string) error) {
		from := name + ", " + key
		if v := os.Getenv(env); v != "" {
			value, from = v, env
		}
		if value == "" {
			return
		}
		if err := apply(value); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", from, err))
		}
	}
	set("state", "MLF_STATE", s.State, func(v string) (err error) { c.StateDir, err = StatePath(v); return })
	if c.StateDir == "" {
		if c.StateDir, err = stateHome(); err != nil {
			return c, err
		}
	}
	set("node", "MLF_NODE", s.Node, func(v string) error { c.Node = grid.NodeID(v); return checkName(v) })
	set("labels", "MLF_LABELS", strings.Join(s.Labels, ","), labels(&c.Labels))
	set("cpus", "MLF_CPUS", s.CPUs, func(v string) (err error) { c.Machine.CPUs, err = positive(v); return })
	set("memory", "MLF_MEMORY", s.Memory, size(&c.Machine.Memory))
	set("gpus.use", "MLF_GPUS_USE", strings.Join(s.GPUs.Use, ","), devices(&c.Devices))
	set("gpus.foreign", "MLF_GPUS_FOREIGN", s.GPUs.Foreign, func(v string) error {
		if c.Devices.Foreign = gpuwatch.Foreign(v); c.Devices.Foreign != gpuwatch.Avoid &&
			c.Devices.Foreign != gpuwatch.Ignore {
			return fmt.Errorf("%q is neither avoid nor ignore", v)
		}
		return nil
	})
	set("gpus.reserve", "MLF_GPUS_RESERVE", s.GPUs.Reserve, size(&c.Devices.Reserve))
	set("gpus.share", "MLF_GPUS_SHARE", s.GPUs.Share, func(v string) (err error) {
		if c.Devices.Share, err = count(v); err == nil && c.Devices.Share == 0 {
			err = fmt.Errorf("%q would keep every trial off the GPUs; write 1 or more", v)
		}
		return err
	})
	c.Cluster.read(&s.clusterSettings, set)
	c.Engine.read(&s.engineSettings, set)
	r, k := s.Retention, &c.Retention
	set("retention.sweeps", "MLF_RETENTION_SWEEPS", r.Sweeps, func(v string) (err error) {
		k.Sweeps, err = count(v)
		return
	})
	set("retention.age", "MLF_RETENTION_AGE", r.Age, func(v string) (err error) { k.Age, err = duration(v); return })
	set("retention.logs", "MLF_RETENTION_LOGS", r.Logs, size(&k.Logs))
	set("retention.events", "MLF_RETENTION_EVENTS", r.Events, size(&k.Events))
	set("retention.artifacts", "MLF_RETENTION_ARTIFACTS", r.Artifacts, size(&k.Artifacts))
	set("retention.bundles", "MLF_RETENTION_BUNDLES", r.Bundles, size(&k.Bundles))
	set("retention.projects", "MLF_RETENTION_PROJECTS", r.Projects, size(&k.Projects))
	set("retention.checkpoints", "MLF_RETENTION_CHECKPOINTS", r.Checkpoints, size(&k.Checkpoints))
	set("checkpoints.rate", "MLF_CHECKPOINTS_RATE", s.Checkpoints.Rate, func(v string) error {
		if v == "0" {
			c.CheckpointRate = 0
			return nil
		}
		return size(&c.CheckpointRate)(v)
	})
	return c, errors.Join(problems...)
}

// WithinTrial limits the settings to the resources of the trial in which this process runs.
func (c *Config) WithinTrial() error {
	var problems []error
	for name, apply := range map[string]func(string) error{
		"MLF_TRIAL_CPUS":   func(v string) (err error) { c.Machine.CPUs, err = positive(v); return },
		"MLF_TRIAL_MEMORY": size(&c.Machine.Memory),
		"MLF_TRIAL_GPUS":   devices(&c.Devices),
	} {
		if v := os.Getenv(name); v != "" {
			if err := apply(v); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	c.Devices.Foreign = gpuwatch.Ignore // the trial's own program may use its GPUs at the same time
	return errors.Join(problems...)
}

// SetAdvertise sets the address under which others reach this node; "" changes nothing.
func (c *Config) SetAdvertise(text string) error {
	if text == "" {
		return nil
	}
	return address(&c.Cluster.Advertise)(text)
}

// SetNode sets the name of this node; "" changes nothing.
func (c *Config) SetNode(text string) error {
	if text == "" {
		return nil
	}
	c.Node = grid.NodeID(text)
	return checkName(text)
}

// DefaultRetention returns what a node keeps by default.
func DefaultRetention() Retention {
	return Retention{Sweeps: 1000, Logs: 10 << 30, Events: 20 << 30, Artifacts: 50 << 30, Bundles: 10 << 30,
		Checkpoints: 100 << 30}
}

// defaultCheckpointRate is about half of what a network of 1 Gbit/s carries.
const defaultCheckpointRate = 60_000_000

func defaults() (Config, error) {
	c := Config{
		Retention: DefaultRetention(), CheckpointRate: defaultCheckpointRate, Cluster: DefaultCluster(),
		Engine: DefaultEngine(), Logger: slog.New(slog.DiscardHandler),
		Devices: worker.Policy{Reserve: worker.DefaultReserve, Share: allocator.DefaultShare, Foreign: gpuwatch.Avoid},
	}
	var err error
	if c.Machine, err = inventory.Size(); err != nil {
		return c, err
	}
	host, err := os.Hostname()
	if err != nil {
		return c, fmt.Errorf("find this machine's name: %w", err)
	}
	name, _, _ := strings.Cut(host, ".")
	c.Node = grid.NodeID(cleanName(name))
	return c, nil
}

// stateHome returns the default state folder by the XDG base directory specification.
func stateHome() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "mlfnode"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for state: %w; set that, MLF_STATE, or state in node.yaml", err)
	}
	return filepath.Join(home, ".local", "state", "mlfnode"), nil
}
