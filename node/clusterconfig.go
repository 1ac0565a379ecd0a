package node

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"mlfnode/node/master"
)

// Cluster are the settings of a node that has others beside it.
type Cluster struct {
	Bind       string // address to listen on; empty is every address
	Advertise  string // address under which others reach this node; empty chooses one by the route to the seed
	Seed       string // HOST or HOST:PORT of the master's API
	Ports      Ports
	Worker     bool          // a master runs trials too
	CrashLimit int           // nodes that may die under a trial before it is set aside
	Patience   time.Duration // how long running trials wait for an agent that has gone
	LostAfter  time.Duration // silence of a node after which its trials also start elsewhere
	Reconcile  master.Reconcile
}

// Ports are where a node listens. A worker listens for gossip only.
type Ports struct {
	API    int // HTTPS, TCP; on a master
	NATS   int // TLS, TCP; on a master
	Gossip int // encrypted, TCP and UDP
}

// The ports of a node without settings.
const (
	DefaultAPIPort    = 7420
	DefaultNATSPort   = 7421
	DefaultGossipPort = 7422
)

// DefaultCluster are the settings of a node without settings.
func DefaultCluster() Cluster {
	return Cluster{
		Ports:  Ports{API: DefaultAPIPort, NATS: DefaultNATSPort, Gossip: DefaultGossipPort},
		Worker: true, CrashLimit: 3, Patience: 10 * time.Second,
		LostAfter: 3 * time.Second, Reconcile: master.LongestRunning,
	}
}

// clusterSettings is their form in node.yaml.
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

// read takes over the settings; set applies one with its name in the file and in the environment.
func (c *Cluster) read(s *clusterSettings, set func(key, env, value string, apply func(string) error)) {
	set("bind", "MLF_BIND", s.Bind, address(&c.Bind))
	set("advertise", "MLF_ADVERTISE", s.Advertise, address(&c.Advertise))
	set("seed", "MLF_SEED", s.Seed, func(v string) error { c.Seed = v; _, err := WithPort(v, DefaultAPIPort); return err })
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
			err = fmt.Errorf("%q would let no trial survive the death of a node; write a number from 1", v)
		}
		return err
	})
	set("patience", "MLF_PATIENCE", s.Patience, func(v string) (err error) { c.Patience, err = duration(v); return })
	set("lost_after", "MLF_LOST_AFTER", s.LostAfter, func(v string) (err error) {
		if c.LostAfter, err = duration(v); err == nil && c.LostAfter < leastLostAfter {
			err = fmt.Errorf("%q is too short to distinguish silence from a busy network; write at least %v", v, leastLostAfter)
		}
		return err
	})
	set("reconcile", "MLF_RECONCILE", s.Reconcile, func(v string) error {
		switch c.Reconcile = master.Reconcile(v); c.Reconcile {
		case master.LongestRunning, master.KeepOriginal, master.KeepReplacement:
			return nil
		}
		return fmt.Errorf("%q is not a way to reconcile; write %s, %s or %s", v, master.LongestRunning, master.KeepOriginal, master.KeepReplacement)
	})
}

// leastLostAfter is about as long as the nodes need to agree that one is silent.
const leastLostAfter = 2 * time.Second

// outage returns how a master treats nodes that it does not hear from.
func (c *Cluster) outage() master.Outage {
	return master.Outage{LostAfter: c.LostAfter, Patience: c.Patience, Reconcile: c.Reconcile}
}

func address(to *string) func(string) error {
	return func(v string) error {
		if _, err := netip.ParseAddr(v); err != nil {
			return fmt.Errorf("%q is not an IP address; write one as in 10.0.0.5", v)
		}
		*to = v
		return nil
	}
}

func port(to *int) func(string) error {
	return func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("%q is not a port; write a number from 1 to 65535", v)
		}
		*to = n
		return nil
	}
}

// WithPort completes HOST to HOST:PORT, and leaves HOST:PORT as it is.
func WithPort(text string, otherwise int) (string, error) {
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		host, number = text, strconv.Itoa(otherwise)
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err != nil && (host == "" || strings.ContainsAny(host, " /@:")) {
		return "", fmt.Errorf("%q is not the address of a node; write HOST or HOST:PORT", text)
	}
	var n int
	if err := port(&n)(number); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, number), nil
}
