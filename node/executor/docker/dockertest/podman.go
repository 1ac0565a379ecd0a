package dockertest

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// NeedPodman skips the test where there is no Podman.
func NeedPodman(t testing.TB) {
	t.Helper()
	_, err := exec.LookPath("podman")
	if os.Getuid() == 0 && err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no podman: %v", err)
	}
	t.Skip("no podman (apt-get install podman busybox-static), or no rights to start it")
}

// podmanConf makes Podman keep everything in one folder, use no journal, and never ask for more
// open files and processes than this process may have: its defaults exceed what machines that drop
// CAP_SYS_RESOURCE allow.
const podmanConf = `[containers]
default_ulimits = ["nofile=%[1]d:%[1]d", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "%[2]s/tmp"
static_dir = "%[2]s/data/libpod"
volume_path = "%[2]s/data/volumes"
`

// podmanService returns the command of the service of Podman, which uses plain HTTP with registries
// on this machine.
func (e *Engine) podmanService() (*exec.Cmd, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"containers.conf": fmt.Sprintf(podmanConf, min(files.Max, 20000), e.Dir),
		"registries.conf": "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n",
	} {
		if err := os.WriteFile(e.path(name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("podman",
		append([]string{"--root", e.path("data"), "--runroot", e.path("exec"), "--storage-driver", "vfs",
			"system", "service", "--time", "0", e.Host()}, e.Args...)...)
	cmd.Dir = e.Dir // conmon leaves a file there if memory runs out
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+e.path("containers.conf"),
		"CONTAINERS_REGISTRIES_CONF="+e.path("registries.conf"))
	return cmd, nil
}
