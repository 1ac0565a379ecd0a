package gpusetup

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
)

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
	d.moduleVersion = runningVersion(a.text("driver"))
	d.readSMI(a)
	return d
}

// readSMI reads the answers of nvidia-smi, which complains on standard output.
func (d *driver) readSMI(a *answer) {
	lines := a.sections["smi"]
	d.smiInstalled = len(lines) > 0
	for _, line := range lines {
		if g, ok := parseSMIDevice(line); ok {
			d.devices = append(d.devices, g)
		}
	}
	if d.smiInstalled && (lines[len(lines)-1] != "exit 0" || len(d.devices) == 0) {
		d.smiError = strings.TrimSpace(strings.Join(lines[:len(lines)-1], ". "))
		if d.smiError == "" {
			d.smiError = "no answer"
		}
	}
	for _, line := range a.sections["gpus"] {
		if g, ok := parseGPU(line); ok {
			d.gpus = append(d.gpus, g)
		}
		if f := strings.Split(line, ","); len(f) >= 7 {
			d.smiVersion = cmp.Or(d.smiVersion, strings.TrimSpace(f[6]))
		}
	}
	// From the table that nvidia-smi prints.
	d.cuda = regexp.MustCompile(`[\d.]+$`).FindString(a.text("cuda"))
}

// runningVersion reads /proc/driver/nvidia/version. The open module has three more words before its
// version.
func runningVersion(text string) string {
	m := regexp.MustCompile(`Kernel Module(?: for \S+)?\s+(\d+\.[\d.]+)`).FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1]
}

// parseSMIDevice reads "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-…)" and " MIG 1g.5gb Device 0:
// (UUID: MIG-…)".
func parseSMIDevice(line string) (smiDevice, bool) {
	m := regexp.MustCompile(`^(\s*MIG \S+|GPU \d+: (.*)) .*\(UUID: ((?:GPU|MIG)-[0-9A-Za-z/-]+)\)`).FindStringSubmatch(line + " ")
	if m == nil {
		return smiDevice{}, false
	}
	return smiDevice{uuid: m[3], model: strings.TrimSpace(m[2]), mig: strings.HasPrefix(m[3], "MIG-")}, true
}

func parseGPU(line string) (GPU, bool) {
	f := strings.Split(line, ",")
	if len(f) < 7 || !strings.Contains(f[1], "GPU-") {
		return GPU{}, false
	}
	for i := range f {
		f[i] = strings.Trim(strings.TrimSpace(f[i]), "[]")
	}
	return GPU{Index: f[0], UUID: f[1], Model: f[2], Memory: f[3], MIG: f[4], Compute: f[5]}, true
}

