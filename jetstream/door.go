package jetstream

import (
	"crypto/subtle"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"mlfnode/grid"
)

const (
	// livePing is how often a connection to another node is tried, so that one that is half open ends within some seconds.
	livePing    = 2 * time.Second
	livePingOut = 3
	// clientBytes bounds what waits for one slow client: a reader asks for at most pullBytes at a time.
	clientBytes = 16 << 20
)

// Users of connections: those of this process, and what is before the name of a node.
const (
	ownUser  = "mlfnode"
	nodeUser = "node:"
)

// door lets clients in by secrets that never leave this process: its own, with all rights, and those that the gate opens for nodes,
// which may use the subjects that they need and no others.
type door struct{ own, gate string }

var _ server.Authentication = (*door)(nil)

// Check implements server.Authentication.
func (d *door) Check(c server.ClientAuthentication) bool {
	opts := c.GetOpts()
	node, ok := strings.CutPrefix(opts.Username, nodeUser)
	u := &server.User{Username: opts.Username}
	secret := d.own
	if ok {
		u.Permissions, secret = permissions(grid.NodeID(node)), d.gate
	}
	if subtle.ConstantTimeCompare([]byte(opts.Password), []byte(secret)) != 1 {
		return false
	}
	c.RegisterUser(u)
	return true
}

// permissions are what a node may do. It reads records and bundles, takes leases, and writes events, output, artifacts and
// calls under its own name. It can't make, change or empty streams, see what others write, or listen to their answers.
//
// The server does not check where a client wants its answers, which the filter does.
func permissions(node grid.NodeID) *server.Permissions {
	own := token(string(node))
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			"$JS.API.STREAM.INFO.*",
			"$JS.API.DIRECT.GET." + recordStream + ".>", "$JS.API.DIRECT.GET." + bundleBucket + ".>",
			"$JS.API.CONSUMER.CREATE." + recordStream + ".>", "$JS.API.CONSUMER.CREATE." + bundleBucket + ".>",
			"$JS.API.CONSUMER.MSG.NEXT." + recordStream + ".*", "$JS.API.CONSUMER.MSG.NEXT." + bundleBucket + ".*",
			"$JS.API.CONSUMER.MSG.NEXT." + leaseStream + ".*", "$JS.ACK." + leaseStream + ".>",
			"mlf.event." + own + ".*", "mlf.log." + own + ".*", "mlf.metric." + own + ".*", "mlf.call." + own + ".*", wakeSubjects,
			metaOf(artifactBucket, own) + ">", dataOf(artifactBucket, own) + ">",
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{inbox(node) + ".>", wakeSubjects}},
	}
}

// inbox is where answers to a node go.
func inbox(node grid.NodeID) string { return "_INBOX." + token(string(node)) }
