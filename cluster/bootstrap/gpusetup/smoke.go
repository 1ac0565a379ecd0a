package gpusetup

import (
	"cmp"
	"strings"
)

// checkSmokeTest checks whether a trial is possible at all.
func checkSmokeTest(h host, o Options) Finding {
	switch {
	case o.Image == "-":
		return Finding{Verdict: Skip, Note: "no image to try"}
	case h.wsl:
		return Finding{Verdict: Skip,
			Note: "WSL2 gives every container all GPUs, so that one cannot be told from another"}
	case h.injection() == "none":
		return Finding{Verdict: Skip, Note: "containers cannot get GPUs yet"}
	}
	return Finding{Verdict: OK}
}

// smokeTest runs nvidia-smi in a container for each GPU. systemd forgets the devices of containers
// when it reloads (nvidia-container-toolkit#48), so that is tried too, but only while nobody else's
// containers run.
func smokeTest(h host, o Options) (string, map[string]string) {
	uuids := strings.Join(h.testableGPUs(), " ")
	vars := map[string]string{"IMAGE": o.Image, "UUIDS": uuids, "INJECTION": h.injection(), "RELOAD": "0"}
	if h.root != "no" && h.info.ContainersRunning == 0 && h.systemd {
		vars["RELOAD"] = "1"
	}
	return smokeProgram, vars
}

// testableGPUs are the GPUs that are not cut into MIG devices.
func (h *host) testableGPUs() []string {
	var all []string
	for i, g := range h.devices {
		if !g.mig && (i+1 == len(h.devices) || !h.devices[i+1].mig) {
			all = append(all, g.uuid)
		}
	}
	return all
}

// evaluateSmokeTest reads what the trial saw: "inside UUID WHAT" and "reloaded UUID WHAT" for what
// nvidia-smi showed in the container with a GPU, before and after systemd was reloaded; "start UUID
// COMPLAINT" for a container that did not start.
func evaluateSmokeTest(h host, text string) Finding {
	seen := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "image missing") {
			return Finding{Verdict: Skip, Note: "the image to try is not there and cannot be pulled"}
		}
		if f := strings.SplitN(line, " ", 3); len(f) == 3 {
			seen[f[0]+" "+f[1]] = strings.TrimSpace(seen[f[0]+" "+f[1]] + " " + f[2])
		}
	}
	gpus := h.testableGPUs()
	for _, uuid := range gpus {
		complaint, inside, reloaded := seen["start "+uuid], seen["inside "+uuid], seen["reloaded "+uuid]
		switch {
		case complaint != "":
			return stop("a container with "+uuid+" did not start: "+complaint, cureUnknown)
		case inside != uuid:
			return stop("a container for "+uuid+" saw "+cmp.Or(inside, "no GPU"), cureUnknown)
		case reloaded != "" && reloaded != uuid:
			return Finding{Verdict: Warn, Cause: "a container lost " + uuid + " when systemd was reloaded: " + reloaded,
				Cure: `update Docker to 28.2 or newer, or give it "exec-opts": ["native.cgroupdriver=cgroupfs"]`}
		}
	}
	return Finding{Verdict: OK, Note: "nvidia-smi in a container saw each of " + count(len(gpus), "GPU")}
}
