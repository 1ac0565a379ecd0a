package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"

	"mlfnode/grid"
)

// Settings say which engine a node uses, and how.
type Settings struct {
	Socket string `json:"socket,omitempty"` // unix:///…; empty or auto selects the first that answers
	// how long an engine may be unavailable before its containers are given up; 0 is
	// DefaultOutageTimeout
	OutageTimeout time.Duration `json:"patience,omitempty"`
	Network       string        `json:"network,omitempty"` // of containers that name none; empty means host
}

// DefaultOutageTimeout is longer than the restart of an engine that runs many containers.
const DefaultOutageTimeout = time.Minute

// An engine may hang as a whole: pingTimeout bounds its first answer, callTimeout each quick
// request.
const (
	pingTimeout = 5 * time.Second
	callTimeout = 2 * time.Minute
)

// Engine is a connection to a container engine. Its client reconnects with each request.
type Engine struct {
	client *client.Client
	host   string
	about  atomic.Pointer[engineInfo]
}

// engineInfo is an engine's latest description of itself.
type engineInfo struct {
	info   system.Info
	podman string // its version; empty for Docker
}

func (e *Engine) info() *system.Info { return &e.about.Load().info }

func (e *Engine) podman() string { return e.about.Load().podman }

// Connect finds the engine. The error is an *EngineError.
func Connect(ctx context.Context, s Settings) (*Engine, error) {
	var refusals []string
	for _, host := range s.hosts() {
		e, err := connect(ctx, host)
		if err == nil {
			return e, nil
		}
		why := err.Error()
		switch {
		case errors.Is(err, os.ErrPermission), strings.Contains(why, "permission denied"):
			why = "permission denied (is the user in the group docker?)"
		case errors.Is(err, os.ErrNotExist), client.IsErrConnectionFailed(err):
			why = "nothing listens there"
		}
		refusals = append(refusals, host+": "+why)
	}
	return nil, &EngineError{Class: grid.ClassEngine, Reason: "no container engine answers: " +
		strings.Join(refusals, "; ")}
}

// hosts lists the addresses where an engine may listen.
func (s Settings) hosts() []string {
	if s.Socket != "" && s.Socket != "auto" {
		return []string{s.Socket}
	}
	var all []string
	if host := os.Getenv(client.EnvOverrideHost); host != "" {
		all = append(all, host)
	}
	all = append(all, client.DefaultDockerHost)
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		all = append(all, "unix://"+filepath.Join(run, "docker.sock"),
			"unix://"+filepath.Join(run, "podman", "podman.sock"))
	}
	return append(all, "unix:///run/podman/podman.sock")
}

func connect(ctx context.Context, host string) (_ *Engine, err error) {
	c, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	e := &Engine{client: c, host: host}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	answer, stop := context.WithTimeout(ctx, pingTimeout)
	defer stop()
	if _, err := c.Ping(answer); err != nil {
		return nil, err
	}
	bounded, stop := withCallTimeout(ctx) // not by pingTimeout: Podman runs programs to answer
	defer stop()
	return e, e.refresh(bounded)
}

// refresh asks the engine to describe itself.
func (e *Engine) refresh(ctx context.Context) error {
	info, err := e.client.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask the engine what it is: %w", err)
	}
	version, err := e.client.ServerVersion(ctx)
	if err != nil {
		return fmt.Errorf("ask the engine for its version: %w", err)
	}
	f := &engineInfo{info: info}
	for _, c := range version.Components {
		if c.Name == "Podman Engine" {
			f.podman = c.Version
		}
	}
	e.about.Store(f)
	return nil
}

// Close ends the connection.
func (e *Engine) Close() error { return e.client.Close() }

// String names the engine, for logs and for `doctor`.
func (e *Engine) String() string {
	if v := e.podman(); v != "" {
		return fmt.Sprintf("Podman %s at %s", v, e.host)
	}
	rights := ""
	if isRootless(e.info()) {
		rights = ", rootless"
	}
	return fmt.Sprintf("Docker %s at %s (cgroup v%s, %s%s)",
		e.info().ServerVersion, e.host, cmp.Or(e.info().CgroupVersion, "1"), e.info().CgroupDriver, rights)
}

// Limits reports whether the engine enforces memory limits: a rootless engine on cgroup v1 silently
// drops them.
func (e *Engine) Limits() bool { return e.info().MemoryLimit }

// withCallTimeout bounds a quick request.
func withCallTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}
