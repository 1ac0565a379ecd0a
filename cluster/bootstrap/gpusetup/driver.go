package gpusetup

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
)

// readDriver reads what the probe found of the GPUs and their driver. nvidia-smi complains on
// standard output.
func readDriver(a *answer) driver {
	var d driver
	for _, line := range a.sections["hardware"] {
		f := strings.Fields(line)
		// class 03 is a display: 0300 VGA, 0302 3D. Others of NVIDIA's functions are sound, USB and
		// bridges.
		if len(f) >= 3 && strings.HasPrefix(f[1], "0x03") {
			d.cards = append(d.cards, card{slot: f[0], device: f[2], driver: strings.Join(f[3:], " ")})
		}
	}
	for _, m := range a.sections["modules"] {
		d.nouveau, d.moduleLoaded = d.nouveau || m == "nouveau", d.moduleLoaded || m == "nvidia"
	}
	// From /proc/driver/nvidia/version. The open module has three more words before its version.
	running := regexp.MustCompile(`Kernel Module(?: for \S+)?\s+(\d+\.[\d.]+)`)
	if m := running.FindStringSubmatch(a.text("driver")); m != nil {
		d.moduleVersion = m[1]
	}
	// "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-…)" and " MIG 1g.5gb Device 0: (UUID: MIG-…)"
	device := regexp.MustCompile(`^(\s*MIG \S+|GPU \d+: (.*)) .*\(UUID: ((?:GPU|MIG)-[0-9A-Za-z/-]+)\)`)
	lines := a.sections["smi"]
	d.smiInstalled = len(lines) > 0
	for _, line := range lines {
		if m := device.FindStringSubmatch(line + " "); m != nil {
			d.devices = append(d.devices,
				smiDevice{uuid: m[3], model: strings.TrimSpace(m[2]), mig: strings.HasPrefix(m[3], "MIG-")})
		}
	}
	if d.smiInstalled && (lines[len(lines)-1] != "exit 0" || len(d.devices) == 0) {
		d.smiError = cmp.Or(strings.TrimSpace(strings.Join(lines[:len(lines)-1], ". ")), "no answer")
	}
	for _, line := range a.sections["gpus"] {
		f := strings.Split(line, ",")
		if len(f) < 7 {
			continue
		}
		d.smiVersion = cmp.Or(d.smiVersion, strings.TrimSpace(f[6]))
		for i := range f {
			f[i] = strings.Trim(strings.TrimSpace(f[i]), "[]")
		}
		if strings.Contains(f[1], "GPU-") {
			d.gpus = append(d.gpus, GPU{Index: f[0], UUID: f[1], Model: f[2], Memory: f[3], MIG: f[4], Compute: f[5]})
		}
	}
	// From the table that nvidia-smi prints.
	d.cuda = regexp.MustCompile(`[\d.]+$`).FindString(a.text("cuda"))
	return d
}

// checkHardware checks whether there is a GPU at all.
func checkHardware(h host, _ Options) Finding {
	switch {
	case h.tegra:
		return Finding{Verdict: OK, Note: "an NVIDIA Tegra, whose GPU is not on the PCI bus"}
	case h.hasNoGPU() && (h.moduleVersion != "" || h.smiInstalled):
		return Finding{Verdict: Warn, Note: "no GPU: the node works as a CPU node",
			Cause: "an NVIDIA driver is installed, but there is no NVIDIA GPU",
			Cure:  "check that the card is seated and passed to this machine, or remove the driver"}
	case h.hasNoGPU():
		return Finding{Verdict: OK, Note: "no GPU: the node works as a CPU node"}
	case len(h.cards) == 0:
		return Finding{Verdict: OK,
			Note: fmt.Sprintf("%s, not on a PCI bus of this machine", count(len(h.wholeGPUs()), "NVIDIA GPU"))}
	case h.driverWorks() && !h.container && len(h.wholeGPUs()) < len(h.cards):
		return Finding{Verdict: Warn,
			Cause: fmt.Sprintf("%s on the PCI bus, but nvidia-smi lists %d", count(len(h.cards), "NVIDIA GPU"),
				len(h.wholeGPUs())),
			Cure: "look for Xid and NVRM in the kernel's log (dmesg); a GPU that fell off the bus comes back with a restart of the machine"}
	}
	return Finding{Verdict: OK, Note: count(len(h.cards), "NVIDIA GPU")}
}

