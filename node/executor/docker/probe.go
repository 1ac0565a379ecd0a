package docker

import (
	"context"
	"os"
	"path/filepath"

	"mlfnode/grid/lazyregexp"
)

// NewImages returns the Images of the engine with these settings, which is looked for on each use.
// changed is called when the status of an image changes; it must be quick.
func NewImages(s Settings, changed func()) *Images {
	return newImages(func(ctx context.Context) (imageAPI, error) {
		e, err := Connect(ctx, s)
		if err != nil {
			return nil, err
		}
		return e.client, nil
	}, changed)
}

// EngineReport is what decides how well containers work on a machine.
type EngineReport struct {
	Engine  string // its name, version and socket
	Problem string // why no engine answers; then nothing else is set

	Podman       bool
	Version      string // of Docker, or of Podman
	Rootless     bool
	Limits       bool   // the memory of containers is bounded
	Seccomp      bool   // a filter of system calls is in force
	CgroupDriver string // systemd or cgroupfs
	Root         string // folder of images

	GPUs       string // how a container would get GPUs: GPUsCDI, GPUsRequest, "runtime", or "" if it can't
	SpecDirs   []string
	SpecDriver string   // version of the driver for which the CDI specification was generated
	Unnamed    []string // UUIDs that no specification names
	Toolkit    bool     // the runtime nvidia is registered
}

// Probe reports on the engine, and on whether it can give these GPUs to containers.
func Probe(ctx context.Context, s Settings, gpus []string) EngineReport {
	e, err := Connect(ctx, s)
	if err != nil {
		return EngineReport{Problem: err.Error()}
	}
	defer e.Close()
	info := e.info()
	g := newGPUAccess(info, e.podman())
	f := EngineReport{
		Engine: e.String(), Version: info.ServerVersion,
		Podman: e.podman() != "", Rootless: isRootless(info), Limits: e.Limits(),
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

// libcuda matches the driver's library in a CDI specification, with the version of the driver.
var libcuda = lazyregexp.New(`libcuda\.so\.([0-9]+(?:\.[0-9]+)+)`)

// specDriver returns the version of the driver for which a CDI specification was generated; "" if
// none names it.
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
