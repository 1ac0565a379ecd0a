package devices

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"mlfnode/node/durable"
)

// record is what was wrong with a device since the machine was started. It outlives the agent.
type record struct {
	Sick    string          `json:"sick,omitempty"`    // why it is out of service; "" when it is not
	Faults  []fault         `json:"faults,omitempty"`  // of the last day
	Strikes []blamedFailure `json:"strikes,omitempty"` // failures that were blamed on it, of the last day
	Risen   bool            `json:"risen,omitempty"`   // the driver has asked for a recovery
}

// recordsFile is the content of Config.File.
type recordsFile struct {
	Boot    string             `json:"boot"`
	Devices map[string]*record `json:"devices"` // by UUID
}

// readRecords reads what an earlier agent knew of the devices since this start of the machine.
func (w *Watch) readRecords() error {
	b, err := os.ReadFile(w.cfg.File)
	if errors.Is(err, fs.ErrNotExist) || w.cfg.File == "" {
		return nil
	}
	var f recordsFile
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return fmt.Errorf("read the faults of the GPUs: %w", err)
	}
	for uuid, r := range f.Devices {
		if f.Boot == w.cfg.Boot && r != nil {
			w.records[uuid] = r
		}
	}
	w.storedRecords = b
	return nil
}

// recordOf returns the record of a device.
func (w *Watch) recordOf(uuid string) *record {
	if w.records[uuid] == nil {
		w.records[uuid] = &record{}
	}
	return w.records[uuid]
}

// recordsLocked returns the content of the file, nil for a Watch without one.
func (w *Watch) recordsLocked() []byte {
	f := recordsFile{Boot: w.cfg.Boot, Devices: map[string]*record{}}
	for uuid, r := range w.records {
		if r.Sick != "" || len(r.Faults) > 0 || len(r.Strikes) > 0 || r.Risen {
			f.Devices[uuid] = r
		}
	}
	b, err := json.Marshal(&f)
	if err != nil || w.cfg.File == "" || len(f.Devices) == 0 && w.storedRecords == nil {
		return nil
	}
	return b
}

// storeRecords writes the records if they have changed.
func (w *Watch) storeRecords(records []byte) {
	if records == nil || bytes.Equal(records, w.storedRecords) {
		return
	}
	if err := durable.WriteFile(w.cfg.File, records, 0o600); err != nil {
		w.log.Warn("the faults of the GPUs could not be stored; the next agent will not know them", "err", err)
	}
	w.storedRecords = records // otherwise each sample would try again
}
