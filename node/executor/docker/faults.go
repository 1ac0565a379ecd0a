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

// Fault is why the engine did not do what was asked of it.
type Fault struct {
	Class  grid.Class
	Reason string
}

func (f *Fault) Error() string { return f.Reason }

// faultRule is one kind of error of an engine.
type faultRule struct {
	class grid.Class
	words *regexp.Regexp
	hint  string // "" for none
}

// Words of the machine's own trouble, whatever the engine was asked for.
const (
	diskWords    = `[Nn]o space left on device|[Dd]isk quota exceeded`
	storageWords = `input/output error|stale (NFS )?file handle|read-only file system`
	diskRemedy   = "the disk of the container engine is full: see docker system df"
)

// faultRules tell by an engine's words who is responsible for its refusal. The first that matches decides; what none matches is the
// engine's own trouble. Engines give one HTTP status to many causes, so that the words are all there is to go by.
// They are compiled when the first image fails.
var faultRules = sync.OnceValue(func() []faultRule {
	return []faultRule{
		{grid.ClassDisk, regexp.MustCompile(diskWords), ""},
		{grid.ClassStorage, regexp.MustCompile(storageWords), ""},
		{grid.ClassRegistry, regexp.MustCompile(`toomanyrequests|[Tt]oo [Mm]any [Rr]equests|rate limit|dial tcp|no such host|x509|Client\.Timeout|unexpected EOF|TLS handshake|i/o timeout|` +
			`server gave HTTP|server misbehaving|unknown blob|received unexpected HTTP status: 5|connection reset|: EOF$|made no progress`), ""},
		{grid.ClassImage, regexp.MustCompile(`[Nn]o such image|pull access denied|invalid reference|no matching manifest|manifest unknown|name unknown|not found: manifest|manifest for .* not found|(repository|reference) .* not found$|: not found$|` +
			`don't match image configuration|unsupported (manifest|media type)|requested access|unauthorized|no basic auth|authentication required|repository name must be`), ""},
	}
})

// faultClass gives the failure class of an image that the engine could not get.
func faultClass(err error) grid.Class {
	if brokeOff(err) {
		return grid.ClassEngine
	}
	for _, r := range faultRules() {
		if r.words.MatchString(err.Error()) {
			return r.class
		}
	}
	return grid.ClassEngine
}

// launchRules tell by an engine's words what kept it from making or starting a container; what none matches is its own trouble.
var launchRules = sync.OnceValue(func() []faultRule {
	return []faultRule{
		{grid.ClassDisk, regexp.MustCompile(diskWords), diskRemedy},
		{grid.ClassStorage, regexp.MustCompile(storageWords), ""},
		{grid.ClassImage, regexp.MustCompile(`[Nn]o such image|image not known|invalid reference format`), ""},
		{grid.ClassImage, regexp.MustCompile(`exec: "` + shell + `": stat .*no such file`), noShell},
		{grid.ClassDriver, regexp.MustCompile(`unsatisfied condition: (cuda|driver|brand)|nvidia-container-cli: initialization error`),
			"the image needs a newer NVIDIA driver than this node has"},
		{grid.ClassEngine, regexp.MustCompile(`could not select device driver|unresolvable CDI devices|unknown or invalid runtime name`), gpuRemedy},
		{grid.ClassEngine, regexp.MustCompile(`container-init binary not found`), "install catatonit on this node, which Podman needs to pass signals on to programs"},
		{grid.ClassEngine, regexp.MustCompile(`docker-init|error setting rlimit|operation not permitted|cgroup`), ""},
		{grid.ClassStart, regexp.MustCompile(`executable file not found|no such file or directory.*unknown|exec format error|permission denied.*unknown|` +
			`unable to find (user|group)|no matching entries in passwd|network .* not found|No such network|[Mm]inimum memory limit|invalid (user|argument)|` +
			`must be positive|is not an absolute path|too long|Duplicate mount point|destination can't be`), ""},
	}
})

// launchFault is why a container could not be made or started.
func launchFault(what string, err error) error {
	var known *Fault
	if errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	reason := "the engine could not " + what + " the container: " + err.Error()
	for _, r := range launchRules() {
		if r.words.MatchString(err.Error()) {
			if r.hint != "" {
				reason += "; " + r.hint
			}
			return &Fault{Class: r.class, Reason: reason}
		}
	}
	return &Fault{Class: grid.ClassEngine, Reason: reason}
}

// brokeOff reports whether the connection to the engine was refused or broke off. What an engine says of its own connections to others is
// text alone.
func brokeOff(err error) bool {
	return client.IsErrConnectionFailed(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, new(*net.OpError))
}

// isAway reports whether a request failed because the engine was not there to answer it, as while it restarts.
func isAway(err error) bool {
	return err != nil && (brokeOff(err) || errors.Is(err, context.DeadlineExceeded) || strings.HasSuffix(err.Error(), "EOF") || errdefs.IsUnavailable(err))
}
