package devices

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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

// recordStore keeps the records of devices in a file.
type recordStore struct {
	file    string // "" for nowhere
	boot    string // identifies this start of the machine: earlier records no longer count
	log     *slog.Logger
	devices map[string]*record // by UUID; guarded by Watch.mu
	stored  []byte             // the content of the file; owned by Watch.Run
}

// read reads what an earlier agent knew of the devices since this start of the machine.
func (s *recordStore) read() error {
	b, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) || s.file == "" {
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
		if f.Boot == s.boot && r != nil {
			s.devices[uuid] = r
		}
	}
	s.stored = b
	return nil
}

// of returns the record of a device.
func (s *recordStore) of(uuid string) *record {
	if s.devices[uuid] == nil {
		s.devices[uuid] = &record{}
	}
	return s.devices[uuid]
}

// encode returns the content of the file, nil for a store without one.
func (s *recordStore) encode() []byte {
	f := recordsFile{Boot: s.boot, Devices: map[string]*record{}}
	for uuid, r := range s.devices {
		if r.Sick != "" || len(r.Faults) > 0 || len(r.Strikes) > 0 || r.Risen {
			f.Devices[uuid] = r
		}
	}
	b, err := json.Marshal(&f)
	if err != nil || s.file == "" || len(f.Devices) == 0 && s.stored == nil {
		return nil
	}
	return b
}

// store writes the records if they have changed.
func (s *recordStore) store(records []byte) {
	if records == nil || bytes.Equal(records, s.stored) {
		return
	}
	if err := durable.WriteFile(s.file, records, 0o600); err != nil {
		s.log.Warn("the faults of the GPUs could not be stored; the next agent will not know them", "err", err)
	}
	s.stored = records // otherwise each sample would try again
}
