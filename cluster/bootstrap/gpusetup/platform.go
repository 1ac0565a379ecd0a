package gpusetup

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits of what is accepted.
const (
	maxSkew  = 30 * time.Second // leases depend on each node's own clock, certificates on both
	minSpace = 1 << 20          // KiB: four packages and a small image
)

// checkAccess checks whether this user can change the machine, and whether its clock is right.
func checkAccess(h host, o Options) Finding {
	switch {
	case h.root == "no":
		return Finding{Verdict: Warn,
			Cause: "the user " + h.user + " cannot become root without a password, so that nothing can be fixed",
			Cure: "log in as root for this once (root@HOST), or have an administrator run what --dry-run prints; sudo without a password " +
				"works too, and should be taken away from " + h.user + " afterwards: trials run as that user"}
	case !h.clock.IsZero() && h.skew.Abs() > maxSkew:
		return Finding{Verdict: Warn,
			Cause: fmt.Sprintf("the machine's clock is %s from this one's", h.skew.Round(time.Second)),
			Cure:  "turn on time synchronization (timedatectl set-ntp true)"}
	case h.space() >= 0 && h.space() < minSpace:
		return Finding{Verdict: Warn, Cause: fmt.Sprintf("the disk of /usr has %d MiB left", h.space()>>10),
			Cure: "make room: an image and the toolkit need 1 GiB"}
	}
	if h.uid == "0" {
		return Finding{Verdict: OK, Note: "logged in as root"}
	}
	return Finding{Verdict: OK, Note: "the user " + h.user + " may run programs as root"}
}

// space returns the free KiB that df -Pk printed, or -1 if it printed none.
func (a *answer) space() int {
	if f := strings.Fields(a.text("disk")); len(f) >= 6 {
		if n, err := strconv.Atoi(f[3]); err == nil {
			return n
		}
	}
	return -1
}

// checkPlatform checks whether gpu-setup can install the toolkit on this system.
func checkPlatform(h host, _ Options) Finding {
	switch {
	case h.container:
		return Finding{Verdict: Warn, Note: h.system(),
			Cause: "this machine is a container: its driver and its toolkit are its host's",
			Cure:  "nothing, if tasks run as plain processes in it; else run gpu-setup on its host"}
	case h.tegra:
		return Finding{Verdict: Stop, Note: h.system(),
			Cause: "this is an NVIDIA Tegra (Jetson), whose toolkit belongs to JetPack",
			Cure:  "install nvidia-container with JetPack's own apt sources"}
	}
	least, known := map[string]string{"ubuntu": "22.04", "debian": "11"}[h.id]
	switch {
	case !known || !h.apt:
		return Finding{Verdict: Stop, Note: h.system(),
			Cause: "gpu-setup knows Ubuntu and Debian, and this is " + h.system(),
			Cure:  "install the NVIDIA container toolkit as its guide says for this system, or run tasks as plain processes"}
	case h.release != "" && older(h.release, least):
		return Finding{Verdict: Stop, Note: h.system(),
			Cause: h.system() + " is too old: gpu-setup wants Ubuntu 22.04 or Debian 11, or newer",
			Cure:  "update the system, or run tasks as plain processes"}
	case h.arch != "amd64" && h.arch != "arm64" && h.arch != "x86_64" && h.arch != "aarch64":
		return Finding{Verdict: Stop, Note: h.system(), Cause: "NVIDIA has no toolkit for the architecture " + h.arch,
			Cure: "run tasks as plain processes"}
	case h.lock != "":
		return Finding{Verdict: Warn, Note: h.system(), Cause: "another installation is under way (process " + h.lock +
			" holds apt's lock)",
			Cure: "nothing: a fix waits for it, up to its limit"}
	}
	note := h.system() + ", " + h.arch
	if h.wsl {
		note += ", in WSL2"
	}
	return Finding{Verdict: OK, Note: note}
}

// system is the name of the distribution.
func (p *platform) system() string {
	switch {
	case p.name != "":
		return p.name
	case p.id != "":
		return strings.TrimSpace(p.id + " " + p.release)
	}
	return "an unknown system"
}
