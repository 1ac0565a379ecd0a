package membership

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// JoinTimeout bounds one attempt to join.
const JoinTimeout = 15 * time.Second

// Joined reports whether the state folder has the credentials of a node, and its name.
func Joined(stateDir string) (grid.NodeID, bool, error) {
	id, err := trust.LoadIdentity(TrustDir(stateDir))
	if errors.Is(err, trust.ErrNoIdentity) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	return id.Node, true, nil
}

// Credentials reports whether the state folder is that of a master, and returns the roots of the
// certificates of its cluster, nil for a machine that belongs to none.
func Credentials(stateDir string) (master bool, roots *x509.CertPool, err error) {
	id, err := trust.LoadIdentity(TrustDir(stateDir))
	if errors.Is(err, trust.ErrNoIdentity) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	return id.Role == grid.Master, id.CAs.Pool(), nil
}

// JoinReply is the answer of a master to a machine that joins: its credentials, and where it finds
// the other nodes.
type JoinReply struct {
	trust.JoinAnswer
	NATSPort   int      `json:"nats_port"`
	GossipPort int      `json:"gossip_port"`
	Members    []string `json:"members"` // gossip addresses of nodes that are there
}

// Request is how a machine asks to join a cluster.
type Request struct {
	StateDir string
	Node     grid.NodeID
	Master   string // HOST:PORT of its API
	Token    trust.Token
}

// Join makes this machine a node of a cluster. It stores the credentials of the node in the state
// folder, which the caller has locked, and returns the context of the person who joined; that has
// no token if the token of the node grants none.
func Join(ctx context.Context, ask Request) (trust.Context, error) {
	address := ask.Master
	ctx, stop := context.WithTimeoutCause(ctx, JoinTimeout,
		fmt.Errorf("the master at %s did not answer in time", address))
	defer stop()
	j, err := trust.NewJoin(TrustDir(ask.StateDir), ask.Token, ask.Node)
	if err != nil {
		return trust.Context{}, err
	}
	client := api.NewRemote([]string{address}, j.TLS(), "")
	defer client.Close()
	reply, err := api.Post[JoinReply](ctx, client, api.PathJoin, j.Request())
	if err != nil {
		return trust.Context{}, ExplainReach(address, err)
	}
	id, err := j.Accept(reply.JoinAnswer)
	if err != nil {
		return trust.Context{}, fmt.Errorf("take over the credentials: %w", err)
	}
	host, _, _ := net.SplitHostPort(address)
	p := Peers{API: []string{address}, NATS: []string{hostPort(host, reply.NATSPort)}, Gossip: reply.Members}
	if at := reachedAt(ctx, host, reply.GossipPort); at != "" {
		p.Reached = []string{at}
	}
	if len(p.Gossip) == 0 {
		p.Gossip = []string{hostPort(host, reply.GossipPort)}
	}
	if err := p.save(ask.StateDir); err != nil {
		return trust.Context{}, err
	}
	_ = os.Remove(filepath.Join(TrustDir(ask.StateDir), refusedFile)) // if it stays, a token is asked for once more
	c := trust.Context{Master: []string{address}, Token: reply.Access, Role: reply.Role, Node: id.Node}
	c.SetAuthorities(id.CAs)
	return c, nil
}

// ExplainReach turns an error of a request to a master into one that says why the master cannot be
// reached, and what to try.
func ExplainReach(address string, err error) error {
	var refusal *api.Error
	var dns *net.DNSError
	switch {
	case errors.As(err, &refusal):
		return err
	case errors.Is(err, trust.ErrRotated):
		return &api.Error{Msg: fmt.Sprintf("the CA of the cluster at %s was rotated since the token was made", address),
			Hint: "make a new token on the master's machine with mlfnode token, as mlfnode token --help says"}
	case errors.Is(err, trust.ErrWrongCA):
		return &api.Error{Msg: fmt.Sprintf("the server at %s belongs to a different cluster than the token", address),
			Hint: "check the address; nothing secret was sent. If the cluster's CA was rotated, " +
				"make a new token on the master's machine with: mlfnode token"}
	case errors.As(err, &dns) && !dns.IsNotFound:
		return &api.Error{Msg: fmt.Sprintf("the address of %q could not be looked up: %s", dns.Name, dns.Err),
			Hint: "try again, use its IP address, or add it to /etc/hosts"}
	case errors.As(err, &dns):
		return &api.Error{Msg: fmt.Sprintf("there is no host %q", dns.Name),
			Hint: "use its IP address, or add it to /etc/hosts"}
	case os.IsTimeout(err):
		return &api.Error{Msg: fmt.Sprintf("the master at %s does not answer", address),
			Hint: "is the port open in its firewall? mlfnode doctor --seed " + address + " looks closer"}
	}
	for next := err; next != nil; next = errors.Unwrap(err) {
		err = next // the innermost error is in the words of the system
	}
	return &api.Error{Msg: fmt.Sprintf("the master at %s can't be reached: %v", address, err),
		Hint: "is `mlfnode master` running there? mlfnode doctor --seed " + address + " looks closer"}
}
