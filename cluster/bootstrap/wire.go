package bootstrap

import (
	"path"

	"mlfnode/cluster/bootstrap/shell"
)

// WireVersion is the version of what travels between `mlfnode up` and the `mlfnode provision` that it runs on a machine.
const WireVersion = 1

// ProvisionCommand is the hidden command of mlfnode that acts on a machine for `up`, `down` and the like on another one:
// `mlfnode provision ACTION` reads one Order, a line of JSON, from its standard input, and prints one Reply. Secrets travel in
// orders, never in arguments. Its actions are those below, and supervise, which is not part of this protocol.
const ProvisionCommand = "provision"

// FormerCommand is the name that ProvisionCommand had before.
const FormerCommand = "deputy"

// The actions of ProvisionCommand.
const (
	ActionLook    = "look"    // says what is there and changes nothing
	ActionStart   = "start"   // makes the machine what Order.Wanted says, changing only what differs
	ActionStop    = "stop"    // stops everything that start has started; Purge removes Place.Root, too
	ActionReach   = "reach"   // tries the addresses in Order.Reach; a Problem names the first that does not answer
	ActionReceive = "receive" // takes over the files of a project: a tar follows the order on standard input
)

// Place is where everything lies that `up` puts on a machine. Its root is an absolute path, the user's home with -r.
type Place struct{ Root string }

// Program is the mlfnode binary that the machine runs.
func (p Place) Program() string { return path.Join(p.Root, "bin", "mlfnode") }

// Config is the node's node.yaml.
func (p Place) Config() string { return path.Join(p.Root, "node.yaml") }

// State is the node's state folder.
func (p Place) State() string { return path.Join(p.Root, "state") }

// Log is what a node without systemd prints; a full one becomes Log + ".1".
func (p Place) Log() string { return path.Join(p.Root, "node.log") }

// Projects is the folder of pushed projects.
func (p Place) Projects() string { return path.Join(p.Root, "projects") }

// Order is what a machine is asked for.
type Order struct {
	Version int     `json:"version"`
	Root    string  `json:"root"` // Place.Root
	Wanted  *Wanted `json:"wanted,omitempty"`
	Purge   bool    `json:"purge,omitempty"`
	// Leave has a worker that is stopped leave its cluster for good: it takes a token to come back.
	Leave bool `json:"leave,omitempty"`
	// Aside has the state of a master that was moved put aside once everything is stopped.
	Aside bool `json:"aside,omitempty"`
	// Reach are addresses of other nodes' gossip, HOST:PORT.
	Reach []string `json:"reach,omitempty"`
	Push  *Push    `json:"push,omitempty"`
}

// Wanted is what a machine is to be.
type Wanted struct {
	Role   string   `json:"role"`            // master or worker
	Config string   `json:"config"`          // node.yaml but for the line `seed:`, which the machine adds for a worker
	Seeds  []string `json:"seeds,omitempty"` // HOST:PORT of the master's API; the first that answers becomes the seed
	NATS   int      `json:"nats,omitempty"`  // ports of the master that a worker must reach, too
	Gossip int      `json:"gossip,omitempty"`
	Token  string   `json:"token,omitempty"` // with which a worker joins; of no use to one that has joined
	// Restart has the node restarted although nothing differs.
	Restart bool `json:"restart,omitempty"`
	// Take has the machine leave another cluster, whose trials it ends, for this one.
	Take bool `json:"take,omitempty"`
}

// Push names the files of a project that are to be in Place.Projects()/Project. With no tar after it, the reply says which are
// missing or differ; files of an earlier push that are no longer named are removed.
type Push struct {
	Project string          `json:"project"`
	Files   map[string]File `json:"files"` // by slash-separated path
	Tar     bool            `json:"tar"`   // a tar with the files that were missing follows
}

// File is one file of a project.
type File struct {
	SHA256 string `json:"sha256"` // hex
	Exec   bool   `json:"exec,omitempty"`
	Link   string `json:"link,omitempty"` // target of a symbolic link; it has no digest
}

// Reply is what a machine answers, one line of JSON after anything else that was printed.
type Reply struct {
	Version int            `json:"version"`
	Problem *shell.Problem `json:"problem,omitempty"` // why it was not done
	Notes   []string       `json:"notes,omitempty"`   // what a person should know
	Seen    *Seen          `json:"seen,omitempty"`    // what is there now: after look, start and stop
	Done    []string       `json:"done,omitempty"`    // what was changed, in a few words each: "joined", "restarted", "pushed 3 files"
	Missing []string       `json:"missing,omitempty"` // files that receive lacks
	// Renamed is the name that the machine had in this cluster until now, if it has joined by another one.
	Renamed string `json:"renamed,omitempty"`
	// Taken: the machine may not join, because its name is held by another key.
	Taken bool `json:"taken,omitempty"`
}

// How a node is kept running.
const (
	ServiceSystem     = "system"     // a unit of the system
	ServiceUser       = "user"       // a unit of the user
	ServiceBackground = "background" // a supervised process in a session of its own
)

// Seen is what is there on a machine.
type Seen struct {
	Digest  string `json:"digest"`            // SHA-256 of Place.Program, hex
	Release string `json:"release"`           // its version
	Config  string `json:"config,omitempty"`  // text of node.yaml
	Joined  bool   `json:"joined"`            // it has credentials of a cluster
	Node    string `json:"node,omitempty"`    // the name in those
	Role    string `json:"role,omitempty"`    // the role in those
	Cluster string `json:"cluster,omitempty"` // digest of the authority that has issued those, hex
	Moved   bool   `json:"moved,omitempty"`   // they are a master's that was copied to another machine: it does not start
	Service string `json:"service,omitempty"` // how the node is kept running; "" for not at all
	// CanService is the best way there is on this machine.
	CanService string `json:"can_service"`
	Linger     bool   `json:"linger,omitempty"`  // of a user's service: it survives logout
	Active     bool   `json:"active"`            // the agent answers on its socket
	Working    bool   `json:"working"`           // and takes trials, or is a master that runs none
	Running    string `json:"running,omitempty"` // version of the agent that answers
	// Stale: the agent runs another program or other settings than lie there now.
	Stale bool `json:"stale,omitempty"`
	PID   int  `json:"pid,omitempty"` // of the agent or its supervisor
	// Left are processes, units and ports that should not be there after stop.
	Left []string `json:"left,omitempty"`
	// Problems are findings of the doctor that keep the node from working.
	Problems []shell.Problem `json:"problems,omitempty"`
}
