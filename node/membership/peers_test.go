package membership

import (
	"reflect"
	"testing"
)

// TestAddSeed moves the master to where the settings have it.
func TestAddSeed(t *testing.T) {
	k := Peers{API: []string{"old:7420"}, NATS: []string{"old:7421"}, Gossip: []string{"old:7422", "other:7422"}}
	for _, seed := range []string{"", "old", "new:7520", "new:7520", "newer"} {
		if err := k.AddSeed(seed, 7420, 7421, 7422); err != nil {
			t.Fatal(err)
		}
	}
	want := Peers{API: []string{"newer:7420", "new:7520", "old:7420"},
		NATS:   []string{"newer:7421", "new:7421", "old:7421"},
		Gossip: []string{"newer:7422", "new:7422", "old:7422", "other:7422"}}
	if !reflect.DeepEqual(k, want) {
		t.Errorf("got  %+v\nwant %+v", k, want)
	}
	seed := "newer"
	for range 2 * maxGossipPeers {
		seed += "x"
		if err := k.AddSeed(seed, 7420, 7421, 7422); err != nil {
			t.Fatal(err)
		}
	}
	if len(k.API) != maxMasterAddresses || len(k.NATS) != maxMasterAddresses || len(k.Gossip) != maxGossipPeers {
		t.Errorf("got %d, %d and %d addresses, want at most %d and %d", len(k.API), len(k.NATS), len(k.Gossip),
			maxMasterAddresses, maxGossipPeers)
	}
	if k.AddSeed("new:port", 7420, 7421, 7422) == nil {
		t.Error("got no error for a seed that is not an address")
	}
}
