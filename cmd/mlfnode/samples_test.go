package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"mlfnode/node/api"
)

// TestSamplesOfACluster asks a master what its machine is doing, which it tells itself as any node.
func TestSamplesOfACluster(t *testing.T) {
	c := newTestCluster(t)
	c.start()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(c.state, "node.sock"))
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial}}
	defer client.CloseIdleConnections()
	get := func(path string, v any) int {
		t.Helper()
		resp, err := client.Get("http://node" + api.Prefix + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			err = json.NewDecoder(resp.Body).Decode(v)
		}
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var all []api.NodeSamples
	for limit := time.After(clientTimeout); len(all) == 0; {
		get(api.PathNodes, &all)
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("the node does not tell what its machine is doing")
		}
	}
	var one api.NodeSamples
	if status := get("/nodes/m/samples", &one); status != http.StatusOK || one.Node != "m" ||
		len(one.Load) != 240 || one.Step != 15 {
		t.Fatalf("got %d and %+v", status, one)
	}
	told := func(strip []byte) bool {
		for _, b := range strip {
			if b < 255 {
				return true
			}
		}
		return false
	}
	if !told(one.Load) || !told(one.Memory) || !told(one.Disk) || !told(all[0].Memory) {
		t.Errorf("got %+v, want its load, memory and disk", one)
	}
	var day api.NodeSamples
	if status := get("/nodes/m/samples?step=1m", &day); status != http.StatusOK || len(day.Load) != 24*60 ||
		day.Step != 60 || !told(day.Memory) {
		t.Errorf("by minutes: got %d and %d samples every %v s", status, len(day.Load), day.Step)
	}
	if status := get("/nodes/m/samples?step=1h", &day); status != http.StatusBadRequest {
		t.Errorf("every hour: got %d, want 400", status)
	}
	if status := get("/nodes/other/samples", &one); status != http.StatusNotFound {
		t.Errorf("of a node that is not there: got %d, want 404", status)
	}
}
