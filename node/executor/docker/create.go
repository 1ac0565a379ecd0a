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

// outerToken marks processes that their node agent kills at its start, see process.Reap. Containers are found by their labels; none
// that runs inside a trial of another node is to pass for a process of that one.
const outerToken = "MLF_TOKEN="

// runVar is the variable by which processes of a container are known.
const runVar = "MLF_RUN="

// shell starts the programs of all images.
const (
	shell   = "/bin/sh"
	noShell = "the image has no " + shell + ", which mlfnode needs to start programs"
)

// exitNotFound is what shells give for a program that is not there.
const exitNotFound = 127

// wrapper starts the program with our pipes as its output. The program can open them by name, and they buffer what is not read yet.
// It creates a marker file when the program does not exist, which the exit code alone would not tell.
// $1 is the folder of the pipes.
const wrapper = `_mlf=$1; shift; : >"$_mlf/` + begunFile + `"
case $1 in
*/*) [ -f "$1" ] && [ -x "$1" ] ;;
*) command -v "$1" >/dev/null 2>&1 ;;
esac || { if [ -e "$1" ]; then : >"$_mlf/` + refusedFile + `126"; else : >"$_mlf/` + refusedFile + `127"; fi; exit 127; }
exec "$@" 1<>"$_mlf/` + stdoutPipe + `" 2<>"$_mlf/%s"`

// create makes the container. One that an unanswered request has made is found by its name.
func (r *run) create(ctx context.Context) error {
	config, host, err := r.describe()
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
func (r *run) describe() (*container.Config, *container.HostConfig, error) {
	a, c, e := r.attempt, r.attempt.Container, r.engine
	argv := r.commandLine()
	user := agentUser(e.info())
	labels := map[string]string{}
	for k, v := range c.Labels {
		labels[k] = v
	}
	labels[labelToken], labels[labelRun], labels[labelVersion] = r.x.o.Token, r.order.label(), "1"
	environ := slices.DeleteFunc(slices.Clone(a.Env), func(kv string) bool { return strings.HasPrefix(kv, outerToken) })
	config := &container.Config{
		Image: r.image(), User: user.User, Env: grid.MergeEnviron(environ, []string{runVar + r.container}), WorkingDir: a.Dir, Labels: labels,
		Entrypoint: argv[:1], Cmd: argv[1:],
	}
	mounts, err := r.mounts()
	if err != nil {
		return nil, nil, err
	}
	init := true // the first process of a PID namespace ignores most signals, even its own
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(cmp.Or(c.Network, r.x.o.Network, "host")), IpcMode: container.IPCModePrivate,
		ShmSize: cmp.Or(c.Shm, a.Memory, e.shmSize()), Mounts: mounts, GroupAdd: user.Groups, UsernsMode: user.Userns,
		Init: &init, SecurityOpt: []string{"no-new-privileges"}, LogConfig: container.LogConfig{Type: "none"},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
	}
	if hasSecurity(e.info(), "selinux") { // it would keep the program from what is mounted, which has labels of its own
		host.SecurityOpt = append(host.SecurityOpt, "label=disable")
	}
	if e.Limits() {
		host.Memory, host.MemorySwap = a.Memory, a.Memory // swap counts as memory
	}
	if e.info().CPUShares {
		host.CPUShares = c.Shares
	}
	for _, l := range c.Ulimits {
		host.Ulimits = append(host.Ulimits, &units.Ulimit{Name: l.Name, Soft: l.Soft, Hard: l.Hard})
	}
	return config, host, newGPUAccess(e.info(), e.podman()).give(c.GPUs, a.Devices, config, host)
}

// image is what the engine is asked for.
func (r *run) image() string { return cmp.Or(r.attempt.Container.Digest, r.attempt.Container.Image) }

// commandLine is the program with its entrypoint and the wrapper before it.
func (r *run) commandLine() []string {
	stderr := stderrPipe
	if r.attempt.Stderr == r.attempt.Stdout && r.attempt.Stdout != nil {
		stderr = stdoutPipe
	}
	argv := []string{shell, "-c", fmt.Sprintf(wrapper, stderr), "mlfnode", r.pipes()}
	return append(append(argv, r.attempt.Container.Entrypoint...), r.attempt.Argv...)
}

// mounts are the folders of the attempt and that of the pipes. They must be there: some engines would make them.
func (r *run) mounts() ([]mount.Mount, error) {
	all := []mount.Mount{{Type: mount.TypeBind, Source: r.pipes(), Target: r.pipes()}}
	for _, m := range r.attempt.Container.Mounts {
		if _, err := os.Stat(m.Source); err != nil {
			return nil, &Fault{Class: grid.ClassNode, Reason: "a folder of the container can't be mounted: " + err.Error()}
		}
		all = append(all, mount.Mount{Type: mount.TypeBind, Source: m.Source, Target: m.Inside(), ReadOnly: m.ReadOnly})
	}
	return all, nil
}

// refusedByWrapper is the outcome of a program that the image does not have, or that there is no shell to start. It opens nothing: what
// lies in the folder of the pipes may be the program's doing.
func (r *run) refusedByWrapper(code int) (executor.Outcome, bool) {
	marked := func(name string) bool {
		_, err := os.Lstat(filepath.Join(r.pipes(), name))
		return err == nil
	}
	var o executor.Outcome
	switch {
	case marked(refusedFile + "127"):
		o = executor.Refused(grid.ClassStart, fmt.Sprintf("the image has no program %q", r.order.Program))
		o.ExitCode = exitNotFound
	case marked(refusedFile + "126"):
		o = executor.Refused(grid.ClassStart, fmt.Sprintf("%q is not a program that can be run", r.order.Program))
	case slices.Contains([]int{1, 126, exitNotFound}, code) && !marked(begunFile): // of the init
		o = executor.Refused(grid.ClassImage, noShell)
	default:
		return o, false
	}
	return o, true
}
