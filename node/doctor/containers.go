package doctor

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// Containers describes this host's container engine. The zero value skips its checks.
type Containers struct {
	Engine  string // its name, version and socket
	Problem string // why no engine answers, or why none may be queried

	Podman       bool
	Version      string // of Docker, or of Podman
	Rootless     bool
	Limits       bool   // the memory of containers can be limited
	Seccomp      bool   // a filter of system calls is in force
	CgroupDriver string // systemd or cgroupfs
	Root         string // folder of images

	GPUs       string // how a container gets GPUs: cdi, request, runtime, or "" if it can't
	SpecDirs   []string
	SpecDriver string   // version of the driver for which the CDI specification was generated
	Unnamed    []string // GPUs that no CDI specification names
	Toolkit    bool     // the runtime of nvidia-container-toolkit is registered
}

// maxImageDiskUse is the maximum use of the disk with the images, in percent.
const maxImageDiskUse = 80

// checkContainers checks whether tasks with an image can run here, and whether they can use GPUs.
func checkContainers(c *Containers, gpus *GPUs) []Finding {
	switch {
	case c.Engine == "" && c.Problem == "":
		return nil
	case c.Engine == "" && strings.Contains(c.Problem, "permission denied"):
		return []Finding{warn("containers", c.Problem,
			"sudo usermod -aG docker $USER, and log in again; or use an engine without root rights")}
	case c.Engine == "":
		return []Finding{fine("containers", c.Problem+", so tasks with an image run on other nodes")}
	}
	found := []Finding{fine("containers", c.Engine)}
	if !c.Limits {
		cure := "boot with systemd.unified_cgroup_hierarchy=1"
		if c.Rootless {
			cure += ", and give this user the memory controller: Delegate=cpu memory pids for user@.service"
		}
		found = append(found, warn("container limits",
			"the engine does not bound the memory of containers, and says nothing when a task asks for that", cure))
	}
	if !c.Podman && c.Seccomp && isOlder(c.Version, 20, 10, 10) {
		found = append(found, warn("container seccomp", "Docker "+c.Version+
			" refuses the system call clone3, so that programs of images with glibc 2.34 or newer can't start threads",
			"update Docker to 20.10.10 or newer"))
	}
	var s unix.Statfs_t
	if c.Root != "" && unix.Statfs(c.Root, &s) == nil {
		found = append(found, judgeImageDisk(c.Root, s.Blocks*uint64(s.Bsize), s.Bavail*uint64(s.Bsize)))
	}
	if len(gpus.Devices) > 0 {
		found = append(found, judgeContainerGPUs(c, gpus.Driver))
	}
	return found
}

func judgeImageDisk(root string, size, free uint64) Finding {
	cause := fmt.Sprintf("%s of %s free for images in %s", humanize.IBytes(free), humanize.IBytes(size), root)
	if size > 0 && free < size/100*(100-maxImageDiskUse) {
		return warn("container disk", cause,
			"docker system df, and: docker system prune --all, which removes images that no container uses")
	}
	return fine("container disk", cause)
}

func judgeContainerGPUs(c *Containers, driver string) Finding {
	const name = "container gpus"
	generate := "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
	switch {
	case c.Podman && c.GPUs == "":
		return warn(name, "Podman "+c.Version+" gives no GPUs to containers over its socket, which starts with 5.4",
			"update Podman, or install Docker; processes have the GPUs")
	case c.GPUs == "" || c.GPUs == "request" && !c.Toolkit:
		return warn(name, "the engine can't give GPUs to containers",
			"mlfnode gpu-setup, or by hand: install nvidia-container-toolkit, nvidia-ctk runtime configure, and restart the engine")
	case c.GPUs == "cdi" && c.SpecDriver != "" && driver != "" && c.SpecDriver != driver:
		return warn(name, fmt.Sprintf("the CDI specification is of the driver %s, and the driver is %s",
			c.SpecDriver, driver), generate)
	case len(c.Unnamed) > 0 && len(c.SpecDirs) > 0:
		return warn(name, fmt.Sprintf("the CDI specification does not name %s", strings.Join(c.Unnamed, ", ")),
			generate)
	case c.GPUs != "cdi" && c.CgroupDriver == "systemd" && !c.Podman:
		return warn(name,
			"containers lose their GPUs when systemd is reloaded, since the engine's cgroups are systemd's",
			`update Docker to 28.2 or newer, which takes CDI devices, or give it "exec-opts": ["native.cgroupdriver=cgroupfs"]`)
	}
	how := map[string]string{"cdi": "by CDI", "request": "by device requests",
		"runtime": "by the runtime nvidia"}[c.GPUs]
	return fine(name, how)
}

// isOlder compares a version like 20.10.5+dfsg1 with one in numbers.
func isOlder(version string, than ...int) bool {
	var v [3]int
	n, _ := fmt.Sscanf(version, "%d.%d.%d", &v[0], &v[1], &v[2])
	for i, t := range than[:min(n, len(than))] {
		if v[i] != t {
			return v[i] < t
		}
	}
	return false // the same, or not a version
}
