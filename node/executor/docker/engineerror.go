package docker

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"mlfnode/grid"
)

// EngineError is why the engine did not serve a request.
type EngineError struct {
	Class  grid.Class
	Reason string
}

func (f *EngineError) Error() string { return f.Reason }

// errorRule assigns a class to the errors of an engine whose text matches.
type errorRule struct {
	class grid.Class
	words *regexp.Regexp
	hint  string // "" for none
}

// Errors of the machine itself, whatever the request.
const (
	diskWords    = `[Nn]o space left on device|[Dd]isk quota exceeded`
	storageWords = `input/output error|stale (NFS )?file handle|read-only file system`
	diskRemedy   = "the disk of the container engine is full: see docker system df"
)

// imageErrorRules classify an engine's refusal of an image by its text: engines use one HTTP status
// for many causes. The first match decides; an error that matches none is the engine's own. The
// rules are compiled when the first image fails.
var imageErrorRules = sync.OnceValue(func() []errorRule {
	return []errorRule{
		{grid.ClassDisk, regexp.MustCompile(diskWords), ""},
		{grid.ClassStorage, regexp.MustCompile(storageWords), ""},
		{grid.ClassRegistry,
			regexp.MustCompile(
				`toomanyrequests|[Tt]oo [Mm]any [Rr]equests|rate limit|dial tcp|no such host|x509|Client\.Timeout|unexpected EOF|TLS handshake|i/o timeout|` +
					`server gave HTTP|server misbehaving|unknown blob|received unexpected HTTP status: 5|connection reset|: EOF$|made no progress`),
			""},
		{grid.ClassImage,
			regexp.MustCompile(
				`[Nn]o such image|pull access denied|invalid reference|no matching manifest|manifest unknown|name unknown|not found: manifest|manifest for .* not found|(repository|reference) .* not found$|: not found$|` +
					`don't match image configuration|unsupported (manifest|media type)|requested access|unauthorized|no basic auth|authentication required|repository name must be`),
			""},
	}
})

// imageErrorClass returns the failure class of an image that the engine could not get.
func imageErrorClass(err error) grid.Class {
	if isConnectionError(err) {
		return grid.ClassEngine
	}
	for _, r := range imageErrorRules() {
		if r.words.MatchString(err.Error()) {
			return r.class
		}
	}
	return grid.ClassEngine
}

// launchErrorRules classify by its text why an engine could not create or start a container. An
// error that matches none is the engine's own.
var launchErrorRules = sync.OnceValue(func() []errorRule {
	return []errorRule{
		{grid.ClassDisk, regexp.MustCompile(diskWords), diskRemedy},
		{grid.ClassStorage, regexp.MustCompile(storageWords), ""},
		{grid.ClassImage, regexp.MustCompile(`[Nn]o such image|image not known|invalid reference format`), ""},
		{grid.ClassImage, regexp.MustCompile(`exec: "` + shell + `": stat .*no such file`), noShell},
		{grid.ClassDriver,
			regexp.MustCompile(`unsatisfied condition: (cuda|driver|brand)|nvidia-container-cli: initialization error`),
			"the image needs a newer NVIDIA driver than this node has"},
		{grid.ClassEngine,
			regexp.MustCompile(
				`could not select device driver|unresolvable CDI devices|unknown or invalid runtime name`), gpuRemedy},
		{grid.ClassEngine, regexp.MustCompile(`container-init binary not found`),
			"install catatonit on this node, which Podman needs to pass signals on to programs"},
		{grid.ClassEngine, regexp.MustCompile(`docker-init|error setting rlimit|operation not permitted|cgroup`), ""},
		{grid.ClassStart,
			regexp.MustCompile(
				`executable file not found|no such file or directory.*unknown|exec format error|permission denied.*unknown|` +
					`unable to find (user|group)|no matching entries in passwd|network .* not found|No such network|[Mm]inimum memory limit|invalid (user|argument)|` +
					`must be positive|is not an absolute path|too long|Duplicate mount point|destination can't be`),
			""},
	}
})

// launchError returns the EngineError for a container that could not be created or started. A
// cancellation stays as it is.
func launchError(what string, err error) error {
	var known *EngineError
	if errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	reason := "the engine could not " + what + " the container: " + err.Error()
	for _, r := range launchErrorRules() {
		if r.words.MatchString(err.Error()) {
			if r.hint != "" {
				reason += "; " + r.hint
			}
			return &EngineError{Class: r.class, Reason: reason}
		}
	}
	return &EngineError{Class: grid.ClassEngine, Reason: reason}
}

// isConnectionError reports whether the connection to the engine was refused or lost. The engine's
// own connection errors, such as those to a registry, arrive as text and do not count.
func isConnectionError(err error) bool {
	return client.IsErrConnectionFailed(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, new(*net.OpError))
}

// isUnavailable reports whether a request failed because the engine could not answer, as while it
// restarts.
func isUnavailable(err error) bool {
	return err != nil && (isConnectionError(err) || errors.Is(err, context.DeadlineExceeded) ||
		strings.HasSuffix(err.Error(), "EOF") || errdefs.IsUnavailable(err))
}
