package gpusetup

import (
	"strconv"
	"strings"
	"time"
)

// host is what the probe found, parsed but not evaluated.
type host struct {
	answer
	access
	platform
	driver
	docker
	packages map[string]string // installed, to version
	cdi      cdi
}

// answer is the text that the probe printed.
type answer struct {
	complete bool
	lines    int
	sections map[string][]string // section to its lines
}

// access is who is logged in to the machine, and what the machine's clock says.
type access struct {
	uid, user, root string
	clock           time.Time
	skew            time.Duration
}

// platform is the operating system and what it runs on.
type platform struct {
	arch, kernel                        string
	id, name, release                   string // of the system
	wsl, tegra, container, apt, systemd bool
	lock                                string // process that holds apt's lock
}

// driver is the machine's NVIDIA GPUs and their driver.
type driver struct {
	cards                 []card
	nouveau, moduleLoaded bool
	moduleVersion         string // version of the module that runs
	smiVersion            string // the driver's version, as nvidia-smi reports it
	devices               []smiDevice
	smiError              string // complaint of nvidia-smi, "" when it works
	smiInstalled          bool
	gpus                  []GPU
	cuda                  string // the newest CUDA that the driver serves
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
	a := answer{sections: map[string][]string{}}
	name := ""
	for line := range strings.SplitSeq(text, "\n") {
		a.lines++
		switch {
		case line == "=end":
			a.complete = true
		case strings.HasPrefix(line, "="):
			name = line[1:]
		case strings.HasPrefix(line, " "):
			a.sections[name] = append(a.sections[name], strings.TrimRight(line[1:], "\r"))
		}
	}
	h := host{answer: a, platform: readPlatform(&a), driver: readDriver(&a), docker: readDocker(&a), cdi: readCDI(&a)}
	h.uid, h.user, h.root = a.value("access", "uid"), a.value("access", "user"), a.value("access", "root")
	if n, err := strconv.ParseInt(a.value("access", "clock"), 10, 64); err == nil {
		h.clock = time.Unix(n, 0)
	}
	h.packages = map[string]string{}
	for _, line := range a.sections["packages"] {
		// "ii |nvidia-container-toolkit|1.17.8-1": desired and actual state, then an error flag or
		// a space
		f := strings.Split(line, "|")
		if len(f) == 3 && len(f[0]) >= 2 && f[0][1] == 'i' {
			h.packages[f[1]] = f[2]
		}
	}
	return h
}

// value returns the rest of the line of a section that begins with a word.
func (a *answer) value(section, word string) string {
	for _, line := range a.sections[section] {
		if first, rest, _ := strings.Cut(line, " "); first == word {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func (a *answer) text(section string) string { return strings.Join(a.sections[section], "\n") }

func readPlatform(a *answer) platform {
	has := func(word string) bool { return a.value("platform", word) == "yes" }
	os := map[string]string{}
	for _, line := range a.sections["os"] {
		if key, value, ok := strings.Cut(line, "="); ok {
			os[key] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return platform{
		arch: a.value("platform", "arch"), kernel: a.value("platform", "kernel"), lock: a.value("platform", "aptlock"),
		id: os["ID"], release: os["VERSION_ID"], name: os["PRETTY_NAME"],
		wsl: has("wsl"), tegra: has("tegra"), container: has("container"), apt: has("apt"), systemd: has("systemd"),
	}
}

// hasNoGPU reports a machine without any GPU that its programs could use or come to use.
func (h *host) hasNoGPU() bool {
	return len(h.cards) == 0 && len(h.devices) == 0 && !h.tegra
}

// driverWorks reports a driver that serves programs.
func (d *driver) driverWorks() bool { return d.smiError == "" && len(d.devices) > 0 }
