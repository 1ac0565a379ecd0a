package projects

import (
	"testing"

	"mlfnode/grid"
)

// TestUnmet: what this version understands and can't obey is read, and refused with its place when its task is to run. The
// other tasks of the project run.
func TestUnmet(t *testing.T) {
	p, err := Load(tree{"project.yaml": `:name: p
tasks:
  image: {command: [a], image: "python:3.12"}
  all:
    command: [a]
    image: x
    resources: {gpus: 2, gpu_memory: 1GiB, gpu_model: A100}
    gpu_ids: index
  fine: {command: [a], image: "", resources: {gpus: 0, gpu_memory: 0}}
`}.folder(t))
	check(t, err)
	file := p.file
	const image = ": image asks for a container, but this version runs no containers: trials are plain processes of the node. Leave the field out, and install what the program needs in a setup step."
	for name, want := range map[string]string{
		"image": file + ":3:32" + image,
		"all":   file + ":6:12" + image,
	} {
		_, err := p.Task(name)
		wantError(t, err, want)
	}
	if _, err := p.Task("fine"); err != nil {
		t.Errorf("a task that asks for nothing: got %v, want it to run", err)
	}
	all := p.tasks[1]
	if want := (grid.Resources{CPUs: grid.One, GPUs: 2 * grid.One, GPUMemory: 1 << 30, GPUModel: "A100"}); all.GPUIDs != grid.GPUIDsIndex || all.Image != "x" || all.Resources != want {
		t.Errorf("got image %q and %+v, want x and %+v", all.Image, all.Resources, want)
	}
}
