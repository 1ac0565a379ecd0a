package docker

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/go-units"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// Labels of our containers.
const (
	labelToken   = "mlfnode.token"   // the state folder
	labelRun     = "mlfnode.run"     // the name of the run
	labelVersion = "mlfnode.version" // of these labels
)

// outerToken marks processes that their node agent kills at its start, see executor.Reap. Containers are found by their labels; none
// that runs inside a trial of another node is to pass for a process of that one.
const outerToken = "MLF_TOKEN="

// exitNotFound is what shells give for a program that is not there.
const exitNotFound = 127

// wrapper starts the program in an image that has a shell: its output goes into our pipes, which it can open by name like those
// of any runner, and which hold what nobody reads at the moment. A file says that there is no such program, which its exit code does not.
// $1 is the folder of the run.
const wrapper = `_mlf=$1; shift; : >"$_mlf/` + begunFile + `"
case $1 in
*/*) [ -f "$1" ] && [ -x "$1" ] ;;
*) command -v "$1" >/dev/null 2>&1 ;;
esac || { if [ -e "$1" ]; then echo 126; else echo 127; fi >"$_mlf/` + refusedFile + `"; exit 127; }
exec "$@" 1<>"$_mlf/` + stdoutPipe + `" 2<>"$_mlf/%s"`

// create makes the container. One that an unanswered request has made is found by its name.
func (r *run) create(ctx context.Context) error {
	config, host, err := r.describe(ctx)
	if err != nil {
		return err
	}
	err = r.x.patiently(ctx, func(ctx context.Context) error {
		made, err := r.engine.client.ContainerCreate(ctx, config, host, nil, nil, r.container)
		if errdefs.IsConflict(err) {
			found, ferr := r.engine.client.ContainerInspect(ctx, r.container)
			if ferr == nil && found.Config != nil && found.Config.Labels[labelRun] == r.order.label() {
				r.order.ID = found.ID
				return nil
			}
		}
		if err == nil {
			r.order.ID = made.ID
			for _, w := range made.Warnings {
				r.log.Debug("the engine warns", "warning", w)
			}
		}
		return err
	})
	if err != nil {
		return launchFault("make", err)
	}
	return r.save() // with its ID, by which what runs in it is found without the engine
}

// describe says what the container is to be.
func (r *run) describe(ctx context.Context) (*container.Config, *container.HostConfig, error) {
	a, c, e := r.attempt, r.attempt.Container, r.engine
	argv, err := r.commandLine(ctx)
	if err != nil {
		return nil, nil, err
	}
	user := agentUser(e.info())
	if c.User != "" {
		user.User = c.User
	}
	env := []string{"MLF_RUN=" + r.container}
	if a.Notice == 0 {
		env = append(env, "TINI_KILL_PROCESS_GROUP=1") // the init passes TERM on to more than the program
	}
	labels := map[string]string{}
	for k, v := range c.Labels {
		labels[k] = v
	}
	labels[labelToken], labels[labelRun], labels[labelVersion] = r.x.o.Token, r.order.label(), "1"
	environ := slices.DeleteFunc(slices.Clone(a.Env), func(kv string) bool { return strings.HasPrefix(kv, outerToken) })
	config := &container.Config{
		Image: r.image(), User: user.User, Env: grid.MergeEnviron(environ, env), WorkingDir: a.Dir, Labels: labels,
		Entrypoint: argv[:1], Cmd: argv[1:],
	}
	mounts, err := r.mounts()
	if err != nil {
		return nil, nil, err
	}
	init := e.inits()
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(cmp.Or(c.Network, r.x.o.Network, "host")), IpcMode: container.IpcMode(cmp.Or(c.IPC, "private")),
		Runtime: c.Runtime, ShmSize: cmp.Or(c.Shm, a.Memory, e.shmSize()), Mounts: mounts, GroupAdd: user.Groups, UsernsMode: user.Userns,
		Init: &init, SecurityOpt: []string{"no-new-privileges"}, LogConfig: container.LogConfig{Type: "none"},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
	}
	if e.Limits() {
		host.Memory, host.MemorySwap = a.Memory, a.Memory // swap counts as memory
	}
	if e.info().CPUShares {
		host.CPUShares = c.Shares
	}
	if c.Pids > 0 && e.info().PidsLimit {
		host.PidsLimit = &c.Pids
	}
	for _, l := range c.Ulimits {
		host.Ulimits = append(host.Ulimits, &units.Ulimit{Name: l.Name, Soft: l.Soft, Hard: l.Hard})
	}
	if r.bare {
		host.LogConfig = container.LogConfig{}
		if e.podman() == "" {
			host.LogConfig.Type = "local"
		}
	}
	if host.IpcMode.IsHost() {
		host.ShmSize = 0
	}
	return config, host, newGPUAccess(e.info(), e.podman()).give(c.GPUs, a.Devices, config, host)
}

// image is what the engine is asked for.
func (r *run) image() string { return cmp.Or(r.attempt.Container.Digest, r.attempt.Container.Image) }

// commandLine is the program with the entrypoint of its image before it and, where there is a shell, the wrapper.
func (r *run) commandLine(ctx context.Context) ([]string, error) {
	var entry []string
	if given := r.attempt.Container.Entrypoint; given != nil {
		entry = *given
	} else {
		err := r.x.patiently(ctx, func(ctx context.Context) error {
			image, err := r.engine.client.ImageInspect(ctx, r.image())
			if err == nil && image.Config != nil {
				entry = image.Config.Entrypoint
			}
			return err
		})
		if err != nil {
			return nil, launchFault("find the image of", err)
		}
	}
	argv := append(entry[:len(entry):len(entry)], r.attempt.Argv...)
	if r.bare {
		return argv, nil
	}
	stderr := stderrPipe
	if r.attempt.Stderr == r.attempt.Stdout && r.attempt.Stdout != nil {
		stderr = stdoutPipe
	}
	return append([]string{"/bin/sh", "-c", fmt.Sprintf(wrapper, stderr), "mlfnode", r.dir}, argv...), nil
}

// mounts are the folders of the attempt and that of the run. They must be there: some engines would make them.
func (r *run) mounts() ([]mount.Mount, error) {
	all := []mount.Mount{{Type: mount.TypeBind, Source: r.dir, Target: r.dir}}
	for _, m := range r.attempt.Container.Mounts {
		if _, err := os.Stat(m.Source); err != nil {
			return nil, &Fault{Class: grid.ClassNode, Reason: "a folder of the container can't be mounted: " + err.Error()}
		}
		all = append(all, mount.Mount{Type: mount.TypeBind, Source: m.Source, Target: cmp.Or(m.Target, m.Source), ReadOnly: m.ReadOnly})
	}
	return all, nil
}

// refusedByWrapper is the outcome of a program that the image does not have.
func (r *run) refusedByWrapper() (executor.Outcome, bool) {
	b, err := os.ReadFile(filepath.Join(r.dir, refusedFile))
	if err != nil {
		return executor.Outcome{}, false
	}
	o := executor.Refused(grid.ClassStart, fmt.Sprintf("%q is not a program that can be run", r.order.Program))
	if strings.TrimSpace(string(b)) == "127" {
		o.ExitCode = exitNotFound
		o.Reason = fmt.Sprintf("the image has no program %q", r.order.Program)
	}
	return o, true
}
