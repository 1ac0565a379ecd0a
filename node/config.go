package node

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"gopkg.in/yaml.v3"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/grid/lazyregexp"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
	"mlfnode/node/worker"
	"mlfnode/node/worker/allocator"
	gpuwatch "mlfnode/node/worker/devices"
)

// Config is one node's settings: flags over environment MLF_* over node.yaml over defaults. Node.yaml in the repository's
// root explains each.
type Config struct {
	StateDir  string
	Node      grid.NodeID
	Labels    []string          // by which tasks name it
	Machine   inventory.Machine // what trials may use; settings know no GPUs, which the node itself looks for
	Retention Retention
	Cluster   Cluster
	Devices   worker.Policy // what trials may have of the machine's GPUs
	Engine    Engine

	CheckpointRate int64 // bytes of checkpoints that the node sends and fetches each second, at most; 0 is no limit

	Version  string            // of this program
	Logger   *slog.Logger      // for what an operator wants to know
	Executor executor.Executor // nil runs processes
	GPUs     inventory.Source  // nil reads this machine's driver

	CertificateLife time.Duration // of the certificates that a master signs; 0 is a year. No setting: it is for tests
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

func (c Config) limits() jetstream.Limits {
	r := c.Retention
	return jetstream.Limits{LogBytes: r.Logs, EventBytes: r.Events, ArtifactBytes: r.Artifacts, BundleBytes: r.Bundles}
}

// settings is node.yaml. Every value is read as text, so that a wrong one is explained like one in the
// environment. The tags named form are for editors, see JSONSchema.
type settings struct {
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

// texts is a list, for which one value may stand alone.
type texts []string

// UnmarshalYAML implements yaml.Unmarshaler.
func (t *texts) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*t = texts{n.Value}
		return nil
	}
	return n.Decode((*[]string)(t))
}

// LoadConfig reads the settings of this machine's node. It touches no hardware: every command reads them, and so does an agent whose
// programs wait for it. An empty file means $MLF_CONFIG, else node.yaml in the user's
// configuration folder, else /etc/mlfnode/node.yaml where it may be read, else none. The error lists every problem that was found.
func LoadConfig(file string) (Config, error) {
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
		if c.Devices.Foreign = gpuwatch.Foreign(v); c.Devices.Foreign != gpuwatch.Avoid && c.Devices.Foreign != gpuwatch.Ignore {
			return fmt.Errorf("%q is neither avoid nor ignore", v)
		}
		return nil
	})
	set("gpus.reserve", "MLF_GPUS_RESERVE", s.GPUs.Reserve, size(&c.Devices.Reserve))
	set("gpus.share", "MLF_GPUS_SHARE", s.GPUs.Share, func(v string) (err error) {
		if c.Devices.Share, err = count(v); err == nil && c.Devices.Share == 0 {
			err = fmt.Errorf("%q would let no trial on a GPU; write a number from 1", v)
		}
		return err
	})
	c.Cluster.read(&s.clusterSettings, set)
	c.Engine.read(&s.engineSettings, set)
	r, k := s.Retention, &c.Retention
	set("retention.sweeps", "MLF_RETENTION_SWEEPS", r.Sweeps, func(v string) (err error) { k.Sweeps, err = count(v); return })
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

// WithinTrial limits the settings to what the trial has of the machine in which this process runs.
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
	c.Devices.Foreign = gpuwatch.Ignore // the trial's own program may compute beside
	return errors.Join(problems...)
}

// DefaultRetention is what a node without settings keeps.
func DefaultRetention() Retention {
	return Retention{Sweeps: 1000, Logs: 10 << 30, Events: 20 << 30, Artifacts: 50 << 30, Bundles: 10 << 30, Checkpoints: 100 << 30}
}

// defaultCheckpointRate is about half of what a network of 1 Gbit/s carries.
const defaultCheckpointRate = 60_000_000

func defaults() (Config, error) {
	c := Config{
		Retention: DefaultRetention(), CheckpointRate: defaultCheckpointRate, Cluster: DefaultCluster(), Engine: DefaultEngine(), Logger: slog.New(slog.DiscardHandler),
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

// stateHome is where state belongs by the XDG base directory specification.
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

// readSettings reads the file; the name is for messages.
func readSettings(file string) (settings, string, error) {
	var s settings
	if file == "" {
		file = os.Getenv("MLF_CONFIG")
	}
	explicit := file != ""
	candidates := []string{file}
	if !explicit {
		candidates = []string{"/etc/mlfnode/node.yaml"}
		if dir, err := os.UserConfigDir(); err == nil {
			candidates = append([]string{filepath.Join(dir, "mlfnode", "node.yaml")}, candidates...)
		}
	}
	for _, name := range candidates {
		b, err := os.ReadFile(name)
		if !explicit && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
			continue // those of the system's node are for root alone, and a user's own node is another one
		}
		if err != nil {
			return s, name, fmt.Errorf("the settings file %s can't be read: %w", name, bare(err))
		}
		dec := yaml.NewDecoder(bytes.NewReader(b))
		dec.KnownFields(true)
		if err := dec.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
			return s, name, explainYAML(name, err)
		}
		return s, name, nil
	}
	return s, "defaults", nil
}

