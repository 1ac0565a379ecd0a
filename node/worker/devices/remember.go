package devices

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"mlfnode/node/durable"
)

// remembered is what a file keeps of devices over restarts of the agent, until the machine restarts: that resets them.
type remembered struct {
	Boot string            `json:"boot"`
	Sick map[string]string `json:"sick"` // reasons, by UUID
}

// recall reads which devices an earlier agent has taken out of service. A file that can't be read counts as none: an error shows again.
func recall(file, boot string) map[string]string {
	text, err := os.ReadFile(file)
	r := remembered{}
	if err != nil || json.Unmarshal(text, &r) != nil || r.Boot != boot || boot == "" {
		return nil
	}
	return r.Sick
}

// remember rewrites the file when other devices are sick than it says. It belongs to the goroutine of Run.
func (w *Watch) remember() error {
	sick := map[string]string{}
	w.mu.Lock()
	for uuid, d := range w.devices {
		if d.sick != "" {
			sick[uuid] = d.sick
		}
	}
	w.mu.Unlock()
	if w.cfg.File == "" || maps.Equal(sick, w.kept) {
		return nil
	}
	text, err := json.Marshal(remembered{Boot: w.cfg.Boot, Sick: sick})
	if err != nil {
		return fmt.Errorf("note sick GPUs: %w", err)
	}
	if len(sick) == 0 {
		if err = durable.Remove(w.cfg.File); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		err = durable.WriteFile(w.cfg.File, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note sick GPUs: %w", err)
	}
	w.kept = sick
	return nil
}
