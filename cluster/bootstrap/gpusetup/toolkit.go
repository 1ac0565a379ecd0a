package gpusetup

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// minVersion is the oldest toolkit that is left alone: since 1.18 it keeps its CDI specification
// fresh by itself.
const minVersion = "1.18.0"

// toolkitPackages returns the toolkit's packages, which all have the same version.
func toolkitPackages() []string {
	return []string{"nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools",
		"libnvidia-container1"}
}

// backupDir is where leftovers are put.
const backupDir = "/var/backups/mlfnode-gpu-setup"

// aptSourceFile is the file of our own apt source.
const aptSourceFile = "/etc/apt/sources.list.d/nvidia-container-toolkit.list"

// leftovers are the packages and files of older installers that are in the way.
func (h *host) leftovers() (packages, files []string) {
	// The toolkit has replaced these. nvidia-container-runtime remains in use on Tegra, which is
	// left alone anyway.
	for _, p := range []string{"nvidia-docker2", "nvidia-docker", "nvidia-container-runtime"} {
		if _, ok := h.packages[p]; ok {
			packages = append(packages, p)
		}
	}
	for _, line := range h.sections["sources"] {
		// /etc/apt/sources.list itself is its owner's: a source there is reported, not removed
		path, _, _ := strings.Cut(line, ":")
		if path != aptSourceFile && plainPath(path) && !slices.Contains(files, path) &&
			strings.HasPrefix(path, "/etc/apt/sources.list.d/") {
			files = append(files, path)
		}
	}
	for _, line := range append(slices.Clone(h.sections["keys"]), h.sections["hooks"]...) {
		if plainPath(line) {
			files = append(files, line)
		}
	}
	return packages, files
}

// plainPath reports whether a path has no characters that are special to the shell.
func plainPath(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("/._+-", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// checkLeftovers looks for what older installers have left.
func checkLeftovers(h host, _ Options) Finding {
	packages, files := h.leftovers()
	if len(packages)+len(files) > 0 {
		return Finding{Verdict: Fix,
			Cause: "older installers have left " + strings.Join(append(packages, files...), ", ")}
	}
	for _, line := range h.sections["sources"] {
		if strings.HasPrefix(line, "/etc/apt/sources.list:") {
			return stop("/etc/apt/sources.list names NVIDIA's repository, and a second entry with another key would conflict with it",
				"take the lines with nvidia.github.io out of /etc/apt/sources.list")
		}
	}
	if strings.Contains(h.text("keys"), "apt-key ") {
		return Finding{Verdict: Warn, Cause: "apt-key still trusts a key of NVIDIA for every source",
			Cure: "remove it with apt-key del when no other source needs it"}
	}
	return Finding{Verdict: OK, Note: "nothing left of older installers"}
}

func fixLeftovers(h host, o Options) (string, map[string]string) {
	packages, files := h.leftovers()
	return leftoversProgram, map[string]string{
		"PACKAGES": strings.Join(packages, " "), "FILES": strings.Join(files, " "), "KEEP": backupDir,
		"WAIT": lockWaitSeconds(o),
	}
}

func lockWaitSeconds(o Options) string { return strconv.Itoa(int(o.LockWait.Seconds())) }

// checkToolkit checks whether the toolkit is installed, complete and new enough.
func checkToolkit(h host, o Options) Finding {
	var missing []string
	mixed, have := false, h.toolkitVersion()
	for _, p := range toolkitPackages() {
		if h.packages[p] == "" {
			missing = append(missing, p)
		}
		mixed = mixed || h.packages[p] != h.packages["nvidia-container-toolkit"]
	}
	cause := ""
	switch {
	case len(missing) == len(toolkitPackages()):
		cause = "the NVIDIA container toolkit is not installed"
	case len(missing) > 0:
		cause = "packages of the NVIDIA container toolkit are missing: " + strings.Join(missing, ", ")
	case o.Version != "" && have != o.Version:
		cause = "the NVIDIA container toolkit is " + have + ", not " + o.Version
	case older(have, minVersion):
		cause = "the NVIDIA container toolkit " + have + " is older than " + minVersion
	case mixed:
		cause = "the packages of the NVIDIA container toolkit differ in version"
	default:
		return Finding{Verdict: OK, Note: "NVIDIA container toolkit " + have}
	}
	if said := h.sections["network"]; len(said) > 0 && said[len(said)-1] != "exit 0" {
		return stop(fmt.Sprintf("%s, and %s cannot be reached from the machine (%s)", cause, o.Site,
			strings.Join(said, ", ")),
			"let the machine reach it, set https_proxy for its user, or name a mirror")
	}
	return Finding{Verdict: Fix, Cause: cause}
}

// toolkitVersion is the version of the installed toolkit without the number of its packaging, ""
// for none.
func (h *host) toolkitVersion() string {
	version, _, _ := strings.Cut(h.packages["nvidia-container-toolkit"], "-")
	return version
}

// fixToolkit installs all packages at one version. NVIDIA numbers its packaging with "-1".
func fixToolkit(_ host, o Options) (string, map[string]string) {
	version := cmp.Or(o.Version, DefaultVersion)
	if !strings.Contains(version, "-") {
		version += "-1"
	}
	return installProgram, map[string]string{
		"PACKAGES": strings.Join(toolkitPackages(), " "), "VERSION": version, "WAIT": lockWaitSeconds(o),
	}
}
