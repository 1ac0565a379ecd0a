package config

import (
	"fmt"
	"strconv"
	"time"

	"mlfnode/node/api"
	"mlfnode/node/master"
)

// Cluster holds the settings that a node of a cluster needs.
type Cluster struct {
	Bind       string // address to listen on; empty is every address
	Advertise  string // address under which others reach this node; empty chooses one by the route to the seed
	Seed       string // HOST or HOST:PORT of the API of the master
	Ports      Ports
	Worker     bool          // a master runs trials, too
	CrashLimit int           // nodes that may die under a trial before it is set aside
	Patience   time.Duration // how long running trials wait for an agent that has gone
	LostAfter  time.Duration // silence of a node after which its trials also start elsewhere
	Reconcile  master.Reconcile
}

// Ports holds the ports on which a node listens. A worker listens for gossip only.
type Ports struct {
	API    int // HTTPS, TCP; on a master
	NATS   int // TLS, TCP; on a master
	Gossip int // encrypted, TCP and UDP
}

// The default ports.
const (
	DefaultAPIPort    = 7420
	DefaultNATSPort   = 7421
	DefaultGossipPort = 7422
)

// DefaultCluster returns the default settings.
func DefaultCluster() Cluster {
	return Cluster{
		Ports:  Ports{API: DefaultAPIPort, NATS: DefaultNATSPort, Gossip: DefaultGossipPort},
		Worker: true, CrashLimit: 3, Patience: 10 * time.Second,
		LostAfter: 3 * time.Second, Reconcile: master.LongestRunning,
	}
}

// clusterSettings is Cluster in node.yaml.
type clusterSettings struct {
	Bind      string `yaml:"bind" form:"text"`
	Advertise string `yaml:"advertise" form:"text"`
	Seed      string `yaml:"seed" form:"text"`
	Ports     struct {
		API    string `yaml:"api" form:"port"`
		NATS   string `yaml:"nats" form:"port"`
		Gossip string `yaml:"gossip" form:"port"`
	} `yaml:"ports"`
	Worker     string `yaml:"worker" form:"bool"`
	CrashLimit string `yaml:"crash_limit" form:"positive"`
	Patience   string `yaml:"patience" form:"duration"`
	LostAfter  string `yaml:"lost_after" form:"duration"`
	Reconcile  string `yaml:"reconcile" form:"longest_running,keep_original,keep_replacement"`
}

// read applies the settings. It calls set for each, with its name in the file and in the
// environment.
func (c *Cluster) read(s *clusterSettings, set func(key, env, value string, apply func(string) error)) {
	set("bind", "MLF_BIND", s.Bind, address(&c.Bind))
	set("advertise", "MLF_ADVERTISE", s.Advertise, address(&c.Advertise))
	set("seed", "MLF_SEED", s.Seed, func(v string) error {
		c.Seed = v
		_, err := api.WithPort(v, DefaultAPIPort)
		return err
	})
	set("ports.api", "MLF_PORTS_API", s.Ports.API, port(&c.Ports.API))
	set("ports.nats", "MLF_PORTS_NATS", s.Ports.NATS, port(&c.Ports.NATS))
	set("ports.gossip", "MLF_PORTS_GOSSIP", s.Ports.Gossip, port(&c.Ports.Gossip))
	set("worker", "MLF_WORKER", s.Worker, func(v string) (err error) {
		if c.Worker, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("%q is neither true nor false", v)
		}
		return nil
	})
	set("crash_limit", "MLF_CRASH_LIMIT", s.CrashLimit, func(v string) (err error) {
		if c.CrashLimit, err = count(v); err == nil && c.CrashLimit == 0 {
			err = fmt.Errorf("%q would let no trial survive the death of a node; write 1 or more", v)
		}
		return err
	})
	set("patience", "MLF_PATIENCE", s.Patience, func(v string) (err error) { c.Patience, err = duration(v); return })
	set("lost_after", "MLF_LOST_AFTER", s.LostAfter, func(v string) (err error) {
		if c.LostAfter, err = duration(v); err == nil && c.LostAfter < leastLostAfter {
			err = fmt.Errorf("%q is too short to distinguish silence from a busy network; write at least %v", v,
				leastLostAfter)
		}
		return err
	})
	set("reconcile", "MLF_RECONCILE", s.Reconcile, func(v string) error {
		switch c.Reconcile = master.Reconcile(v); c.Reconcile {
		case master.LongestRunning, master.KeepOriginal, master.KeepReplacement:
			return nil
		}
		return fmt.Errorf("%q is not a value of reconcile; write %s, %s or %s", v, master.LongestRunning,
			master.KeepOriginal, master.KeepReplacement)
	})
}

// leastLostAfter is about how long the nodes need to agree that one of them is silent.
const leastLostAfter = 2 * time.Second

// ListenAddress returns the address on which a node listens, for its peers and for people.
func (c *Cluster) ListenAddress() string {
	if c.Bind == "" {
		return "0.0.0.0"
	}
	return c.Bind
}

// Outage returns how a master treats nodes that it no longer hears from.
func (c *Cluster) Outage() master.Outage {
	return master.Outage{LostAfter: c.LostAfter, AgentTimeout: c.Patience, Reconcile: c.Reconcile}
}
