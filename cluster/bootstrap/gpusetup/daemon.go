package gpusetup

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

// daemon is the configuration file of Docker's server, as far as it matters here.
type daemon struct {
	problem  string // why it is no JSON, with the line
	Runtimes map[string]struct {
		Path string `json:"path"`
	} `json:"runtimes"`
}

// parseDaemon reads daemon.json. A file that is missing or empty is a good one for Docker, too.
func parseDaemon(text string) daemon {
	var d daemon
	if strings.TrimSpace(text) == "" {
		return d
	}
	err := json.Unmarshal([]byte(text), &d)
	if err == nil {
		return d
	}
	d.problem = err.Error()
	if syntax, ok := err.(*json.SyntaxError); ok {
		at := min(int(syntax.Offset), len(text))
		d.problem = fmt.Sprintf("line %d: %v", 1+strings.Count(text[:at], "\n"), err)
	}
	return d
}

// runtimeRegistered reports a runtime "nvidia" that the file has, and that the server knows.
func (d *docker) runtimeRegistered() (inFile, known bool) {
	const program = "nvidia-container-runtime"
	return path.Base(d.daemon.Runtimes["nvidia"].Path) == program, path.Base(d.info.Runtimes["nvidia"].Path) == program
}

// checkConfiguration says whether Docker knows the toolkit.
func checkConfiguration(h host, o Options) Finding {
	if f, ok := h.notNeeded(); ok {
		return f
	}
	inFile, known := h.runtimeRegistered()
	switch {
	case h.daemon.problem != "":
		return Finding{Verdict: Stop, Cause: "/etc/docker/daemon.json is not valid (" + h.daemon.problem + "); Docker would not start with it again", Cure: "correct the file, or move it away"}
	case inFile && known:
		return Finding{Verdict: OK, Note: "Docker has the runtime nvidia"}
	case !h.systemd:
		return Finding{Verdict: Stop, Cause: "Docker does not know the NVIDIA runtime, and is not run by systemd, so that gpu-setup cannot restart it",
			Cure: "run nvidia-ctk runtime configure --runtime=docker as root, and restart Docker"}
	case h.restartBlocked(o):
		return Finding{Verdict: Stop, Cause: fmt.Sprintf("Docker must be restarted to know the NVIDIA runtime, which would end its %s", count(h.info.ContainersRunning, "running container")),
			Cure: "stop the containers, or turn live-restore on in Docker, or allow the restart; then run gpu-setup again"}
	case inFile:
		return Finding{Verdict: Fix, Cause: "daemon.json has the runtime nvidia, but Docker was not restarted since"}
	}
	return Finding{Verdict: Fix, Cause: "Docker does not know the NVIDIA runtime"}
}

// restartBlocked reports containers that a restart of Docker would end, without leave to do so.
func (d *docker) restartBlocked(o Options) bool {
	return d.info.ContainersRunning > 0 && !d.info.LiveRestoreEnabled && !o.RestartDocker
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
