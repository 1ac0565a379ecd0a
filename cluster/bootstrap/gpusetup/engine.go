package gpusetup

import (
	"encoding/json"
	"fmt"
	"strings"
)

// engine is what answers, or would answer, to the name of docker.
type engine string

const (
	engineNone     engine = ""         // no container engine that we know
	engineDocker   engine = "docker"   // a Docker server of this machine, with its usual configuration file
	engineSnap     engine = "snap"     // Docker from the snap store
	engineDesktop  engine = "desktop"  // Docker Desktop: the server is in a virtual machine
	engineRootless engine = "rootless" // a server of one user
	enginePodman   engine = "podman"   // Podman under Docker's name
	engineClient   engine = "client"   // Docker's client alone
	engineSilent   engine = "silent"   // a server is installed, but does not answer
	engineRemote   engine = "remote"   // the client is told to use a server elsewhere
	engineRefused  engine = "refused"  // the server may not be asked by this user
)

// info is what matters in the answer of docker info.
type info struct {
	ServerVersion      string
	OperatingSystem    string
	SecurityOptions    []string
	ContainersRunning  int
	LiveRestoreEnabled bool
	CgroupDriver       string
	DefaultRuntime     string
	CDISpecDirs        []string
	ServerErrors       []string
	Runtimes           map[string]struct{ Path string }
	Host               json.RawMessage // Podman's way to begin its answer
}

// docker is the container engine of the machine.
type docker struct {
	engine    engine
	info      info
	daemon    daemon
	complaint string // why its client has no answer of its server
}

func readDocker(a *answer) docker {
	var d docker
	known := json.Unmarshal([]byte(a.text("info")), &d.info) == nil
	d.complaint = strings.TrimSpace(a.text("complaint"))
	if len(d.info.ServerErrors) > 0 { // older clients complain in their answer
		d.complaint = d.info.ServerErrors[0]
	}
	d.engine = d.detectEngine(a, known)
	d.daemon = parseDaemon(a.text("daemon"))
	return d
}

// detectEngine finds out what docker is on this machine.
func (d *docker) detectEngine(a *answer, known bool) engine {
	path, says := a.value("docker", "path"), strings.ToLower(a.value("docker", "says"))
	server := d.info.ServerVersion != ""
	switch {
	case path == "":
		return engineNone
	case strings.Contains(says, "podman") || strings.HasSuffix(path, "/podman") || len(d.info.Host) > 0:
		return enginePodman
	case strings.Contains(path, "/snap/") || strings.HasPrefix(a.value("docker", "called"), "/snap/") || strings.HasSuffix(path, "/snap"):
		return engineSnap
	case d.info.OperatingSystem == "Docker Desktop":
		return engineDesktop
	case strings.Contains(strings.Join(d.info.SecurityOptions, " "), "rootless"):
		return engineRootless
	case isRemote(a.value("docker", "host")):
		return engineRemote
	case known && server:
		return engineDocker
	case strings.Contains(d.complaint, "permission denied"):
		return engineRefused
	case a.value("docker", "server") == "yes":
		return engineSilent
	}
	return engineClient
}

func isRemote(address string) bool {
	return address != "" && !strings.HasPrefix(address, "unix://")
}

// checkEngine says whether containers can be had, and what would keep the toolkit from them.
func checkEngine(h host, _ Options) Finding {
	plain := "; tasks run as plain processes"
	switch h.engine {
	case engineNone:
		return Finding{Verdict: OK, Note: "no container engine" + plain}
	case engineClient:
		return Finding{Verdict: OK, Note: "Docker's client, but no server" + plain}
	case engineRemote:
		return Finding{Verdict: Warn, Note: "no Docker server of this machine is used" + plain, Cause: "DOCKER_HOST names a server elsewhere: " + h.value("docker", "host"),
			Cure: "unset DOCKER_HOST in the start-up files of this user to use the Docker of this machine"}
	case enginePodman:
		return Finding{Verdict: Warn, Note: "Podman", Cause: "docker is Podman here, which this command does not set up; from version 5.4 on its service gives GPUs to containers by CDI",
			Cure: "nothing, if only processes use GPUs; else run nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, or install Docker in place of podman-docker"}
	}
	if f, ok := h.engineProblem(); ok {
		return f
	}
	f := Finding{Verdict: OK, Note: fmt.Sprintf("Docker %s, %s running", h.info.ServerVersion, count(h.info.ContainersRunning, "container"))}
	if older(h.info.ServerVersion, "19.3") {
		f.Verdict, f.Cause, f.Cure = Stop, "Docker "+h.info.ServerVersion+" is too old to give GPUs to containers", "update Docker to 19.03 or newer, better 28"
	}
	return f
}

// engineProblem names the kinds of Docker whose configuration is not ours to write.
func (h *host) engineProblem() (Finding, bool) {
	f := Finding{Verdict: Stop}
	switch h.engine {
	case engineSnap:
		f.Cause = "Docker comes from the snap store, where it is shut off from the toolkit"
		f.Cure = "remove the snap (snap remove docker) and install Docker from docker.com or the distribution"
	case engineDesktop:
		f.Cause = "this is Docker Desktop, whose server runs in a virtual machine without the GPUs"
		f.Cure = "install Docker Engine instead, or use Docker Desktop on Windows with WSL2"
	case engineRootless:
		f.Cause = "Docker runs rootless, and its configuration belongs to its user"
		f.Cure = `as that user, with the toolkit installed, run nvidia-ctk runtime configure --runtime=docker --config="$HOME/.config/docker/daemon.json" ` +
			`and systemctl --user restart docker; as root, nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place`
	case engineRefused:
		f.Cause = "the user " + h.user + " may not talk to Docker, and cannot become root without a password"
		f.Cure = "add the user to the group docker, or log in as root for this once"
	case engineSilent:
		f.Cause = "Docker is installed, but its server does not answer" + because(h.complaint)
		f.Cure = "start it (systemctl start docker) and read its log (journalctl -u docker)"
	default:
		return Finding{}, false
	}
	return f, true
}

func because(complaint string) string {
	if complaint == "" {
		return ""
	}
	return " (" + complaint + ")"
}

// withDocker tells a machine where the toolkit has something to do.
func (d *docker) withDocker() bool { return d.engine == engineDocker }

// hasCDI reports an engine that takes CDI devices: since 28.2 always, and since 25 where it was
// turned on. Only engines that have it on tell where they look for specifications.
func (d *docker) hasCDI() bool { return d.engine == engineDocker && len(d.info.CDISpecDirs) > 0 }
