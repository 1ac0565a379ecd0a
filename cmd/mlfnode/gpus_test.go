package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"mlfnode/node/api"
)

// TestListGPUs shows devices of every kind. What other nodes say is made safe to print, and reasons
// are whole.
func TestListGPUs(t *testing.T) {
	long := "used by python3 (pid 4242, user ada), which is not a trial; " +
		strings.Repeat("and so on ", 20) + "to its end"
	members := []api.Member{
		{Node: "a", State: "alive", Devices: []api.GPU{
			{Node: "a", Instance: -1, Name: "A100", Memory: 40 << 30, Used: 1 << 30, Utilization: 87, Temperature: 61,
				Power: 301, State: "ready", Trials: []string{"s-1/7"}},
			{Node: "a", Index: 1, Instance: -1, Name: "A100", State: "foreign", Why: long, Utilization: -1,
				Temperature: -1, Power: -1},
			{Node: "a", Index: 2, Instance: -1, Name: "A100", MIG: true, State: "ready"},
			{Node: "a", Index: 2, Instance: 0, Name: "A100", Profile: "1g.5gb",
				State: "sick", Why: "Xid 95: \x1b[31mred"},
			{Node: "a", Index: 3, Instance: -1, Name: "K80", Problem: "GPU 3 is lost"},
			{Node: "a", Index: 4, Instance: -1, Name: "T4", Mode: "exclusive", State: "ready"},
		}},
		{Node: "b", State: "alive", Problem: "the driver does not answer", MoreDevices: true,
			Groups: []api.GPUGroup{{Model: "H100", Profile: "1g.10gb", Total: 448}}},
		{Node: "c", State: "dead", Devices: []api.GPU{{Node: "c", Name: "gone"}}, Problem: "of the past"},
	}
	var out, notes bytes.Buffer
	ui := newConsole(&out, &notes)
	if err := printGPUs(ui, members); err != nil {
		t.Fatal(err)
	}
	shown := out.String() + notes.String()
	for _, want := range []string{
		"87%", "61 °C", "301 W", "s-1/7", "foreign", "a GPU 1: " + long, "2.0  1g.5gb",
		"divided", "a GPU 2.0: Xid 95: ", "unusable", "a GPU 3: GPU 3 is lost",
		"a GPU 4: in exclusive mode", "b: the driver does not answer", "448 × H100 1g.10gb",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is missing in\n%s", want, shown)
		}
	}
	for _, wrong := range []string{"\x1b", "gone", "of the past", " -1"} {
		if strings.Contains(shown, wrong) {
			t.Errorf("%q is in\n%s", wrong, shown)
		}
	}
	out.Reset()
	ui.json = true
	if err := printGPUs(ui, members); err != nil {
		t.Fatal(err)
	}
	var all []api.GPU
	if err := json.Unmarshal(out.Bytes(), &all); err != nil || len(all) != 6 || all[1].Why != long {
		t.Errorf("got %+v, %v", all, err)
	}
	out.Reset()
	notes.Reset()
	ui.json = false
	if err := printGPUs(ui, members[2:]); err != nil ||
		!strings.Contains(out.String()+notes.String(), "no node has a GPU") {
		t.Errorf("got %q, %v", out.String(), err)
	}
}
