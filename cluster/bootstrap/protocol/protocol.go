// Package protocol defines what travels between `mlfnode up`, `down` and the like on one machine
// (package bootstrap) and `mlfnode provision` on another (package provision): one Request and one
// Response for each command over ssh.
package protocol

import (
	"path"

	"mlfnode/grid"
)

// Version is the version of the protocol.
const Version = 1

// Command is the hidden command of mlfnode that acts on a machine for another one: `mlfnode
// provision ACTION` reads one Request, a line of JSON, from its standard input, and prints one
// Response. Secrets travel in requests, never in arguments. The actions are those below, and
// supervise, which is not part of this protocol.
const Command = "provision"

// FormerCommand is the former name of Command, which older versions have.
const FormerCommand = "deputy"

// The actions of Command.
const (
	ActionInspect = "look"    // reports what is there and changes nothing
	ActionStart   = "start"   // makes the machine what Request.Desired says, changing only what differs
	ActionStop    = "stop"    // stops everything that start has started; Purge removes Layout.Root, too
	ActionReach   = "reach"   // dials Request.Addresses; a Problem names the first that does not answer
	ActionReceive = "receive" // receives the files of a project: a tar follows the request on standard input
)

// Layout is where everything lies that `up` puts on a machine. Its root is an absolute path: the
// folder of -r in the user's home.
type Layout struct{ Root string }

// Program is the mlfnode binary that the machine runs.
func (l Layout) Program() string { return path.Join(l.Root, "bin", "mlfnode") }

// Config is the node's node.yaml.
func (l Layout) Config() string { return path.Join(l.Root, "node.yaml") }

// State is the node's state folder.
func (l Layout) State() string { return path.Join(l.Root, "state") }

// Log is what a node without systemd prints; a full one becomes Log + ".1".
func (l Layout) Log() string { return path.Join(l.Root, "node.log") }

// Projects is the folder of pushed projects.
func (l Layout) Projects() string { return path.Join(l.Root, "projects") }

// NodeHeading stands at the top of each node.yaml that up writes.
const NodeHeading = "# Written by `mlfnode up`, which overwrites it: edit cluster.yaml instead.\n"

// Request asks a machine for one action.
type Request struct {
	Version int      `json:"version"`
	Root    string   `json:"root"` // Layout.Root
	Desired *Desired `json:"wanted,omitempty"`
	Purge   bool     `json:"purge,omitempty"`
	// Leave makes a worker that is stopped leave its cluster for good: it needs a token to come
	// back.
	Leave bool `json:"leave,omitempty"`
	// PutAside moves the state of a master that was moved to another machine aside, once everything
	// is stopped.
	PutAside bool `json:"aside,omitempty"`
	// Addresses are those of other nodes' gossip, HOST:PORT.
	Addresses []string `json:"reach,omitempty"`
	Push      *Push    `json:"push,omitempty"`
}

// Desired is the desired state of a machine.
type Desired struct {
	Role grid.NodeRole `json:"role"` // master or worker
	// node.yaml without the line `seed:`, which the machine adds for a worker
	Config string   `json:"config"`
	Seeds  []string `json:"seeds,omitempty"` // HOST:PORT of the master's API; the first that answers becomes the seed
	NATS   int      `json:"nats,omitempty"`  // ports of the master that a worker must reach, too
	Gossip int      `json:"gossip,omitempty"`
	Token  string   `json:"token,omitempty"` // with which a worker joins; unused by one that has joined
	// Restart restarts the node even if nothing differs.
	Restart bool `json:"restart,omitempty"`
	// TakeOver makes the machine leave another cluster for this one, which ends its trials there.
	TakeOver bool `json:"take,omitempty"`
}

// Push lists the files that Layout.Projects()/Project is to contain. Without a tar after it, the
// response says which are missing or differ. Files of an earlier push that are no longer listed are
// removed.
type Push struct {
	Project string          `json:"project"`
	Files   map[string]File `json:"files"` // by slash-separated path
	Tar     bool            `json:"tar"`   // a tar with the files that were missing follows
}

// File is one file of a project.
type File struct {
	SHA256 string `json:"sha256"` // hex
	Exec   bool   `json:"exec,omitempty"`
	Link   string `json:"link,omitempty"` // target of a symbolic link, which has no digest
}

// Response is the answer of a machine: one line of JSON after anything else that was printed.
type Response struct {
	Version  int       `json:"version"`
	Problem  *Problem  `json:"problem,omitempty"` // why the action failed
	Notes    []string  `json:"notes,omitempty"`   // what a person should know
	Observed *Observed `json:"seen,omitempty"`    // what is there now: after inspect, start and stop
	// the changes, in a few words each: "joined", "restarted", "pushed 3 files"
	Done    []string `json:"done,omitempty"`
	Missing []string `json:"missing,omitempty"` // files that receive lacks
	// FormerName is the name that the machine had in this cluster until now, if it has joined under
	// another one.
	FormerName string `json:"renamed,omitempty"`
	// NameTaken: the machine may not join, because another key holds its name.
	NameTaken bool `json:"taken,omitempty"`
}

// What keeps a node running.
const (
	ServiceSystem     = "system"     // a unit of the system
	ServiceUser       = "user"       // a unit of the user
	ServiceBackground = "background" // a supervised process in a session of its own
)

// Observed is the observed state of a machine.
type Observed struct {
	Digest  string        `json:"digest"`            // SHA-256 of Layout.Program, hex
	Release string        `json:"release"`           // its version
	Config  string        `json:"config,omitempty"`  // text of node.yaml
	Joined  bool          `json:"joined"`            // it has credentials of a cluster
	Node    string        `json:"node,omitempty"`    // the name in those
	Role    grid.NodeRole `json:"role,omitempty"`    // the role in those
	Cluster string        `json:"cluster,omitempty"` // digest of the authority that issued those, hex
	// they are a master's that was copied to another machine: it does not start
	Moved   bool   `json:"moved,omitempty"`
	Service string `json:"service,omitempty"` // what keeps the node running; "" for nothing
	// BestService is the best way to keep a node running on this machine.
	BestService string `json:"can_service"`
	Linger      bool   `json:"linger,omitempty"`  // of a user's service: it survives logout
	Active      bool   `json:"active"`            // the agent answers on its socket
	Working     bool   `json:"working"`           // and takes trials, or is a master that runs none
	Running     string `json:"running,omitempty"` // version of the agent that answers
	// Stale: the agent runs a program or settings that differ from the installed ones.
	Stale bool `json:"stale,omitempty"`
	PID   int  `json:"pid,omitempty"` // of the agent or its supervisor
	// Leftovers are processes, units and ports that are still there after stop, and should not be.
	Leftovers []string `json:"left,omitempty"`
	// Problems are the doctor's findings that keep the node from working.
	Problems []Problem `json:"problems,omitempty"`
}
