package gpusetup

import (
	"strconv"
	"strings"
	"time"
)

// host is what the probe found, read but not judged.
type host struct {
	complete bool
	lines    int
	sections map[string][]string // section to its lines

	uid, user, root, arch, kernel       string
	id, name, release                   string // of the system
	wsl, tegra, container, apt, systemd bool
	lock                                string // process that holds apt's lock
	clock                               time.Time
	skew                                time.Duration
	cards                               []card
	nouveau, moduleLoaded               bool
	moduleVersion                       string // version of the module that runs
	devices                             []smiDevice
	smiError                            string // complaint of nvidia-smi, "" when it works
	smiInstalled                        bool
	gpus                                []GPU
	engine                              engine
	info                                info
	daemon                              daemon
	packages                            map[string]string // installed, to version
	specs                               []spec
}

// card is an NVIDIA graphics card on the PCI bus.
type card struct{ slot, device, driver string }

// smiDevice is a GPU, or a part of one, as listed by nvidia-smi -L.
type smiDevice struct {
	uuid, model string
	mig         bool // a MIG device
}

// parse reads the probe's text. Anything may be missing or mutilated.
func parse(text string) host {
	h := host{sections: map[string][]string{}}
	name := ""
	for line := range strings.SplitSeq(text, "\n") {
		h.lines++
		switch {
		case line == "=end":
			h.complete = true
		case strings.HasPrefix(line, "="):
			name = line[1:]
		case strings.HasPrefix(line, " "):
			h.sections[name] = append(h.sections[name], strings.TrimRight(line[1:], "\r"))
		}
	}
	h.readSystem()
	h.readDriver()
	h.readDocker()
	h.readPackages()
	h.specs = readSpecs(h.sections["specs"])
	return h
}

// value gives the rest of the line of a section that begins with a word.
func (h *host) value(section, word string) string {
	for _, line := range h.sections[section] {
		if first, rest, _ := strings.Cut(line, " "); first == word {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func (h *host) text(section string) string { return strings.Join(h.sections[section], "\n") }

func (h *host) readSystem() {
	h.uid, h.user, h.root = h.value("access", "uid"), h.value("access", "user"), h.value("access", "root")
	if n, err := strconv.ParseInt(h.value("access", "clock"), 10, 64); err == nil {
		h.clock = time.Unix(n, 0)
	}
	h.arch, h.kernel, h.lock = h.value("platform", "arch"), h.value("platform", "kernel"), h.value("platform", "aptlock")
	has := func(word string) bool { return h.value("platform", word) == "yes" }
	h.wsl, h.tegra, h.container, h.apt, h.systemd = has("wsl"), has("tegra"), has("container"), has("apt"), has("systemd")
	os := map[string]string{}
	for _, line := range h.sections["os"] {
		if key, value, ok := strings.Cut(line, "="); ok {
			os[key] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	h.id, h.release, h.name = os["ID"], os["VERSION_ID"], os["PRETTY_NAME"]
}

func (h *host) readPackages() {
	h.packages = map[string]string{}
	for _, line := range h.sections["packages"] {
		// "ii |nvidia-container-toolkit|1.17.8-1": desired and actual state, then an error flag or
		// a space
		f := strings.Split(line, "|")
		if len(f) == 3 && len(f[0]) >= 2 && f[0][1] == 'i' {
			h.packages[f[1]] = f[2]
		}
	}
}

// hasNoGPU reports a machine without any GPU that its programs could use or come to use.
func (h *host) hasNoGPU() bool {
	return len(h.cards) == 0 && len(h.devices) == 0 && !h.tegra
}

// driverWorks reports a driver that serves programs.
func (h *host) driverWorks() bool { return h.smiError == "" && len(h.devices) > 0 }
