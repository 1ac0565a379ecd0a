package trust

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"mlfnode/grid"
	"mlfnode/grid/lazyregexp"
	"mlfnode/node/durable"
)

// Context describes how a person reaches a cluster. It is stored in a file of the person.
type Context struct {
	Master []string    `yaml:"master"`          // addresses of the API, HOST:PORT, tried in turn
	CA     string      `yaml:"ca"`              // PEM; two certificates during a rotation of the CA
	Token  string      `yaml:"token,omitempty"` // <id>.<secret>
	Role   Role        `yaml:"role,omitempty"`  // what the token permits
	Node   grid.NodeID `yaml:"node,omitempty"`  // the node through which the person joined

	Down *Down `yaml:"down,omitempty"` // set after the person has taken the cluster down
}

// Down states that a cluster was taken down. Its machines keep their data, and the context is valid
// again when the cluster is up.
type Down struct {
	At   time.Time `yaml:"at"`
	File string    `yaml:"file,omitempty"` // the cluster.yaml with which the cluster can be brought up again
}

// largestContext bounds the size of the file.
const largestContext = 64 << 10

// LoadContext reads a context file and rejects unknown fields. It returns ErrNoContext if there is
// none, and an error if the file holds a token and others can read it.
func LoadContext(path string) (Context, error) {
	b, mode, err := readRegular(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Context{}, ErrNoContext
	case err != nil:
		return Context{}, fmt.Errorf("read the context: %w", err)
	case len(b) > largestContext:
		return Context{}, fmt.Errorf("%s is too large for a context", path)
	}
	c, err := parseContext(b)
	if err != nil {
		return Context{}, fmt.Errorf("%s can't be used: %w; fix it, or remove it and run mlfnode token use", path, err)
	}
	if c.Token != "" && mode&0o077 != 0 {
		return Context{}, exposed(path, mode)
	}
	return c, nil
}

func parseContext(b []byte) (Context, error) {
	var c Context
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil {
		return Context{}, hideValues(err)
	}
	if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return Context{}, errors.New("a second document follows the first")
	}
	return c, c.Validate()
}

// The parts of yaml.v3's messages that quote only names of fields.
var (
	yamlLine  = lazyregexp.New(`line \d+`)
	yamlField = lazyregexp.New(`^line \d+: field [A-Za-z0-9_-]{1,40} not found`)
)

// hideValues returns an error that locates the mistake in the YAML without quoting it, because a
// value may be the secret.
func hideValues(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	}
	if wrong, ok := errors.AsType[*yaml.TypeError](err); ok {
		if s := yamlField.Get().FindString(wrong.Errors[0]); s != "" {
			return errors.New(strings.Replace(s, "field", "the field", 1) + " among those of a context")
		}
		if s := yamlLine.Get().FindString(wrong.Errors[0]); s != "" {
			return errors.New(s + " does not fit a context")
		}
	}
	if s := yamlLine.Get().FindString(err.Error()); s != "" {
		return errors.New(s + " is not valid YAML")
	}
	return errors.New("it is not valid YAML")
}

// Validate reports every problem at once.
func (c Context) Validate() error {
	var problems []error
	if len(c.Master) == 0 {
		problems = append(problems, errors.New("master names no address"))
	}
	for _, m := range c.Master {
		if m == "" || strings.ContainsAny(m, " \t\r\n/@") {
			problems = append(problems, fmt.Errorf("master has the address %.80q, which is not HOST:PORT", m))
		}
	}
	if _, err := c.Authorities(); err != nil {
		problems = append(problems, err)
	}
	if _, ok := parseBearer(c.Token); c.Token != "" && !ok {
		problems = append(problems, errors.New("token is not <id>.<secret>"))
	}
	if c.Role != "" && !c.Role.forPeople() {
		problems = append(problems, fmt.Errorf("role is %.40q, which is not admin, operator or viewer", string(c.Role)))
	}
	if c.Node != "" {
		if err := CheckNodeName(c.Node); err != nil {
			problems = append(problems, fmt.Errorf("node: %w", err))
		}
	}
	return errors.Join(problems...)
}

// Authorities returns the CAs of the cluster.
func (c Context) Authorities() (CAs, error) {
	cas, err := decodeCAs([]byte(strings.TrimSpace(c.CA)))
	if err != nil {
		return nil, errors.New("ca is not a CA certificate in PEM form")
	}
	return cas, nil
}

// Pin returns the hash of the first of the CAs.
func (c Context) Pin() Pin {
	cas, err := c.Authorities()
	if err != nil {
		return Pin{} // the context is invalid
	}
	return PinOf(cas[0])
}

// SetAuthorities stores the CAs of the cluster.
func (c *Context) SetAuthorities(cas CAs) { c.CA = string(cas.pem()) }

// Trusts reports whether one of the CAs of the cluster has this digest, in hex.
func (c Context) Trusts(digest string) bool {
	cas, err := c.Authorities()
	return err == nil && slices.ContainsFunc(cas, func(ca *x509.Certificate) bool {
		return PinOf(ca).String() == digest
	})
}

// OfSame reports whether both contexts belong to one cluster: they have a CA in common.
func (c Context) OfSame(other Context) bool {
	own, _ := c.Authorities()
	others, _ := other.Authorities()
	return own.share(others)
}

// Learn stores the cluster's current CAs in a context file. It does not change a context of another
// cluster.
func Learn(path string, cas CAs) error {
	c, err := LoadContext(path)
	if err != nil {
		return err
	}
	if own, err := c.Authorities(); err != nil || own.equal(cas) || !own.share(cas) {
		return err
	}
	c.SetAuthorities(cas)
	return SaveContext(path, c)
}

// SaveContext writes a context file atomically, with mode 0600.
func SaveContext(path string, c Context) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("save the context: %w", err)
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("save the context: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("save the context: %w", err)
	}
	return durable.WriteFile(path, b, 0o600)
}
