package cluster

// nudge requests a round of the watchers.
func (c *Cluster) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// deliver passes changes of members to the watchers and to the log, until the node closes.
func (c *Cluster) deliver() {
	for {
		changed := c.table.changes()
		for _, m := range changed {
			c.logState(m)
		}
		c.table.deliver(changed)
		select {
		case <-c.life.Done():
			return
		case <-c.wake:
		}
	}
}

func (c *Cluster) logState(m Member) {
	log := c.log.Info
	switch m.State {
	case Suspect:
		log = c.log.Debug
	case Dead:
		log = c.log.Warn
	}
	log("member is "+string(m.State), "node", m.Node, "address", m.Address)
}
