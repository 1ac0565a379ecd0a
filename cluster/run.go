package cluster

import (
	"time"
)

const (
	// lookEvery and lookShare are how often the states are looked at when nothing hints at a change: four times a second, and
	// more rarely with many members, whose picture takes some milliseconds.
	lookEvery = 250 * time.Millisecond
	lookShare = 4 * time.Millisecond
	// lookOften is the pace while somebody is suspect or may become so.
	lookOften = 100 * time.Millisecond
	// lookIdle is the rest after a look, in times of what it took, so that looking costs a hundredth of a core at most. It has
	// bounds, for news that come in a bunch and for a machine that is too busy.
	lookIdle = 100
	restMin  = 10 * time.Millisecond
	restMax  = time.Second
)

// nudge asks for a look.
func (c *Cluster) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run keeps the table up to date and tells the watchers.
func (c *Cluster) run() {
	for {
		begun := time.Now()
		c.table.deliver(c.observe())
		if !rest(c.life, min(max(lookIdle*time.Since(begun), restMin), restMax)) {
			return
		}
		select {
		case <-c.life.Done():
			return
		case <-c.wake:
		case <-time.After(c.patience()):
		}
	}
}

// patience is how long nobody looks without a hint.
func (c *Cluster) patience() time.Duration {
	if time.Now().UnixNano() < c.watchful.Load() {
		return lookOften
	}
	return max(lookEvery, time.Duration(c.ml.NumMembers())*lookShare)
}

// observe takes a picture over into the table.
func (c *Cluster) observe() []Member {
	picture, err := c.look.take(c.ml)
	if err != nil {
		c.log.Warn("the members can't be looked at", "err", err)
		return nil
	}
	c.table.receive([]*detail{c.told.detail(c.node)})
	changed := c.table.apply(picture, time.Now())
	for _, m := range changed {
		c.note(m)
	}
	return changed
}

// note logs what happened to a member, and has suspects watched.
func (c *Cluster) note(m Member) {
	log := c.log.Info
	switch m.State {
	case Suspect:
		c.watchful.Store(time.Now().Add(attention).UnixNano())
		log = c.log.Debug
	case Dead:
		log = c.log.Warn
	}
	log("member is "+string(m.State), "node", m.Node, "address", m.Address)
}
