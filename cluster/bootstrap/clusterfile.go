package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/yamlfile"
	"mlfnode/node/durable"
)

// DefaultFile is where `up` writes the cluster, and where the other commands look for it.
const DefaultFile = "cluster.yaml"

// ErrNoFile is returned by Load if the file does not exist.
var ErrNoFile = errors.New("there is no such file")

// Load reads a cluster.yaml. It refuses unknown keys and values of the wrong type, and names the
// line; Validate checks whether the cluster makes sense. Load returns ErrNoFile if the file does
// not exist.
func Load(file string) (*Cluster, error) {
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNoFile
	case err != nil:
		return nil, fmt.Errorf("read the cluster: %w", err)
	}
	c := &Cluster{}
	const keys = "there is no key $2; there are root, project, key, attach, settings and hosts, and for a host address, name, roles and settings"
	if err := yamlfile.DecodeStrict(file, b, c, keys, "the value does not fit the key"); err != nil {
		return nil, err
	}
	return c, nil
}

// clusterHeading stands at the top of a file that up has written.
const clusterHeading = `# The cluster of this folder, written by ` + "`mlfnode up`" + ` and read again by up -f, down, push, restart and status.
# Edit it by hand as you like; your comments stay as long as up is given no flags other than -f. It holds no secrets.
#
#   address: [USER@]HOST[:PORT], or local for the machine on which you type
#   roles: master, worker, both, or none; one host is the master, unless attach names one that runs already
#   settings: those of node.yaml, for all nodes or for one, except what follows from the hosts and their roles
`

// Save writes the file atomically.
func Save(file string, c *Cluster) error { return saveWithHeading(clusterHeading, file, c) }

// appliedHeading stands at the top of a file with the machines of the last run of up.
const appliedHeading = "# Written by `mlfnode up`: the machines that it has brought up last. `mlfnode up -f` and `down` stop those that are no longer in\n" +
	"# the cluster's file beside it. Not for editing.\n"

// AppliedFile is where the machines of the last run of up are kept, beside the file of the cluster.
func AppliedFile(file string) string { return file + ".applied" }

// LoadApplied reads what SaveApplied has written, or returns nil if there is nothing.
func LoadApplied(file string) (*Cluster, error) {
	c, err := Load(AppliedFile(file))
	if errors.Is(err, ErrNoFile) {
		return nil, nil
	}
	return c, err
}

// SaveApplied stores the machines of a run of up. With no hosts in c, it removes the file.
func SaveApplied(file string, c *Cluster) error {
	if len(c.Hosts) > 0 {
		return saveWithHeading(appliedHeading, AppliedFile(file), c)
	}
	if err := os.Remove(AppliedFile(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the machines of the last run: %w", err)
	}
	return nil
}

func saveWithHeading(heading, file string, c *Cluster) error {
	var b bytes.Buffer
	b.WriteString(heading)
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(c), enc.Close()); err != nil {
		return fmt.Errorf("write the cluster: %w", err)
	}
	if err := durable.WriteFile(file, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the cluster: %w", err)
	}
	return nil
}
