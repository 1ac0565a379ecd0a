package docker

import (
	"errors"
	"testing"

	"mlfnode/grid"
)

// TestFaultClassByWords has errors of engines and registries that the tests' own registry does not give.
func TestFaultClassByWords(t *testing.T) {
	for words, want := range map[string]grid.Class{
		"Error response from daemon: repository reg.lab/x not found: name unknown: repository name not known to registry": grid.ClassImage,
		`failed to resolve reference "reg.lab/x:1": reg.lab/x:1: not found`:                                               grid.ClassImage,
		`Get "https://reg.lab/v2/": EOF`: grid.ClassRegistry,
		"Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?":                   grid.ClassEngine,
		"failed to register layer: write /opt/x: no space left on device":                                                     grid.ClassDisk,
		"toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating and upgrading.": grid.ClassRegistry,
	} {
		if got := faultClass(errors.New(words)); got != want {
			t.Errorf("%q: got %s, want %s", words, got, want)
		}
	}
}

// TestLaunchFaultOfTheUser: what the task asks for wrongly is not the engine's trouble.
func TestLaunchFaultOfTheUser(t *testing.T) {
	for _, words := range []string{
		"Error response from daemon: Duplicate mount point: /data",
		"invalid volume specification: '/:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
		"unable to find user nosuchuser: no matching entries in passwd file",
	} {
		var f *Fault
		if err := launchFault("make", errors.New(words)); !errors.As(err, &f) || f.Class != grid.ClassStart {
			t.Errorf("%q: got %+v, want class %s", words, f, grid.ClassStart)
		}
	}
}