// wholeGPUs lists the GPUs without their parts.
func (d *driver) wholeGPUs() []smiDevice {
	var all []smiDevice
	for _, g := range d.devices {
		if !g.mig {
			all = append(all, g)
		}
	}
	return all
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// checkDriver checks whether the driver works, and why not.
func checkDriver(h host, o Options) Finding {
	reboot := Finding{Verdict: Stop,
		Cure: "drain the node and restart the machine, or run gpu-setup again with leave to do it"}
	if o.Reboot && !h.container && !h.wsl {
		reboot.Verdict = Fix
	}
	switch {
	case h.driverWorks():
		f := Finding{Verdict: OK,
			Note: fmt.Sprintf("driver %s, %s", h.driver.version(), count(len(h.wholeGPUs()), "GPU"))}
		installed := h.value("module", "version")
		if strings.Contains(h.text("reboot"), "nvidia") || installed != "" && h.moduleVersion != "" &&
			installed != h.moduleVersion {
			f.Verdict, f.Cause = Warn,
				fmt.Sprintf("driver %s runs, and another one%s waits for a restart of the machine",
					h.driver.version(), parenthesized(installed))
			f.Cure = "drain the node and restart the machine soon: programs that start may already meet the new library"
		}
		return f
	case h.container:
		return stop("this machine is a container, and the GPUs of its host were not given to it",
			"start the container with GPUs (docker run --gpus all), or run gpu-setup on its host; until then the node works as a CPU node")
	case h.wsl:
		return stop("this is WSL2, and nvidia-smi does not work in it",
			"install the NVIDIA driver in Windows, none in WSL2, and run wsl --shutdown")
	case strings.Contains(strings.ToLower(h.smiError), "version mismatch"):
		reboot.Cause = "the NVIDIA driver was updated under its running kernel module" + parenthesized(h.moduleVersion)
		return reboot
	case h.nouveau && h.value("module", "filename") == "":
		return noDriver("the free driver nouveau runs the GPU, which cannot compute with it")
	case h.nouveau:
		reboot.Cause = "the free driver nouveau still runs, although NVIDIA's is installed"
		return reboot
	case h.moduleVersion == "":
		return h.notLoaded(reboot)
	case !h.smiInstalled:
		major, _, _ := strings.Cut(h.moduleVersion, ".")
		return stop("the kernel module of the NVIDIA driver runs"+parenthesized(h.moduleVersion)+
			", but nvidia-smi is not there",
			"install the programs of the same driver (Ubuntu: nvidia-utils-"+major+"; Debian: nvidia-smi)")
	}
	return stop("nvidia-smi says: "+h.smiError,
		"look for Xid and NVRM in the kernel's log (dmesg), and restart the machine")
}

func stop(cause, cure string) Finding { return Finding{Verdict: Stop, Cause: cause, Cure: cure} }

// parenthesized returns a text, unless it is empty, in parentheses after a space.
func parenthesized(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// version is the version that runs; without /proc/driver (WSL2) it is that of nvidia-smi.
func (d *driver) version() string { return cmp.Or(d.moduleVersion, d.smiVersion, "of unknown version") }

// notLoaded explains why no module of NVIDIA runs.
func (h *host) notLoaded(reboot Finding) Finding {
	installed := h.value("module", "filename") != ""
	switch {
	case installed && strings.Contains(h.text("secureboot"), "SecureBoot enabled") && h.value("module", "signer") == "":
		return stop(
			"Secure Boot is on, and the kernel module of the NVIDIA driver is not signed, so that it cannot be loaded",
			"install signed modules (Ubuntu: linux-modules-nvidia-…), or enrol the key that DKMS signs with "+
				"(mokutil --import /var/lib/dkms/mok.pub, then restart)")
	case installed && len(h.sections["reboot"]) > 0:
		reboot.Cause = "the NVIDIA driver is installed, but waits for a restart of the machine"
		return reboot
	case installed && h.moduleLoaded:
		return stop("the kernel module of the NVIDIA driver is loaded, but does not run",
			"look for NVRM in the kernel's log (dmesg)")
	case installed:
		return stop("the NVIDIA driver is installed, but its kernel module is not loaded",
			"run modprobe nvidia as root and read what it says; dmesg says more")
	case strings.Contains(h.text("dkms"), "nvidia") && len(h.sections["headers"]) == 0:
		return stop("the NVIDIA driver's module was not built for this kernel, "+h.kernel+", whose headers are missing",
			"install linux-headers-"+h.kernel+", then run dkms autoinstall as root")
	case strings.Contains(h.text("dkms"), "nvidia"):
		return stop("the NVIDIA driver's module was not built for this kernel, "+h.kernel,
			"run dkms autoinstall as root and read what it says")
	}
	return noDriver("there is a GPU, but no NVIDIA driver")
}

func noDriver(cause string) Finding {
	return stop(cause, "install the driver and restart the machine (Ubuntu: ubuntu-drivers install --gpgpu; "+
		"Debian: apt-get install nvidia-driver from non-free); until then the node works as a CPU node")
}
