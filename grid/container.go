package grid

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/problem"
)

// Container says how the container of a task with an image is made. The zero value suits most images.
type Container struct {
	Pull    string `json:"pull,omitempty"`    // when the image is pulled: missing (also ""), always or never
	Network string `json:"network,omitempty"` // host, none, bridge or the name of a network; "" is what the node says
	Shm     int64  `json:"shm,omitempty"`     // bytes of /dev/shm; 0 is the memory limit, or half of the node's memory
	GPUs    string `json:"gpus,omitempty"`    // how GPUs get in: auto (also ""), cdi, request or none

	Ulimits []Ulimit `json:"ulimits,omitempty"`
	Mounts  []Mount  `json:"mounts,omitempty"` // folders of the node, of those that its settings allow

	// Entrypoint replaces that of the image when it is not nil. An empty one has the command run as it is.
	Entrypoint *[]string `json:"entrypoint,omitempty"`
}

// Ulimit is a limit of a container's processes, see setrlimit(2); -1 is none.
type Ulimit struct {
	Name string `json:"name"` // without RLIMIT_, in small letters
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Mount is a file or folder of a node that a container sees. Both paths are absolute.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target,omitempty"` // inside; "" is Source
	ReadOnly bool   `json:"ro,omitempty"`
}

// Values of the fields of Container that have few.
var (
	pullPolicies = []string{"missing", "always", "never"}
	gpuModes     = []string{"auto", "cdi", "request", "none"}
	ulimitNames  = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}
)

const (
	maxMounts    = 64
	maxReference = 512
)

// imageName is the form of a reference to an image: registry, name, tag and digest, as the engines read it.
var imageName = lazyregexp.New(`^(?:(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?` + // host:port/
	`[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*` + // name
	`(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$`)

// networkName is the form that Docker gives to the names of networks.
var networkName = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// CheckImage says why a text does not name an image.
func CheckImage(ref string) error {
	if len(ref) > maxReference || !imageName.Get().MatchString(ref) {
		return problem.Errorf("Write it like python:3.12-slim or registry.lab:5000/team/train:1.", "%.80q does not name an image", ref)
	}
	return nil
}

// CheckPull says why a text is not a policy of pulling.
func CheckPull(v string) error { return oneOf("pull", v, pullPolicies) }

// PullPolicies are the texts that CheckPull takes.
func PullPolicies() []string { return slices.Clone(pullPolicies) }

// GPUModes are the texts that CheckGPUMode takes.
func GPUModes() []string { return slices.Clone(gpuModes) }

// CheckGPUMode says why a text is not a way for GPUs to get into a container.
func CheckGPUMode(v string) error { return oneOf("gpus", v, gpuModes) }

func oneOf(what, v string, known []string) error {
	if !slices.Contains(known, v) {
		return problem.Errorf("Write "+strings.Join(known[:len(known)-1], ", ")+" or "+known[len(known)-1]+".", "%s is %.60q", what, v)
	}
	return nil
}

// CheckNetwork says why a text can't name a network of containers.
func CheckNetwork(v string) error {
	if !networkName.Get().MatchString(v) {
		return problem.Errorf("Write host, none, bridge or the name of a network that the nodes have.", "network is %.60q", v)
	}
	return nil
}

// ParseMount reads /SOURCE, /SOURCE:/TARGET, each with :ro behind it or without.
func ParseMount(text string) (Mount, error) {
	m := Mount{}
	rest, ro := strings.CutSuffix(text, ":ro")
	m.ReadOnly = ro
	m.Source, m.Target, _ = strings.Cut(rest, ":")
	return m, m.check(text)
}

func (m *Mount) check(text string) error {
	for _, p := range []string{m.Source, m.Target} {
		if (p != "" || p == m.Source) && (!path.IsAbs(p) || path.Clean(p) != p || strings.ContainsAny(p, ":\x00\n")) {
			return problem.Errorf("Write /FOLDER, /FOLDER:/INSIDE or either with :ro at its end, with plain absolute paths.", "the mount %.80q is not valid", text)
		}
	}
	if m.Target == "/" || m.Target == "" && m.Source == "/" {
		return problem.Errorf("Mount it below a folder, like /:/host:ro.", "the mount %.80q hides all of the image", text)
	}
	return nil
}

// Inside is where the mount is seen in the container.
func (m *Mount) Inside() string {
	if m.Target == "" {
		return m.Source
	}
	return m.Target
}

// Allows reports whether a node that names m in its settings lets a task mount other: m itself or what is below, and only for reading
// where m is so.
func (m *Mount) Allows(other *Mount) bool {
	below := other.Source == m.Source || strings.HasPrefix(other.Source, strings.TrimSuffix(m.Source, "/")+"/")
	return below && (other.ReadOnly || !m.ReadOnly)
}

// ParseUlimit reads SOFT:HARD, or one number for both.
func ParseUlimit(name, text string) (Ulimit, error) {
	soft, hard, two := strings.Cut(text, ":")
	if !two {
		hard = soft
	}
	u := Ulimit{Name: name}
	var err, err2 error
	u.Soft, err = strconv.ParseInt(soft, 10, 64)
	u.Hard, err2 = strconv.ParseInt(hard, 10, 64)
	if err != nil || err2 != nil {
		return u, problem.Errorf("Write a number, two like 1024:65536, or -1 for no limit.", "the ulimit %s is %.60q", name, text)
	}
	return u, u.check()
}

func (u *Ulimit) check() error {
	switch {
	case !slices.Contains(ulimitNames, u.Name):
		return problem.Errorf("Use one of "+strings.Join(ulimitNames, ", ")+".", "there is no ulimit %.60q", u.Name)
	case u.Soft < -1 || u.Hard < -1 || u.Hard >= 0 && (u.Soft < 0 || u.Soft > u.Hard):
		return problem.Errorf("Write a number, two like 1024:65536, or -1 for no limit.", "the ulimit %s is %d:%d", u.Name, u.Soft, u.Hard)
	}
	return nil
}

// checkContainer says what is wrong with the task's image and container.
func (t *Task) checkContainer() error {
	c := t.Container
	if t.Image == "" {
		if c != nil {
			return problem.Errorf("Name the image, or leave container out.", "the task has a container but no image")
		}
		return nil
	}
	if err := CheckImage(t.Image); err != nil || c == nil {
		return err
	}
	for _, f := range []struct {
		value string
		check func(string) error
	}{{c.Pull, CheckPull}, {c.GPUs, CheckGPUMode}, {c.Network, CheckNetwork}} {
		if f.value != "" {
			if err := f.check(f.value); err != nil {
				return err
			}
		}
	}
	if c.Shm < 0 {
		return problem.Errorf("Write it like 8GiB.", "shm is %d", c.Shm)
	}
	if len(c.Mounts) > maxMounts || len(c.Ulimits) > len(ulimitNames) {
		return problem.Errorf("Mount a folder that holds them.", "the container has %d mounts and %d ulimits", len(c.Mounts), len(c.Ulimits))
	}
	places := map[string]bool{}
	for i := range c.Mounts {
		inside := c.Mounts[i].Inside()
		if err := c.Mounts[i].check(c.Mounts[i].Source + ":" + inside); err != nil {
			return err
		}
		if inside = path.Clean(inside); places[inside] || inside == "/" {
			return problem.Errorf("Give each mount a folder of its own in the container.", "two mounts, or a mount and the container itself, are at %s", inside)
		}
		places[inside] = true
	}
	for i := range c.Ulimits {
		if err := c.Ulimits[i].check(); err != nil {
			return err
		}
	}
	return nil
}
