package gpusetup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// cdi describes the GPUs to container engines (Container Device Interface).
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

// readCDI reads lines such as "1747900000 0.5.0 /var/run/cdi/nvidia.yaml", and the names of
// devices.
func readCDI(a *answer) (c cdi) {
	for _, line := range a.sections["specs"] {
		f := strings.Split(line, " ")
		if len(f) != 3 {
			continue
		}
		if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
			c.specs = append(c.specs, spec{n, f[1], f[2]})
		}
	}
	for _, line := range a.sections["devices"] {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "nvidia.com/gpu="); ok {
			c.names = append(c.names, name)
		}
	}
	return c
}

// checkCDI checks whether the specifications fit the driver, the GPUs and the engine.
func checkCDI(h host, _ Options) Finding {
	// Since 1.18 the toolkit has units that keep the specification fresh.
	refreshOff := !older(h.toolkitVersion(), "1.18") && h.systemd &&
		(h.value("units", "nvidia-cdi-refresh.path") == "disabled" ||
			h.value("units", "nvidia-cdi-refresh.service") == "disabled")
	switch {
	case h.toolkitVersion() == "":
		return Finding{Verdict: Skip, Note: "the toolkit is not installed yet"}
	case len(h.cdi.specs) == 0:
		return Finding{Verdict: Fix, Cause: "there is no CDI specification of the GPUs"}
	case refreshOff:
		return Finding{Verdict: Fix, Cause: "the CDI specification is not rewritten after a driver update"}
	case h.stale():
		return Finding{Verdict: Fix, Cause: "the CDI specification is older than the driver"}
	case len(h.missingFromSpecs()) > 0:
		return Finding{Verdict: Fix, Cause: "the CDI specification does not name " +
			strings.Join(h.missingFromSpecs(), ", ")}
	}
	// The rest would not be changed by a refresh.
	specs, docker := h.cdi.specs, h.info.ServerVersion
	f := Finding{Verdict: OK, Note: fmt.Sprintf("CDI %s names %s", specs[0].version, count(len(h.devices), "device"))}
	if i := slices.IndexFunc(specs, h.notUnderstood); i >= 0 {
		f.Verdict, f.Cause = Warn,
			fmt.Sprintf("Docker %s does not understand the CDI %s of %s; its containers get GPUs through the runtime",
				docker, specs[i].version, specs[i].path)
		f.Cure = "nothing, or update Docker to 26.1 or newer"
	}
	if len(specs) > 1 {
		f.Verdict, f.Cause = Warn, fmt.Sprintf("%s and %s both describe the GPUs", specs[0].path, specs[1].path)
		f.Cure = "remove " + specs[0].path + ", which nothing keeps up to date"
	}
	return f
}

// notUnderstood reports a specification that is too new for the machine's Docker.
func (d *docker) notUnderstood(s spec) bool {
	return !older(s.version, "0.7.0") && older(d.info.ServerVersion, "26.1")
}

// stale reports specifications that were all written before the module of the driver was.
func (h *host) stale() bool {
	changed, err := strconv.ParseInt(h.value("module", "changed"), 10, 64)
	return err == nil && !slices.ContainsFunc(h.cdi.specs, func(s spec) bool { return s.written >= changed })
}

// missingFromSpecs lists what nvidia-smi lists and the specifications do not. Of a GPU that is
// partitioned by MIG, the MIG devices count. Old specifications name devices by index alone, so
// only their number can be compared.
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

// injection is how containers get their GPUs on this machine.
func (h *host) injection() string {
	inFile, known := h.runtimeRegistered()
	fresh := len(h.cdi.specs) > 0 && len(h.missingFromSpecs()) == 0 && !h.stale()
	// Docker has CDI on since 28.2, and since 25 if it is configured. Only then does it list the
	// folders of specifications.
	takesCDI := h.engine == engineDocker && len(h.info.CDISpecDirs) > 0
	understood := !slices.ContainsFunc(h.cdi.specs, h.notUnderstood)
	// Tasks ask for a device by its UUID; old specifications name devices by index alone.
	named := slices.ContainsFunc(h.devices, func(g smiDevice) bool { return slices.Contains(h.cdi.names, g.uuid) })
	switch {
	case !h.driverWorks() || h.toolkitVersion() == "":
		return "none"
	case takesCDI && fresh && understood && named:
		return "cdi"
	case h.engine == engineDocker && inFile && known:
		return "runtime"
	}
	return "none"
}
