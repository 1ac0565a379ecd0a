package docker

import (
	"cmp"
	"context"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-units"

	"mlfnode/grid"
)

// Labels of our containers.
const (
	labelToken   = "mlfnode.token"   // the state folder
	labelRun     = "mlfnode.run"     // the name of the run
	labelVersion = "mlfnode.version" // of these labels
)

// agentTokenVar marks processes that their agent kills when it starts, see process.Reap. It is kept
// out of containers, which are found by their labels: none that runs inside a trial of another node
// may pass for a process of that node.
const agentTokenVar = "MLF_TOKEN="

// create creates the container. One whose creation was not answered is found by its name.
func (r *run) create(ctx context.Context) error {
	config, host, err := r.containerConfig()
	if err != nil {
		return err
	}
	err = r.x.retryWhileUnavailable(ctx, func(ctx context.Context) error {
		created, err := r.engine.client.ContainerCreate(ctx, config, host, nil, nil, r.name)
		if errdefs.IsConflict(err) {
			found, findErr := r.engine.client.ContainerInspect(ctx, r.name)
			if findErr == nil && found.Config != nil && found.Config.Labels[labelRun] == r.record.Spec.Name {
				r.record.ID = found.ID
				return nil
			}
		}
		if err == nil {
			r.record.ID = created.ID
			for _, w := range created.Warnings {
				r.log.Debug("the engine warns", "warning", w)
			}
		}
		return err
	})
	if err != nil {
		return launchError("make", err)
	}
	r.processes.id = r.record.ID
	return r.save() // with the ID, by which the container's processes are found without the engine
}

// containerConfig returns what the engine needs to create the container.
func (r *run) containerConfig() (*container.Config, *container.HostConfig, error) {
	a, c, info := r.attempt, r.attempt.Container, r.engine.info()
	// Some engines make folders that are missing.
	mounts := []mount.Mount{{Type: mount.TypeBind, Source: string(r.io), Target: string(r.io)}}
	for _, m := range c.Mounts {
		if _, err := os.Stat(m.Source); err != nil {
			return nil, nil, &EngineError{Class: grid.ClassNode,
				Reason: "a folder of the container can't be mounted: " + err.Error()}
		}
		mounts = append(mounts, mount.Mount{Type: mount.TypeBind, Source: m.Source, Target: m.Inside(),
			ReadOnly: m.ReadOnly})
	}
	argv := r.io.wrap(a)
	user := agentUser(info)
	labels := map[string]string{}
	maps.Copy(labels, c.Labels)
	labels[labelToken], labels[labelRun], labels[labelVersion] = r.x.o.Token, r.record.Spec.Name, "1"
	environ := slices.DeleteFunc(slices.Clone(a.Env), func(kv string) bool {
		return strings.HasPrefix(kv, agentTokenVar)
	})
	config := &container.Config{
		Image: cmp.Or(c.Digest, c.Image), User: user.User, Env: grid.MergeEnviron(environ, []string{runVar + r.name}),
		WorkingDir: a.Dir, Labels: labels, Entrypoint: argv[:1], Cmd: argv[1:],
	}
	init := true // the first process of a PID namespace ignores most signals, even its own
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(cmp.Or(c.Network, r.x.o.Network, "host")), IpcMode: container.IPCModePrivate,
		// The default size of /dev/shm is half of the machine's memory, like that of the machine
		// itself.
		ShmSize: cmp.Or(c.Shm, a.Memory, info.MemTotal/2), Mounts: mounts, GroupAdd: user.Groups,
		UsernsMode: user.Userns,
		Init:       &init, SecurityOpt: []string{"no-new-privileges"}, LogConfig: container.LogConfig{Type: "none"},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
	}
	if hasSecurity(info, "selinux") { // it would deny access to the mounts, which have labels of their own
		host.SecurityOpt = append(host.SecurityOpt, "label=disable")
	}
	if r.engine.Limits() {
		host.Memory, host.MemorySwap = a.Memory, a.Memory // swap counts as memory
	}
	if info.CPUShares {
		host.CPUShares = c.Shares
	}
	for _, l := range c.Ulimits {
		host.Ulimits = append(host.Ulimits, &units.Ulimit{Name: l.Name, Soft: l.Soft, Hard: l.Hard})
	}
	return config, host, newGPUAccess(info, r.engine.podman()).attach(c.GPUs, a.Devices, config, host)
}
