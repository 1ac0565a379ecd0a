package jetstream

import (
	"crypto/subtle"
	"crypto/tls"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"mlfnode/grid"
)

// Listen says how the other nodes of a cluster reach a Server.
type Listen struct {
	Host string // address to listen on; empty is every address
	Port int    // 0 takes a free one; see Server.Addr
	TLS  *tls.Config
	// Peer says which node a client is by its certificate. An error refuses the client.
	Peer func(tls.ConnectionState) (grid.NodeID, error)
}

const (
	// doorTime is how long a client may take to show its certificate: enough for a slow line, too short to pile up.
	doorTime = 3 * time.Second
	// livePing is how often a connection to another node is tried, so that one that is half open ends within some seconds.
	livePing    = 2 * time.Second
	livePingOut = 3
	// clientBytes bounds what waits for one slow client: a reader asks for at most pullBytes at a time.
	clientBytes = 16 << 20
	// maxClients bounds connections; a node has one.
	maxClients = 4096
)

// Users of connections inside this process.
const (
	ownUser    = "mlfnode"
	systemUser = "system"
)

// door lets clients in: those of this process by a secret that never leaves it, nodes by their certificate. A node may use the
// subjects that it needs and no others.
type door struct {
	secret string
	peer   func(tls.ConnectionState) (grid.NodeID, error)
	system func() *server.Account
}

var _ server.Authentication = (*door)(nil)

// Check implements server.Authentication.
func (d *door) Check(c server.ClientAuthentication) bool {
	state := c.GetTLSConnectionState()
	if state == nil {
		return d.inside(c)
	}
	node, err := d.peer(*state)
	if err != nil {
		return false
	}
	c.RegisterUser(&server.User{Username: string(node), Permissions: permissions(node)})
	return true
}

// inside lets this process in, with all rights.
func (d *door) inside(c server.ClientAuthentication) bool {
	opts := c.GetOpts()
	if subtle.ConstantTimeCompare([]byte(opts.Password), []byte(d.secret)) != 1 {
		return false
	}
	u := &server.User{Username: opts.Username}
	if opts.Username == systemUser {
		u.Account = d.system()
	}
	c.RegisterUser(u)
	return true
}

// permissions are what a node may do. It reads records and bundles, takes leases, and writes events, output, artifacts and
// calls under its own name. It can't make, change or empty streams, see what others write, or listen to their answers.
func permissions(node grid.NodeID) *server.Permissions {
	own := token(string(node))
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			"$JS.API.STREAM.INFO.*",
			"$JS.API.DIRECT.GET." + recordStream + ".>", "$JS.API.DIRECT.GET." + bundleBucket + ".>",
			"$JS.API.DIRECT.GET." + artifactBucket + "." + metaOf(artifactBucket, own) + ">",
			"$JS.API.CONSUMER.CREATE." + recordStream + ".>", "$JS.API.CONSUMER.CREATE." + bundleBucket + ".>",
			"$JS.API.CONSUMER.MSG.NEXT." + recordStream + ".*", "$JS.API.CONSUMER.MSG.NEXT." + bundleBucket + ".*",
			"$JS.API.CONSUMER.MSG.NEXT." + leaseStream + ".*", "$JS.ACK." + leaseStream + ".>",
			"mlf.event." + own + ".*", "mlf.log." + own + ".*", "mlf.call." + own + ".*", wakeSubjects,
			metaOf(artifactBucket, own) + ">", dataOf(artifactBucket, own) + ">",
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{inbox(node) + ".>", wakeSubjects}},
	}
}

// inbox is where answers to a node go.
func inbox(node grid.NodeID) string { return "_INBOX." + token(string(node)) }
