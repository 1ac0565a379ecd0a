package gpusetup

import (
	"encoding/json"
	"fmt"
	"strings"
)

// engine is what the command docker runs on a machine, or would run.
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
	CDISpecDirs        []string
	ServerErrors       []string
	Runtimes           map[string]struct{ Path string }
	Host               json.RawMessage // only Podman has it
}

// docker is the container engine of the machine.
type docker struct {
	engine    engine
	info      info
	daemon    daemon
	complaint string // why its client has no answer of its server
}

// readDocker reads what docker is on this machine.
func readDocker(a *answer) docker {
	var d docker
	known := json.Unmarshal([]byte(a.text("info")), &d.info) == nil
	d.complaint = strings.TrimSpace(a.text("complaint"))
	if len(d.info.ServerErrors) > 0 { // older clients complain in their answer
		d.complaint = d.info.ServerErrors[0]
	}
	d.daemon = parseDaemon(a.text("daemon"))
	path, says, server := a.value("docker", "path"), strings.ToLower(a.value("docker", "says")),
		a.value("docker", "host")
	switch {
	case path == "":
		d.engine = engineNone
	case strings.Contains(says, "podman") || strings.HasSuffix(path, "/podman") || len(d.info.Host) > 0:
		d.engine = enginePodman
	case strings.Contains(path, "/snap/") || strings.HasPrefix(a.value("docker", "called"), "/snap/") ||
		strings.HasSuffix(path, "/snap"):
		d.engine = engineSnap
	case d.info.OperatingSystem == "Docker Desktop":
		d.engine = engineDesktop
	case strings.Contains(strings.Join(d.info.SecurityOptions, " "), "rootless"):
		d.engine = engineRootless
	case server != "" && !strings.HasPrefix(server, "unix://"):
		d.engine = engineRemote
	case known && d.info.ServerVersion != "":
		d.engine = engineDocker
	case strings.Contains(d.complaint, "permission denied"):
		d.engine = engineRefused
	case a.value("docker", "server") == "yes":
		d.engine = engineSilent
	default:
		d.engine = engineClient
	}
	return d
}

// checkEngine checks whether there is a container engine, and whether the toolkit can serve it:
// some kinds of Docker have a configuration that is not ours to write.
func checkEngine(h host, _ Options) Finding {
	plain := "; tasks run as plain processes"
	switch h.engine {
	case engineNone:
		return Finding{Verdict: OK, Note: "no container engine" + plain}
	case engineClient:
		return Finding{Verdict: OK, Note: "Docker's client, but no server" + plain}
	case engineRemote:
		return Finding{Verdict: Warn, Note: "no Docker server of this machine is used" + plain,
			Cause: "DOCKER_HOST names a server elsewhere: " + h.value("docker", "host"),
			Cure:  "unset DOCKER_HOST in the start-up files of this user to use the Docker of this machine"}
	case enginePodman:
		return Finding{Verdict: Warn, Note: "Podman",
			Cause: "docker is Podman here, which this command does not set up; from version 5.4 on its service gives GPUs to containers by CDI",
			Cure: "nothing, if only processes use GPUs; else run nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, " +
				"or install Docker in place of podman-docker"}
	case engineSnap:
		return stop("Docker comes from the snap store, where it is shut off from the toolkit",
			"remove the snap (snap remove docker) and install Docker from docker.com or the distribution")
	case engineDesktop:
		return stop("this is Docker Desktop, whose server runs in a virtual machine without the GPUs",
			"install Docker Engine instead, or use Docker Desktop on Windows with WSL2")
	case engineRootless:
		return stop("Docker runs rootless, and its configuration belongs to its user",
			`as that user, with the toolkit installed, run nvidia-ctk runtime configure --runtime=docker --config="$HOME/.config/docker/daemon.json" `+
				`and systemctl --user restart docker; as root, nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place`)
	case engineRefused:
		return stop("the user "+h.user+" may not talk to Docker, and cannot become root without a password",
			"add the user to the group docker, or log in as root for this once")
	case engineSilent:
		return stop("Docker is installed, but its server does not answer"+parenthesized(h.complaint),
			"start it (systemctl start docker) and read its log (journalctl -u docker)")
	}
	version := h.info.ServerVersion
	f := Finding{Verdict: OK,
		Note: fmt.Sprintf("Docker %s, %s running", version, count(h.info.ContainersRunning, "container"))}
	if older(version, "19.3") {
		f.Verdict, f.Cause = Stop, "Docker "+version+" is too old to give GPUs to containers"
		f.Cure = "update Docker to 19.03 or newer, better 28"
	}
	return f
}
