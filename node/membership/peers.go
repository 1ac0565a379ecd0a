package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"mlfnode/cluster"
	"mlfnode/grid/problem"
	"mlfnode/node/api"
	"mlfnode/node/durable"
)

// Peers is where a node finds its cluster again. It is kept in cluster.json of the state folder.
type Peers struct {
	API    []string `json:"api"`    // HOST:PORT of the master, the last one first
	NATS   []string `json:"nats"`   // HOST:PORT of the master, the last one first
	Gossip []string `json:"gossip"` // of members
	// Reached is the gossip of the master at the address by which this node joined, which need not
	// be the one that the master advertises.
	Reached []string `json:"reached,omitempty"`
}

const (
	peersFile = "cluster.json"
	// maxGossipPeers bounds the members that are kept: any one of them leads to all.
	maxGossipPeers = 16
	// maxMasterAddresses bounds the addresses of the master that are kept.
	maxMasterAddresses = 4
)

// LoadPeers reads where the cluster of the state folder is.
func LoadPeers(stateDir string) (*Peers, error) {
	var p Peers
	b, err := os.ReadFile(filepath.Join(stateDir, peersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil,
			fmt.Errorf("this node has credentials but does not know where its cluster is; join again with: mlfnode join --seed HOST")
	}
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil || len(p.API) == 0 || len(p.NATS) == 0 {
		return nil, fmt.Errorf("read where the cluster is: %w",
			errors.Join(err, errors.New(peersFile+" is damaged; join again")))
	}
	return &p, nil
}

// AddSeed puts the seed of the settings, HOST or HOST:PORT, first among the addresses of the
// master, unless it is one of them: the master has moved. Ports are those of the settings.
func (p *Peers) AddSeed(seed string, apiPort, natsPort, gossipPort int) error {
	if seed == "" {
		return nil
	}
	address, err := api.WithPort(seed, apiPort)
	if err != nil || slices.Contains(p.API, address) {
		return err
	}
	host, _, _ := net.SplitHostPort(address) // WithPort has made it
	add := func(to *[]string, most int, address string) {
		*to = append([]string{address}, *to...)
		*to = (*to)[:min(len(*to), most)]
	}
	add(&p.API, maxMasterAddresses, address)
	add(&p.NATS, maxMasterAddresses, hostPort(host, natsPort))
	add(&p.Gossip, maxGossipPeers, hostPort(host, gossipPort))
	return nil
}

// update replaces the members by those that are there, without this node, and reports whether they
// differ. If none is there, those known last stay.
func (p *Peers) update(own cluster.Member, there []string) (changed bool) {
	there = slices.DeleteFunc(there, func(a string) bool { return a == hostPort(own.Address, own.Port) })
	there = there[:min(len(there), maxGossipPeers)]
	if len(there) == 0 || slices.Equal(there, p.Gossip) {
		return false
	}
	p.Gossip = there
	if len(p.API) == 0 { // of a master itself
		p.API, p.NATS = []string{hostPort(own.Address, own.APIPort)}, []string{hostPort(own.Address, own.NATSPort)}
	}
	return true
}

func (p *Peers) save(stateDir string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode where the cluster is: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(stateDir, peersFile), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember where the cluster is: %w", problem.WithoutPath(err))
	}
	return nil
}
