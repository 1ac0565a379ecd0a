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
	Socket   string        `json:"socket,omitempty"`   // unix:///…; empty or auto is the first that answers
	Patience time.Duration `json:"patience,omitempty"` // how long an engine may be away before what ran in it is given up; 0 is DefaultPatience
	Network  string        `json:"network,omitempty"`  // of containers that name none; empty is host
}

// DefaultPatience is how long an engine may be away: longer than the restart of one that runs many containers.
const DefaultPatience = time.Minute

// pingTime bounds the first answer of an engine, callTime that to any quick request: an engine may hang as a whole.
const (
	pingTime = 5 * time.Second
	callTime = 2 * time.Minute
)

// Engine is a connection to a container engine and what that engine says of itself. Its client reconnects with each request.
type Engine struct {
	client *client.Client
	host   string
	facts  atomic.Pointer[facts]
}

// facts are what an engine said of itself last.
type facts struct {
	info   system.Info
	podman string // its version; empty for Docker
}

func (e *Engine) info() *system.Info { return &e.facts.Load().info }

func (e *Engine) podman() string { return e.facts.Load().podman }

// Connect finds the engine and asks what it is. The error is a *Fault.
func Connect(ctx context.Context, s Settings) (*Engine, error) {
	var refusals []string
	for _, host := range s.hosts() {
		e, err := connect(ctx, host)
		if err == nil {
			return e, nil
		}
		refusals = append(refusals, refusal(host, err))
	}
	return nil, &Fault{Class: grid.ClassEngine, Reason: "no container engine answers: " + strings.Join(refusals, "; ")}
}

// hosts lists where an engine may listen.
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
		all = append(all, "unix://"+filepath.Join(run, "docker.sock"), "unix://"+filepath.Join(run, "podman", "podman.sock"))
	}
	return append(all, "unix:///run/podman/podman.sock")
}

// refusal says why there is no engine at a place.
func refusal(host string, err error) string {
	switch {
	case errors.Is(err, os.ErrPermission), strings.Contains(err.Error(), "permission denied"):
		return host + ": permission denied (is the user in the group docker?)"
	case errors.Is(err, os.ErrNotExist), client.IsErrConnectionFailed(err):
		return host + ": nothing listens there"
	}
	return host + ": " + err.Error()
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
	answer, stop := context.WithTimeout(ctx, pingTime)
	defer stop()
	if _, err := c.Ping(answer); err != nil {
		return nil, err
	}
	bounded, stop := call(ctx) // Podman runs programs to find out
	defer stop()
	return e, e.learn(bounded)
}

// learn asks the engine what it is.
func (e *Engine) learn(ctx context.Context) error {
	info, err := e.client.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask the engine what it is: %w", err)
	}
	version, err := e.client.ServerVersion(ctx)
	if err != nil {
		return fmt.Errorf("ask the engine for its version: %w", err)
	}
	f := &facts{info: info}
	for _, c := range version.Components {
		if c.Name == "Podman Engine" {
			f.podman = c.Version
		}
	}
	e.facts.Store(f)
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
	return fmt.Sprintf("Docker %s at %s (cgroup v%s, %s%s)", e.info().ServerVersion, e.host, cmp.Or(e.info().CgroupVersion, "1"), e.info().CgroupDriver, rights)
}

// Limits reports whether the memory of containers is bounded: without root rights on cgroup v1 an engine drops limits and says
// nothing.
func (e *Engine) Limits() bool { return e.info().MemoryLimit }

// shmSize is the default size of /dev/shm: half of the machine's memory, like that of the machine itself.
func (e *Engine) shmSize() int64 { return e.info().MemTotal / 2 }

// call bounds a quick request.
func call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTime)
}
