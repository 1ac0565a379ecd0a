package worker

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
)

// Containers is what a worker has for tasks that name an image.
type Containers struct {
	Images  Images
	Network string       // of containers whose task names none
	Mounts  []grid.Mount // what tasks may mount in addition to what every trial sees
}

// Images pulls images and knows which are present. Its methods return immediately.
type Images interface {
	Status(docker.ImageRequest) docker.ImageStatus
	MarkReported(docker.ImageRequest)
	Invalidate(docker.ImageRequest)
}

// defaultPath is what engines set where an image sets no PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// taskContainers describes the containers of tasks that name an image, and knows which images are
// present.
type taskContainers struct {
	cfg     *Config
	bundles *bundles

	missing atomic.Pointer[string] // for which image trials wait, and why; empty for none
}

// environ returns the environment that all attempts of a sweep in this image share. Programs look
// up the user's name and home, which an image knows only for its own users.
func (ct *taskContainers) environ(s *grid.Sweep, img *docker.Image) []string {
	user := cmp.Or(os.Getenv("USER"), "mlfnode")
	own := []string{"HOME=" + ct.home(s), "USER=" + user, "LOGNAME=" + user, "TMPDIR=/tmp"}
	return s.ContainerEnvironment(os.Environ(), append([]string{defaultPath}, img.Env...), own, keptVariable)
}

// home is the home directory of a project's containers on this node: what programs cache there,
// later trials find.
func (ct *taskContainers) home(s *grid.Sweep) string {
	return filepath.Join(ct.bundles.cacheDir, "home", s.Project)
}

// spec describes the container for a program of the attempt, nil for a process. A setup step may
// write where trials only read.
func (ct *taskContainers) spec(s *sweep, a *attempt, setup bool, output [2]string) (*executor.Container, error) {
	if a.image == nil {
		return nil, nil
	}
	t := a.task
	how := cmp.Or(t.Container, &grid.Container{})
	c := &executor.Container{
		Image: t.Image, Digest: a.image.Pin, Engine: a.image.Engine, Entrypoint: a.image.Entrypoint, Output: output,
		Network: cmp.Or(how.Network, ct.cfg.Containers.Network), Shm: how.Shm, Ulimits: how.Ulimits, GPUs: how.GPUs,
		Shares: max(2, int64(t.Resources.CPUs)*1024/int64(grid.One)), // the engine's weight of a processor is 1024
		Labels: map[string]string{"mlfnode.sweep": string(a.id.Sweep), "mlfnode.trial": a.id.String()},
	}
	switch {
	case setup:
		c.Entrypoint = nil // it prepares what the image's own program then uses
	case how.Entrypoint != nil:
		c.Entrypoint = *how.Entrypoint
	}
	var err error
	c.Mounts, err = ct.mounts(s, a, setup)
	return c, err
}

// mounts lists what the container sees of this machine, at the same paths as outside, so that no
// path that mlfnode passes to the program has to be translated.
func (ct *taskContainers) mounts(s *sweep, a *attempt, setup bool) ([]grid.Mount, error) {
	home := ct.home(s.record)
	all := []grid.Mount{
		{Source: a.spool.dir},
		{Source: ct.bundles.cacheDir},
		{Source: filepath.Join(ct.bundles.dir, "bundles"), ReadOnly: true},
		{Source: filepath.Join(ct.bundles.dir, "setups"), ReadOnly: !setup},
	}
	for _, dir := range []string{home, all[2].Source, all[3].Source} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("a folder for the container could not be created: %w", err)
		}
	}
	if a.checkpoint != nil {
		all = append(all, grid.Mount{Source: a.checkpoint.liveDir()})
	}
	for _, l := range a.task.Links {
		all = append(all, grid.Mount{Source: l.To, ReadOnly: true})
	}
	if a.task.Container != nil {
		for _, m := range a.task.Container.Mounts {
			if err := ct.allowMount(&m); err != nil {
				return nil, err
			}
			all = append(all, m)
		}
	}
	return dedupeMounts(all), nil
}

// dedupeMounts drops mounts at paths where an earlier one is: an engine refuses two at the same
// path.
func dedupeMounts(all []grid.Mount) []grid.Mount {
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(m grid.Mount) bool {
		place := filepath.Clean(m.Inside())
		defer func() { seen[place] = true }()
		return seen[place]
	})
}

// mountError is the refusal of a mount by this node.
type mountError struct{ reason string }

func (e *mountError) Error() string { return e.reason }

// allowMount returns an error if this node does not let a task mount something. What it allows is
// mounted from the resolved path: a link that is changed afterwards leads nowhere else.
func (ct *taskContainers) allowMount(m *grid.Mount) error {
	source, err := filepath.EvalSymlinks(m.Source)
	if err != nil {
		return &mountError{fmt.Sprintf("the container mounts %s, which this node does not have: %v", m.Source, err)}
	}
	var known []string
	for i := range ct.cfg.Containers.Mounts {
		by := ct.cfg.Containers.Mounts[i]
		known = append(known, by.Source)
		if at, err := filepath.EvalSymlinks(by.Source); err == nil {
			// a link below an allowed folder must not lead out of it
			by.Source = at
		}
		if by.Allows(&grid.Mount{Source: source, ReadOnly: m.ReadOnly}) {
			m.Target, m.Source = m.Inside(), source
			return nil
		}
	}
	what := m.Source
	if !m.ReadOnly {
		what += " for writing"
	}
	return &mountError{fmt.Sprintf(
		"the container mounts %s, which engine.mounts in this node's settings does not allow; allowed are: %s",
		what, strings.Join(append(known, "nothing else"), ", "),
	)}
}

// containerFailure returns the result of an attempt whose container could not be described.
func (a *attempt) containerFailure(err error) *grid.Result {
	if errors.As(err, new(*mountError)) {
		return a.failedResult(grid.ClassMount, err.Error())
	}
	return a.failedResult(grid.ClassNode, err.Error())
}
