package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"

	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/doctor"
)

// mirror asks the master about this host: what time it is there, and whether it gets through to us. It is nil without a contact.
type mirror struct {
	client *api.Client
	node   string
	agent  bool // our agent has the ports
}

// askMaster fills in what only the master can say.
func askMaster(a *app, h *doctor.Host) {
	contact, err := a.contact()
	if err != nil || contact == nil {
		return // then the host is looked at alone
	}
	m := &mirror{client: contact.Client(), node: string(h.Node), agent: h.Running}
	h.Ask, h.Back = m.ask, m.back
}

func (m *mirror) ask(ctx context.Context) (doctor.Answer, error) {
	about, err := m.client.Node(ctx)
	return doctor.Answer{Time: about.Time, Version: about.Version}, err
}

// back has the master try a port. Where no agent listens there, this process does for as long.
func (m *mirror) back(ctx context.Context, network, port string) error {
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	switch {
	case network == "udp" && m.agent:
		return m.seen(ctx)
	case network == "udp":
		return m.word(ctx, number)
	case !m.agent:
		l, err := net.Listen("tcp", net.JoinHostPort("", port))
		if err != nil {
			return err
		}
		defer l.Close()
	}
	return m.reach(ctx, api.Reach{Network: network, Port: number})
}

// reach has the master try a port.
func (m *mirror) reach(ctx context.Context, r api.Reach) error {
	err := m.client.Reach(ctx, r)
	var refusal *api.Error
	if errors.As(err, &refusal) && refusal.Status == api.StatusSameHost {
		return doctor.ErrSameHost
	}
	return err
}

// seen asks whether the master's gossip, which goes by UDP, has our agent as alive.
func (m *mirror) seen(ctx context.Context) error {
	all, err := m.client.Members(ctx)
	if err != nil {
		return err
	}
	return alive(all, m.node)
}

// alive has no error when a node is among the members, and alive. One that gossip does not see gets no trials.
func alive(all []api.Member, node string) error {
	for i := range all {
		if string(all[i].Node) != node {
			continue
		}
		if all[i].State != "alive" {
			return fmt.Errorf("its gossip has this node as %s", all[i].State)
		}
		return nil
	}
	return errors.New("its gossip does not see this node, so this node gets no trials")
}

// word waits for what the master sends.
func (m *mirror) word(ctx context.Context, port int) error {
	l, err := net.ListenPacket("udp", net.JoinHostPort("", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer l.Close()
	word := rand.Text()
	if err := m.reach(ctx, api.Reach{Network: "udp", Port: port, Word: word}); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := l.SetReadDeadline(deadline); err != nil {
			return err
		}
	}
	b := make([]byte, 512)
	for {
		n, _, err := l.ReadFrom(b)
		if err != nil {
			return errors.New("packets do not arrive")
		}
		if string(b[:n]) == word {
			return nil
		}
	}
}

// ports are the ports of the settings in doctor's form.
func ports(cfg *node.Config) doctor.Ports {
	p := cfg.Cluster.Ports
	return doctor.Ports{API: p.API, NATS: p.NATS, Gossip: p.Gossip}
}