// checkHardware says whether there is a GPU at all.
func checkHardware(h host, _ Options) Finding {
	switch {
	case h.tegra:
		return Finding{Verdict: OK, Note: "an NVIDIA Tegra, whose GPU is not on the PCI bus"}
	case h.hasNoGPU() && (h.moduleVersion != "" || h.smiInstalled):
		return Finding{Verdict: Warn, Note: "no GPU: the node works as a CPU node",
			Cause: "an NVIDIA driver is installed, but there is no NVIDIA GPU", Cure: "check that the card is seated and passed to this machine, or remove the driver"}
	case h.hasNoGPU():
		return Finding{Verdict: OK, Note: "no GPU: the node works as a CPU node"}
	case len(h.cards) == 0:
		return Finding{Verdict: OK, Note: fmt.Sprintf("%s, not on a PCI bus of this machine", count(len(h.wholeGPUs()), "NVIDIA GPU"))}
	case h.driverWorks() && !h.container && len(h.wholeGPUs()) < len(h.cards):
		return Finding{Verdict: Warn, Cause: fmt.Sprintf("%s on the PCI bus, but nvidia-smi lists %d", count(len(h.cards), "NVIDIA GPU"), len(h.wholeGPUs())),
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

// checkDriver says whether the driver works, and why it does not.
func checkDriver(h host, o Options) Finding {
	reboot := Finding{Verdict: Stop, Cure: "drain the node and restart the machine, or run gpu-setup again with leave to do it"}
	if o.Reboot && !h.container && !h.wsl {
		reboot.Verdict = Fix
	}
	switch {
	case h.driverWorks():
		return h.driverFinding()
	case h.container:
		return Finding{Verdict: Stop, Cause: "this machine is a container, and the GPUs of its host were not given to it",
			Cure: "start the container with GPUs (docker run --gpus all), or run gpu-setup on its host; until then the node works as a CPU node"}
	case h.wsl:
		return Finding{Verdict: Stop, Cause: "this is WSL2, and nvidia-smi does not work in it", Cure: "install the NVIDIA driver in Windows, none in WSL2, and run wsl --shutdown"}
	case strings.Contains(strings.ToLower(h.smiError), "version mismatch"):
		reboot.Cause = "the NVIDIA driver was updated under its running kernel module" + parenthesized(h.moduleVersion)
		return reboot
	case h.nouveau:
		return h.nouveauLoaded(reboot)
	case h.moduleVersion == "":
		return h.notLoaded(reboot)
	case !h.smiInstalled:
		return Finding{Verdict: Stop, Cause: "the kernel module of the NVIDIA driver runs" + parenthesized(h.moduleVersion) + ", but nvidia-smi is not there",
			Cure: "install the programs of the same driver (Ubuntu: nvidia-utils-" + major(h.moduleVersion) + "; Debian: nvidia-smi)"}
	}
	return Finding{Verdict: Stop, Cause: "nvidia-smi says: " + h.smiError, Cure: "look for Xid and NVRM in the kernel's log (dmesg), and restart the machine"}
}

func parenthesized(version string) string {
	if version == "" {
		return ""
	}
	return " (" + version + ")"
}

func major(version string) string { first, _, _ := strings.Cut(version, "."); return first }

// driverFinding describes a driver that serves programs.
func (h *host) driverFinding() Finding {
	f := Finding{Verdict: OK, Note: fmt.Sprintf("driver %s, %s", h.driver.version(), count(len(h.wholeGPUs()), "GPU"))}
	packages := h.text("reboot")
	if installed := h.value("module", "version"); strings.Contains(packages, "nvidia") || (installed != "" && h.moduleVersion != "" && installed != h.moduleVersion) {
		f.Verdict, f.Cause = Warn, fmt.Sprintf("driver %s runs, and another one%s waits for a restart of the machine", h.driver.version(), parenthesized(installed))
		f.Cure = "drain the node and restart the machine soon: programs that start may already meet the new library"
	}
	return f
}

// version is the version that runs; nvidia-smi tells it where there is no /proc/driver (WSL2).
func (d *driver) version() string { return cmp.Or(d.moduleVersion, d.smiVersion, "of unknown version") }

func (h *host) nouveauLoaded(reboot Finding) Finding {
	if h.value("module", "filename") == "" {
		return noDriver("the free driver nouveau runs the GPU, which cannot compute with it")
	}
	reboot.Cause = "the free driver nouveau still runs, although NVIDIA's is installed"
	return reboot
}

// notLoaded finds out why no module of NVIDIA runs.
func (h *host) notLoaded(reboot Finding) Finding {
	installed := h.value("module", "filename") != ""
	switch {
	case installed && h.secureBoot() && h.value("module", "signer") == "":
		return Finding{Verdict: Stop, Cause: "Secure Boot is on, and the kernel module of the NVIDIA driver is not signed, so that it cannot be loaded",
			Cure: "install signed modules (Ubuntu: linux-modules-nvidia-…), or enrol the key that DKMS signs with (mokutil --import /var/lib/dkms/mok.pub, then restart)"}
	case installed && len(h.sections["reboot"]) > 0:
		reboot.Cause = "the NVIDIA driver is installed, but waits for a restart of the machine"
		return reboot
	case installed && h.moduleLoaded:
		return Finding{Verdict: Stop, Cause: "the kernel module of the NVIDIA driver is loaded, but does not run", Cure: "look for NVRM in the kernel's log (dmesg)"}
	case installed:
		return Finding{Verdict: Stop, Cause: "the NVIDIA driver is installed, but its kernel module is not loaded", Cure: "run modprobe nvidia as root and read what it says; dmesg says more"}
	case strings.Contains(h.text("dkms"), "nvidia"):
		return h.notBuilt()
	}
	return noDriver("there is a GPU, but no NVIDIA driver")
}

func (h *host) notBuilt() Finding {
	f := Finding{Verdict: Stop, Cause: "the NVIDIA driver's module was not built for this kernel, " + h.kernel, Cure: "run dkms autoinstall as root and read what it says"}
	if len(h.sections["headers"]) == 0 {
		f.Cause += ", whose headers are missing"
		f.Cure = "install linux-headers-" + h.kernel + ", then run dkms autoinstall as root"
	}
	return f
}

func (a *answer) secureBoot() bool {
	return strings.Contains(a.text("secureboot"), "SecureBoot enabled")
}

func noDriver(cause string) Finding {
	return Finding{Verdict: Stop, Cause: cause,
		Cure: "install the driver and restart the machine (Ubuntu: ubuntu-drivers install --gpgpu; Debian: apt-get install nvidia-driver from non-free); until then the node works as a CPU node"}
}
