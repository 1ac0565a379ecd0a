package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/monitor"
)

// joinLimit bounds one try to join.
const joinLimit = 15 * time.Second

// Joined reports whether the state folder has a node's credentials, and its name.
func Joined(cfg config.Config) (grid.NodeID, bool, error) {
	id, err := trust.LoadIdentity(trustDir(cfg.StateDir))
	if errors.Is(err, trust.ErrNoIdentity) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	return id.Node, true, nil
}

// Credentials tells whether the state folder is a master's, and what the certificates of its cluster chain to; nil where this
// machine is in none.
func Credentials(cfg config.Config) (master bool, roots *x509.CertPool, err error) {
	id, err := trust.LoadIdentity(trustDir(cfg.StateDir))
	if errors.Is(err, trust.ErrNoIdentity) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	return id.Role == trust.Master, id.CAs.Pool(), nil
}

// Join makes this machine a node of the cluster whose master is at seed, HOST or HOST:PORT. It stores the node's credentials in
// the state folder, and gives the contact for the person who joined; that has no token if the node's token gives none.
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
	ctx, stop := context.WithTimeoutCause(ctx, joinLimit, fmt.Errorf("the master at %s did not answer in time", address))
	defer stop()
	j, err := trust.NewJoin(trustDir(cfg.StateDir), token, cfg.Node)
	if err != nil {
		return trust.Context{}, err
	}
	client := api.NewRemote([]string{address}, j.TLS(), "")
	defer client.Close()
	reply, err := api.Post[monitor.JoinReply](ctx, client, api.PathJoin, j.Request())
	if err != nil {
		return trust.Context{}, explainReach(address, err)
	}
	id, err := j.Accept(reply.JoinAnswer)
	if err != nil {
		return trust.Context{}, fmt.Errorf("take over the credentials: %w", err)
	}
	host, _, _ := net.SplitHostPort(address)
	k := known{API: []string{address}, NATS: []string{joinAddress(host, reply.NATSPort)}, Gossip: reply.Members}
	if at := reachedAt(ctx, host, reply.GossipPort); at != "" {
		k.Reached = []string{at}
	}
	if len(k.Gossip) == 0 {
		k.Gossip = []string{joinAddress(host, reply.GossipPort)}
	}
	if err := k.save(cfg.StateDir); err != nil {
		return trust.Context{}, err
	}
	_ = os.Remove(filepath.Join(trustDir(cfg.StateDir), refusedFile)) // if it stays, a token is asked once more
	c := trust.Context{Master: []string{address}, Token: reply.Access, Role: reply.Role, Node: id.Node}
	c.SetAuthorities(id.CAs)
	return c, nil
}

func joinAddress(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// explainReach says why the master could not be asked.
func explainReach(address string, err error) error {
	var refusal *api.Error
	var dns *net.DNSError
	switch {
	case errors.As(err, &refusal):
		return err
	case errors.Is(err, trust.ErrRotated):
		return &api.Error{Msg: fmt.Sprintf("the CA of the cluster at %s was rotated since the token was made", address),
			Hint: "make a new token on the master's machine with mlfnode token, as mlfnode token --help says"}
	case errors.Is(err, trust.ErrWrongCA):
		return &api.Error{Msg: fmt.Sprintf("the server at %s belongs to another cluster than the token", address),
			Hint: "check the address; nothing secret was sent. If the cluster's CA was rotated, make a new token on the master's machine with: mlfnode token"}
	case errors.As(err, &dns) && !dns.IsNotFound:
		return &api.Error{Msg: fmt.Sprintf("the address of %q could not be looked up: %s", dns.Name, dns.Err), Hint: "try again, use its IP address, or add it to /etc/hosts"}
	case errors.As(err, &dns):
		return &api.Error{Msg: fmt.Sprintf("there is no host %q", dns.Name), Hint: "use its IP address, or add it to /etc/hosts"}
	case os.IsTimeout(err):
		return &api.Error{Msg: fmt.Sprintf("the master at %s does not answer", address), Hint: "is the port open in its firewall? mlfnode doctor --seed " + address + " looks closer"}
	}
	return &api.Error{Msg: fmt.Sprintf("the master at %s can't be reached: %v", address, root(err)), Hint: "is `mlfnode master` running there? mlfnode doctor --seed " + address + " looks closer"}
}

// root is the innermost error: the system's own words.
func root(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
