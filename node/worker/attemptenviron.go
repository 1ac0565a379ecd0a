package worker

import (
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/worker/allocator"
)

// keptVariable reports whether attempts inherit the variable from the submitting shell. They do not
// inherit those that are set for each attempt, nor mlfnode's own.
func keptVariable(key string) bool {
	return !strings.HasPrefix(key, "MLF_") && key != "PWD" && key != "OLDPWD"
}

// leaseEnviron is what the environments of a lease's attempts have in common beyond that of their
// sweep.
type leaseEnviron struct {
	defaults []string // what a program gets unless its user, its node or its image sets it
	own      []string
}

// environs builds the environments of attempts.
type environs struct {
	containers *taskContainers
	bundles    *bundles
	devices    *DeviceTracker
}

// forLease returns the variables that describe what is reserved for the attempts of a lease.
func (en *environs) forLease(id grid.SweepID, al *allocator.Allocation) *leaseEnviron {
	e := &leaseEnviron{
		defaults: []string{"PYTHONUNBUFFERED=1"}, // output appears immediately, and survives a kill of the program
		own:      []string{"MLF_SWEEP=" + string(id), "MLF_CACHE=" + en.bundles.cacheDir},
	}
	if al == nil {
		return e
	}
	e.own = append(e.own, "MLF_SLOT="+strconv.Itoa(al.Slot))
	if al.CPUs > 0 { // an mlfnode that the program starts uses these as its limits
		// otherwise each of n trials starts a thread for each of n processors
		e.defaults = append(e.defaults, "OMP_NUM_THREADS="+strconv.FormatInt(int64((al.CPUs+grid.One-1)/grid.One), 10))
		e.own = append(e.own, "MLF_TRIAL_CPUS="+al.CPUs.String())
	}
	if al.Memory > 0 {
		e.own = append(e.own, "MLF_TRIAL_MEMORY="+strconv.FormatInt(al.Memory, 10))
	}
	return e
}

// forAttempt returns the complete environment of the attempt. Later entries win over earlier ones:
// the executor merges them.
func (en *environs) forAttempt(s *sweep, a *attempt) []string {
	var base []string // what all attempts of the sweep have, in this image
	if a.image == nil {
		base = s.environ()
	} else {
		base = en.containers.environ(s.record, a.image)
	}
	// seven more below; rarely used ones make it grow
	env := make([]string, 0, len(a.environ.defaults)+len(base)+len(a.spool.variables)+len(a.environ.own)+7)
	env = append(env, a.environ.defaults...)
	env = append(env, base...)
	env = append(env, a.spool.variables[:]...)
	env = append(env, a.environ.own...)
	env = append(env,
		"MLF_TRIAL="+a.id.String(),
		"MLF_ATTEMPT="+strconv.Itoa(a.number),
		string(a.params.AppendJSON([]byte("MLF_PARAMS="))),
	)
	if a.task.Venv != "" {
		venv := a.spool.work + "/" + a.task.Venv
		path, _ := lookupVariable(base, "PATH")
		env = append(env, "VIRTUAL_ENV="+venv, "PATH="+venv+"/bin:"+path)
	}
	if a.task.Repeat {
		for _, p := range a.params {
			if p.Key == space.RepeatKey {
				env = append(env, "MLF_REPEAT="+p.Value.Text)
			}
		}
	}
	if a.checkpoint != nil {
		env = append(env, "MLF_CHECKPOINT="+a.checkpoint.liveDir())
		if a.checkpoint.state.Resume {
			env = append(env, "MLF_RESUME="+a.checkpoint.liveDir())
		}
	}
	switch {
	case a.allocation != nil && len(a.allocation.Shares) > 0:
		return gpuEnviron(env, a)
	case en.devices.present.Load():
		env = append(env, "MLF_TRIAL_GPUS=none")
		// Unless the task or the person who submitted the sweep sets it, the trial must not use the
		// devices of others.
		_, ofTask := s.record.Task.Env[visibleDevices]
		_, ofUser := lookupVariable(s.record.EnvironAdded, visibleDevices)
		if !ofTask && !ofUser {
			env = append(env, visibleDevices+"=")
		}
	}
	return env
}

// visibleDevices is the variable that tells CUDA which devices a program may use.
const visibleDevices = "CUDA_VISIBLE_DEVICES"

// gpuEnviron adds the variables that describe the program's devices.
func gpuEnviron(env []string, a *attempt) []string {
	base := env
	shares := a.allocation.Shares
	var visible, indexes []string
	for i, share := range shares {
		index := strconv.Itoa(share.Index)
		indexes = append(indexes, index)
		if a.image != nil { // a container sees only its own devices, and numbers them from 0
			index = strconv.Itoa(i)
		}
		if a.task.GPUIDs == grid.GPUIDsIndex && share.Parent == "" {
			visible = append(visible, index)
		} else {
			visible = append(visible, share.UUID)
		}
	}
	env = append(env,
		"CUDA_DEVICE_ORDER=PCI_BUS_ID",
		visibleDevices+"="+strings.Join(visible, ","),
		"MLF_GPUS="+strings.Join(indexes, ","),
		"MLF_GPU_MEMORY="+strconv.FormatInt(shares[0].Memory, 10),
		"MLF_TRIAL_GPUS="+strings.Join(a.allocation.UUIDs(), ","),
	)
	if shares[0].Milli >= grid.One && !a.task.Resources.Measured() {
		return env
	}
	// Frameworks that allocate most of a device's memory at once are to allocate it on demand, in a
	// program that has a share of a device or whose need is measured. What the user has set stays.
	for _, kv := range [][2]string{
		{"XLA_PYTHON_CLIENT_PREALLOCATE", "false"}, {"TF_FORCE_GPU_ALLOW_GROWTH", "true"},
		{"FLAGS_fraction_of_gpu_memory_to_use", shares[0].Milli.String()},
	} {
		if _, set := lookupVariable(base, kv[0]); !set {
			env = append(env, kv[0]+"="+kv[1])
		}
	}
	return env
}

// lookupVariable returns the value of a variable as a program sees it: the last entry counts.
func lookupVariable(env []string, name string) (value string, ok bool) {
	for _, kv := range slices.Backward(env) {
		if key, value, ok := strings.Cut(kv, "="); ok && key == name {
			return value, true
		}
	}
	return "", false
}
