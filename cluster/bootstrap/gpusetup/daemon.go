package gpusetup

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

// daemon is the configuration file of Docker's server, as far as it matters here.
type daemon struct {
	problem  string // why it is not JSON, with the line
	Runtimes map[string]struct {
		Path string `json:"path"`
	} `json:"runtimes"`
}

// parseDaemon reads daemon.json. To Docker, too, a missing or empty file is valid.
func parseDaemon(text string) daemon {
	var d daemon
	if strings.TrimSpace(text) == "" {
		return d
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		d.problem = err.Error()
		if syntax, ok := err.(*json.SyntaxError); ok {
			at := min(int(syntax.Offset), len(text))
			d.problem = fmt.Sprintf("line %d: %v", 1+strings.Count(text[:at], "\n"), err)
		}
	}
	return d
}

// runtimeRegistered reports a runtime "nvidia" that the file has, and that the server knows.
func (d *docker) runtimeRegistered() (inFile, known bool) {
	const program = "nvidia-container-runtime"
	return path.Base(d.daemon.Runtimes["nvidia"].Path) == program, path.Base(d.info.Runtimes["nvidia"].Path) == program
}

// checkConfiguration checks whether Docker knows the toolkit.
func checkConfiguration(h host, o Options) Finding {
	inFile, known := h.runtimeRegistered()
	switch {
	case h.daemon.problem != "":
		return stop("/etc/docker/daemon.json is not valid ("+h.daemon.problem+"); Docker would not start with it again",
			"correct the file, or move it away")
	case inFile && known:
		return Finding{Verdict: OK, Note: "Docker has the runtime nvidia"}
	case !h.systemd:
		return stop(
			"Docker does not know the NVIDIA runtime, and is not run by systemd, so that gpu-setup cannot restart it",
			"run nvidia-ctk runtime configure --runtime=docker as root, and restart Docker")
	case h.info.ContainersRunning > 0 && !h.info.LiveRestoreEnabled && !o.RestartDocker:
		return stop("Docker must be restarted to know the NVIDIA runtime, which would end its "+
			count(h.info.ContainersRunning, "running container"),
			"stop the containers, or turn live-restore on in Docker, or allow the restart; then run gpu-setup again")
	case inFile:
		return Finding{Verdict: Fix, Cause: "daemon.json has the runtime nvidia, but Docker was not restarted since"}
	}
	return Finding{Verdict: Fix, Cause: "Docker does not know the NVIDIA runtime"}
}

// fixConfiguration restarts Docker; the program looks once more for containers, which may have
// begun in the meantime.
func fixConfiguration(h host, o Options) (string, map[string]string) {
	vars := map[string]string{"HOW": "restart", "FORCE": "0"}
	if o.RestartDocker || h.info.LiveRestoreEnabled {
		vars["FORCE"] = "1"
	}
	return configureProgram, vars
}
