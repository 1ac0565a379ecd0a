package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"mlfnode/grid/lazyregexp"
	"mlfnode/node/durable"

	"gopkg.in/yaml.v3"
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
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, explainYAML(file, err)
	}
	return c, nil
}

// The forms of yaml.v3's errors for a file that it can't decode.
var (
	unknownField = lazyregexp.New(`^line (\d+): field (\S+) not found in type .*$`)
	wrongKind    = lazyregexp.New(`^line (\d+): cannot unmarshal .*$`)
	syntaxFault  = lazyregexp.New(`^yaml: line (\d+): (.*)$`)
)

// explainYAML returns an error for each problem, with the line of the file.
func explainYAML(file string, err error) error {
	lines := []string{err.Error()}
	if e := (*yaml.TypeError)(nil); errors.As(err, &e) {
		lines = e.Errors
	}
	var problems []error
	for _, line := range lines {
		text := unknownField.Get().ReplaceAllString(line, file+":$1: there is no key $2; there are root, project, key, attach, settings and hosts, and for a host address, name, roles and settings")
		text = wrongKind.Get().ReplaceAllString(text, file+":$1: the value does not fit the key")
		text = syntaxFault.Get().ReplaceAllString(text, file+":$1: this is not valid YAML: $2")
		if text == line {
			text = file + ": " + line
		}
		problems = append(problems, errors.New(text))
	}
	return errors.Join(problems...)
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
