package node

import (
	"context"

	"mlfnode/cluster/trust"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/membership"
)

// Join makes this machine a node of the cluster whose master is at seed, HOST or HOST:PORT. It
// returns the context of the person who joined; that has no token if the token of the node grants
// none. It returns ErrInUse when another process has the state folder.
func Join(ctx context.Context, cfg config.Config, seed string, token trust.Token) (trust.Context, error) {
	address, err := api.WithPort(seed, cfg.Cluster.Ports.API)
	if err != nil {
		return trust.Context{}, err
	}
	lock, err := lockState(cfg.StateDir)
	if err != nil {
		return trust.Context{}, err
	}
	defer lock.Close()
	return membership.Join(ctx,
		membership.Request{StateDir: cfg.StateDir, Node: cfg.Node, Master: address, Token: token})
}
