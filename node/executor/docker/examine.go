package docker

import (
	"context"
	"os"
	"path/filepath"

	"mlfnode/grid/lazyregexp"
)

// NewImages makes what pulls images for the engine of these settings. It looks for the engine each time that it needs it. changed is
// called when something about an image is different from before; it must be quick.
func NewImages(s Settings, changed func()) *Images {
	return newImages(func(ctx context.Context) (imageAPI, error) {
		e, err := Connect(ctx, s)
		if err != nil {
			return nil, err
		}
		return e.client, nil
	}, changed)
}

// Facts is what an engine says of itself that decides how well containers work on a machine.
type Facts struct {
	Engine  string // its name, version and socket
	Problem string // why none answers; then nothing else is set

	Podman       bool
	Version      string // of Docker, or of Podman
	Rootless     bool
	Limits       bool   // the memory of containers is bounded
	Seccomp      bool   // a filter of system calls is in force
	CgroupDriver string // systemd or cgroupfs
	Root         string // folder of images

	GPUs       string // how a container would get GPUs: GPUsCDI, GPUsRequest, "runtime" or "" for not at all
	SpecDirs   []string
	SpecDriver string   // version of the driver that the CDI specification is of
	Unnamed    []string // UUIDs that no specification names
	Toolkit    bool     // the runtime nvidia is registered
}

// Examine asks the engine about itself, and whether it can give these GPUs to containers.
func Examine(ctx context.Context, s Settings, gpus []string) Facts {
	e, err := Connect(ctx, s)
	if err != nil {
		return Facts{Problem: err.Error()}
	}
	defer e.Close()
	info := e.info()
	g := newGPUAccess(info, e.podman())
	f := Facts{
		Engine: e.String(), Version: info.ServerVersion, Podman: e.podman() != "", Rootless: isRootless(info), Limits: e.Limits(),
		Seccomp: hasSecurity(info, "seccomp"), CgroupDriver: info.CgroupDriver, Root: info.DockerRootDir,
		Toolkit: g.runtime, SpecDirs: g.specDirs, SpecDriver: specDriver(g.specDirs),
	}
	if f.Podman {
		f.Version = e.podman()
	}
	for _, uuid := range gpus {
		if _, err := g.cdiNames([]string{uuid}); err != nil {
			f.Unnamed = append(f.Unnamed, uuid)
		}
	}
	switch {
	case g.cdi && len(gpus) > 0 && len(f.Unnamed) == 0:
		f.GPUs = GPUsCDI
	case g.docker:
		f.GPUs = GPUsRequest
	case g.runtime:
		f.GPUs = "runtime"
	}
	return f
}

// libcuda is the driver's library as a CDI specification names it, with the version of the driver.
var libcuda = lazyregexp.New(`libcuda\.so\.([0-9]+(?:\.[0-9]+)+)`)

// specDriver finds the version of the driver that a CDI specification was made for; "" where none says so.
func specDriver(dirs []string) string {
	for _, dir := range dirs {
		for _, pattern := range []string{"*.yaml", "*.json"} {
			files, _ := filepath.Glob(filepath.Join(dir, pattern))
			for _, name := range files {
				b, err := os.ReadFile(name)
				if m := libcuda.Get().FindSubmatch(b); err == nil && m != nil {
					return string(m[1])
				}
			}
		}
	}
	return ""
}
