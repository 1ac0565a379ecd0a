package gpusetup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// cdi is how the GPUs are described to container engines.
type cdi struct {
	specs []spec
	// names are the names that the toolkit finds in the specifications: "0", "GPU-…", "MIG-…",
	// "0:1", "all".
	names []string
}

// spec is a file that tells engines how to give the GPUs to a container (Container Device
// Interface).
type spec struct {
	written int64 // seconds of the Unix epoch
	version string
	path    string
}

// readSpecs reads lines such as "1747900000 0.5.0 /var/run/cdi/nvidia.yaml".
func readSpecs(lines []string) []spec {
	var all []spec
	for _, line := range lines {
		f := strings.Split(line, " ")
		if len(f) != 3 {
			continue
		}
		if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
			all = append(all, spec{n, f[1], f[2]})
		}
	}
	return all
}

func readCDI(a *answer) cdi {
	c := cdi{specs: readSpecs(a.sections["specs"])}
	for _, line := range a.sections["devices"] {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "nvidia.com/gpu="); ok {
			c.names = append(c.names, name)
		}
	}
	return c
}

// checkCDI says whether the specifications fit the driver, the GPUs and the engine.
func checkCDI(h host, _ Options) Finding {
	if f, ok := h.notNeeded(); ok {
		return f
	}
	switch {
	case h.toolkitVersion() == "":
		return Finding{Verdict: Skip, Note: "the toolkit is not installed yet"}
	case len(h.cdi.specs) == 0:
		return Finding{Verdict: Fix, Cause: "there is no CDI specification of the GPUs"}
	case h.refreshOff():
		return Finding{Verdict: Fix, Cause: "the CDI specification is not rewritten after a driver update"}
	case h.stale():
		return Finding{Verdict: Fix, Cause: "the CDI specification is older than the driver"}
	case len(h.missingFromSpecs()) > 0:
		return Finding{Verdict: Fix, Cause: "the CDI specification does not name " + strings.Join(h.missingFromSpecs(), ", ")}
	}
	return h.checkSpecs()
}

// checkSpecs looks for what no refresh would change.
func (h *host) checkSpecs() Finding {
	f := Finding{Verdict: OK, Note: fmt.Sprintf("CDI %s names %s", h.cdi.specs[0].version, count(len(h.devices), "device"))}
	for _, s := range h.cdi.specs {
		if !older(s.version, "0.7.0") && older(h.info.ServerVersion, "26.1") {
			f.Verdict, f.Cause = Warn, fmt.Sprintf("Docker %s does not understand the CDI %s of %s; its containers get GPUs through the runtime", h.info.ServerVersion, s.version, s.path)
			f.Cure = "nothing, or update Docker to 26.1 or newer"
		}
	}
	if len(h.cdi.specs) > 1 {
		f.Verdict, f.Cause = Warn, fmt.Sprintf("%s and %s both describe the GPUs", h.cdi.specs[0].path, h.cdi.specs[1].path)
		f.Cure = "remove " + h.cdi.specs[0].path + ", which nothing keeps up to date"
	}
	return f
}

// refreshOff reports a toolkit with units that keep the specification fresh, but are not enabled.
func (h *host) refreshOff() bool {
	if older(h.toolkitVersion(), "1.18") || !h.systemd {
		return false
	}
	return h.value("units", "nvidia-cdi-refresh.path") == "disabled" || h.value("units", "nvidia-cdi-refresh.service") == "disabled"
}

// stale reports specifications that were all written before the module of the driver was.
func (h *host) stale() bool {
	changed, err := strconv.ParseInt(h.value("module", "changed"), 10, 64)
	return err == nil && !slices.ContainsFunc(h.cdi.specs, func(s spec) bool { return s.written >= changed })
}

// missingFromSpecs lists what nvidia-smi knows and the specifications do not. A GPU cut into MIG
// devices goes by those. Old specifications name devices by index alone, so that only their number
// can be compared.
func (h *host) missingFromSpecs() []string {
	names := h.cdi.names
	if h.wsl && slices.Contains(names, "all") {
		return nil // WSL2 has one device file for all its GPUs
	}
	byUUID := slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "-") })
	var missing []string
	for i, g := range h.devices {
		whole := !g.mig && i+1 < len(h.devices) && h.devices[i+1].mig
		if whole || slices.Contains(names, g.uuid) || (!byUUID && i < len(names)) {
			continue
		}
		missing = append(missing, g.uuid)
	}
	return missing
}

func fixCDI(host, Options) (string, map[string]string) { return cdiProgram, nil }

// namesUUIDs reports specifications by which a device can be had by its UUID, as tasks ask for it.
func (h *host) namesUUIDs() bool {
	names := h.cdi.names
	return slices.ContainsFunc(h.devices, func(g smiDevice) bool { return slices.Contains(names, g.uuid) })
}

// injection is how containers get their GPUs on this machine.
func (h *host) injection() string {
	inFile, known := h.runtimeRegistered()
	fresh := len(h.cdi.specs) > 0 && len(h.missingFromSpecs()) == 0 && !h.stale()
	understood := !slices.ContainsFunc(h.cdi.specs, func(s spec) bool { return !older(s.version, "0.7.0") && older(h.info.ServerVersion, "26.1") })
	switch {
	case !h.driverWorks() || h.toolkitVersion() == "":
		return "none"
	case h.hasCDI() && fresh && understood && h.namesUUIDs():
		return "cdi"
	case h.engine == engineDocker && inFile && known:
		return "runtime"
	}
	return "none"
}
