package grid

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/problem"
)

// Container configures the container of a task that has an image. The zero value suits most images.
type Container struct {
	Pull    string `json:"pull,omitempty"`    // when to pull the image: missing (the default), always or never
	Network string `json:"network,omitempty"` // host, none, bridge or the name of a network; "" uses the node's setting
	// Size of /dev/shm in bytes; 0 uses the memory limit, or half of the node's memory.
	Shm  int64  `json:"shm,omitempty"`
	GPUs string `json:"gpus,omitempty"` // how GPUs are passed in: auto (the default), cdi, request or none

	Ulimits []Ulimit `json:"ulimits,omitempty"`
	Mounts  []Mount  `json:"mounts,omitempty"` // folders of the node, among those that its settings allow

	// Entrypoint replaces the image's entrypoint if it is not nil. An empty one runs the command as
	// it is.
	Entrypoint *[]string `json:"entrypoint,omitempty"`
}

// Ulimit is a resource limit of a container's processes, see setrlimit(2); -1 means unlimited.
type Ulimit struct {
	Name string `json:"name"` // without RLIMIT_, in lower case
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Mount is a file or folder of a node that is visible in a container. Both paths are absolute.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target,omitempty"` // path in the container; "" means Source
	ReadOnly bool   `json:"ro,omitempty"`
}

// The allowed values of Container's enumerated fields.
var (
	pullPolicies = []string{"missing", "always", "never"}
	gpuModes     = []string{"auto", "cdi", "request", "none"}
	ulimitNames  = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile",
		"nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}
)

const (
	maxMounts    = 64
	maxReference = 512
)

// imageName matches an image reference as container engines read it: registry, name, tag and
// digest.
var imageName = lazyregexp.New(
	`^(?:(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?` + // host:port/
		`[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*` + // name
		`(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$`)

// networkName matches the network names that Docker allows.
var networkName = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// CheckImage returns an error if ref is not an image reference.
func CheckImage(ref string) error {
	if len(ref) > maxReference || !imageName.Get().MatchString(ref) {
		return problem.Errorf("Write it like python:3.12-slim or registry.lab:5000/team/train:1.",
			"%.80q does not name an image", ref)
	}
	return nil
}

// CheckPull returns an error if v is not a pull policy.
func CheckPull(v string) error { return oneOf("pull", v, pullPolicies) }

// PullPolicies returns the values that CheckPull accepts.
func PullPolicies() []string { return slices.Clone(pullPolicies) }

// GPUModes returns the values that CheckGPUMode accepts.
func GPUModes() []string { return slices.Clone(gpuModes) }

// CheckGPUMode returns an error if v is not a way to pass GPUs into a container.
func CheckGPUMode(v string) error { return oneOf("gpus", v, gpuModes) }

func oneOf(what, v string, known []string) error {
	if !slices.Contains(known, v) {
		return problem.Errorf(problem.WriteOneOf(known), "%s is %.60q", what, v)
	}
	return nil
}

// CheckNetwork returns an error if v cannot name a container network.
func CheckNetwork(v string) error {
	if !networkName.Get().MatchString(v) {
		return problem.Errorf("Write host, none, bridge or the name of a network that the nodes have.",
			"network is %.60q", v)
	}
	return nil
}

// ParseMount parses /SOURCE or /SOURCE:/TARGET, each optionally followed by :ro.
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
			return problem.Errorf(
				"Write /FOLDER, /FOLDER:/INSIDE or either with :ro at its end, with plain absolute paths.",
				"the mount %.80q is not valid", text)
		}
	}
	if m.Target == "/" || m.Target == "" && m.Source == "/" {
		return problem.Errorf("Mount it below a folder, like /:/host:ro.", "the mount %.80q hides all of the image",
			text)
	}
	return nil
}

// Inside returns the path of the mount in the container.
func (m *Mount) Inside() string {
	if m.Target == "" {
		return m.Source
	}
	return m.Target
}

// Allows reports whether a node whose settings list m lets a task mount other: m itself or a path
// below it, and read-only if m is read-only.
func (m *Mount) Allows(other *Mount) bool {
	below := other.Source == m.Source || strings.HasPrefix(other.Source, strings.TrimSuffix(m.Source, "/")+"/")
	return below && (other.ReadOnly || !m.ReadOnly)
}

// ParseUlimit parses SOFT:HARD, or one number that sets both.
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
		return u, problem.Errorf("Write a number, two like 1024:65536, or -1 for no limit.", "the ulimit %s is %.60q",
			name, text)
	}
	return u, u.check()
}

func (u *Ulimit) check() error {
	switch {
	case !slices.Contains(ulimitNames, u.Name):
		return problem.Errorf("Use one of "+strings.Join(ulimitNames, ", ")+".", "there is no ulimit %.60q", u.Name)
	case u.Soft < -1 || u.Hard < -1 || u.Hard >= 0 && (u.Soft < 0 || u.Soft > u.Hard):
		return problem.Errorf("Write a number, two like 1024:65536, or -1 for no limit.", "the ulimit %s is %d:%d",
			u.Name, u.Soft, u.Hard)
	}
	return nil
}

// checkContainer validates the task's image and container settings.
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
		return problem.Errorf("Mount a folder that holds them.", "the container has %d mounts and %d ulimits",
			len(c.Mounts), len(c.Ulimits))
	}
	places := map[string]bool{}
	for i := range c.Mounts {
		inside := c.Mounts[i].Inside()
		if err := c.Mounts[i].check(c.Mounts[i].Source + ":" + inside); err != nil {
			return err
		}
		if inside = path.Clean(inside); places[inside] || inside == "/" {
			return problem.Errorf("Give each mount a folder of its own in the container.",
				"two mounts, or a mount and the container itself, are at %s", inside)
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
