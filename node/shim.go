package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"mlfnode/node/config"
	"mlfnode/node/executor/shim"
	"mlfnode/node/service"
)

// ShimCommand is the name of the hidden command by which a node agent starts shims, so that its
// programs outlive it. Agents of earlier versions use FormerShimCommand.
const (
	ShimCommand       = shim.Command
	FormerShimCommand = shim.FormerCommand
)

// Shim runs that command and returns the exit status. signals brings the signals that the process
// receives.
func Shim(args []string, signals <-chan os.Signal, stderr io.Writer) int {
	return shim.Main(args, signals, stderr)
}

// ShimFolders returns the folders below a state folder that shims may be in: that of this version
// and that of earlier versions. Each shim is started with one of them as an argument.
func ShimFolders(state string) []string {
	return []string{filepath.Join(state, "shims"), filepath.Join(state, "keepers")}
}

func shimOptions(cfg *config.Config, token string) shim.Options {
	folders := ShimFolders(cfg.StateDir)
	return shim.Options{Dir: folders[0], FormerDir: folders[1], Token: token, Logger: cfg.Logger}
}

// openShim makes programs outlive this process, and takes over those of the last agent. stopping
// says, when the node ends, whether its programs are to end, too.
func (e *execution) openShim(
	ctx context.Context, cfg *config.Config, l *lifecycle, stopping func() bool, token string,
) error {
	if e.executor != nil {
		return nil
	}
	o, containers := shimOptions(cfg, token), dockerOptions(cfg, token)
	o.AgentTimeout, o.Containers = cfg.Cluster.Patience, &containers
	o.Wrap = func() []string {
		// Each scope has a new name, since systemd may not have collected the last one yet. Without
		// systemd a shim has a session of its own.
		wrap, _ := service.Scope(token + "-" + strings.ToLower(rand.Text()[:6]))
		return wrap
	}
	client, err := shim.Open(ctx, o)
	if err != nil {
		return fmt.Errorf("take over what the last agent left running: %w", err)
	}
	e.executor, e.adopter = client, client
	l.onClose(func() {
		if !stopping() {
			client.Leave()
			return
		}
		if err := client.Close(); err != nil {
			cfg.Logger.Warn("shims could not be stopped", "err", err)
		}
	})
	return nil
}