// The forms of what yaml.v3 says about a file that it can't decode.
var (
	unknownField = lazyregexp.New(`^line (\d+): field (\S+) not found in type .*$`)
	wrongKind    = lazyregexp.New(`^line (\d+): cannot unmarshal .*$`)
	syntaxFault  = lazyregexp.New(`^yaml: line (\d+): (.*)$`)
)

// explainYAML says where the file is wrong and how, a line for each problem.
func explainYAML(name string, err error) error {
	lines := []string{err.Error()}
	if e := (*yaml.TypeError)(nil); errors.As(err, &e) {
		lines = e.Errors
	}
	var problems []error
	for _, line := range lines {
		text := unknownField.Get().ReplaceAllString(line, name+":$1: there is no setting $2")
		text = wrongKind.Get().ReplaceAllString(text, name+":$1: the value does not fit the setting")
		text = syntaxFault.Get().ReplaceAllString(text, name+":$1: this is not valid YAML: $2")
		if text == line {
			text = name + ": " + line
		}
		problems = append(problems, errors.New(text))
	}
	return errors.Join(problems...)
}

// bare leaves out the operation and the path of a file error, which the message names already.
func bare(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

func positive(v string) (float64, error) {
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || !(f > 0) || f > 1e6 {
		return 0, fmt.Errorf("%q is not a number of processors; write one above 0, as in 4", v)
	}
	return f, nil
}

func count(v string) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a whole number of at least 0", v)
	}
	return n, nil
}

func duration(v string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(v, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration; write one as in 90d or 36h", v)
	}
	return d, nil
}

func size(to *int64) func(string) error {
	return func(v string) error {
		n, err := humanize.ParseBytes(v)
		if err != nil || n == 0 || n > 1<<60 {
			return fmt.Errorf("%q is not a size; write one as in 500MB or 10GiB", v)
		}
		*to = int64(n)
		return nil
	}
}

// labels reads the names by which tasks choose this node.
func labels(to *[]string) func(string) error {
	return func(v string) error {
		var all []string
		for label := range strings.SplitSeq(v, ",") {
			label = strings.TrimSpace(label)
			if err := grid.CheckNodeLabel(label); err != nil {
				return err
			}
			all = append(all, label)
		}
		if len(all) > grid.MaxLabels {
			return fmt.Errorf("a node has at most %d labels, and these are %d", grid.MaxLabels, len(all))
		}
		*to = all
		return nil
	}
}

// devices reads which GPUs trials may have: all, none, or indexes and UUIDs.
func devices(to *worker.Policy) func(string) error {
	return func(v string) error {
		to.None, to.Use = false, nil
		switch v {
		case "none":
			to.None = true
			return nil
		case "all":
			return nil
		}
		for name := range strings.SplitSeq(v, ",") {
			name = strings.TrimSpace(name)
			if _, err := strconv.ParseUint(name, 10, 16); err != nil && !strings.HasPrefix(name, "GPU-") && !strings.HasPrefix(name, "MIG-") {
				return fmt.Errorf("%q is not a GPU; write all, none, or indexes and UUIDs as in [0, 2]", name)
			}
			to.Use = append(to.Use, name)
		}
		return nil
	}
}

// cleanName makes a name that can be part of a subject and of a run.
func cleanName(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, name)
	if clean == "" {
		return "node"
	}
	return clean
}

func checkName(name string) error {
	if name != cleanName(name) {
		return fmt.Errorf("%q is not a valid node name; use letters, digits, - and _", name)
	}
	return nil
}

// identity reads the random token of the state folder, or makes it. Processes of trials carry it in their environment.
func identity(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err == nil && len(bytes.TrimSpace(b)) == 2*tokenBytes {
		return string(bytes.TrimSpace(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the node's token: %w", err)
	}
	token := make([]byte, tokenBytes)
	rand.Read(token) // never fails
	text := hex.EncodeToString(token)
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the node's token: %w", err)
	}
	return text, nil
}

const tokenBytes = 8
