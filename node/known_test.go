package node

import (
	"reflect"
	"testing"

	"mlfnode/node/config"
)

// TestMeetAt moves the master to where the settings have it.
func TestMeetAt(t *testing.T) {
	c := config.DefaultCluster()
	k := known{API: []string{"old:7420"}, NATS: []string{"old:7421"}, Gossip: []string{"old:7422", "other:7422"}}
	for _, c.Seed = range []string{"", "old", "new:7520", "new:7520", "newer"} {
		if err := k.meetAt(&c); err != nil {
			t.Fatal(err)
		}
	}
	want := known{API: []string{"newer:7420", "new:7520", "old:7420"}, NATS: []string{"newer:7421", "new:7421", "old:7421"},
		Gossip: []string{"newer:7422", "new:7422", "old:7422", "other:7422"}}
	if !reflect.DeepEqual(k, want) {
		t.Errorf("got  %+v\nwant %+v", k, want)
	}
	for range 2 * knownGossip {
		c.Seed += "x"
		if err := k.meetAt(&c); err != nil {
			t.Fatal(err)
		}
	}
	if len(k.API) != knownAddresses || len(k.NATS) != knownAddresses || len(k.Gossip) != knownGossip {
		t.Errorf("got %d, %d and %d addresses, want at most %d and %d", len(k.API), len(k.NATS), len(k.Gossip), knownAddresses, knownGossip)
	}
	c.Seed = "new:port"
	if k.meetAt(&c) == nil {
		t.Error("got no error for a seed that is no address")
	}
}
