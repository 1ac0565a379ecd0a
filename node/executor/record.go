package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// recordVersion is the version of outcomes in files and on sockets. Readers skip unknown fields.
const recordVersion = 1

// record is an outcome in a file, with the run that it belongs to.
type record struct {
	V       int      `json:"v"`
	Run     string   `json:"run"`
	Outcome *Outcome `json:"outcome"`
}

// wireOutcome is an outcome as JSON.
type wireOutcome struct {
	Class     grid.Class `json:"class,omitempty"`
	ExitCode  int        `json:"exit"`
	Reason    string     `json:"reason,omitempty"`
	Start     int64      `json:"start"` // nanoseconds since 1970
	End       int64      `json:"end"`
	Usage     grid.Usage `json:"usage"`
	Leftovers int        `json:"leftovers,omitempty"`
	Foreign   string     `json:"foreign,omitempty"`
	Cut       int64      `json:"cut,omitempty"`
	Kept      [2]int64   `json:"kept,omitzero"`
	Tail      [2]string  `json:"tail,omitzero"`
}

// MarshalJSON implements json.Marshaler.
func (o *Outcome) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireOutcome{
		Class: o.Class, ExitCode: o.ExitCode, Reason: o.Reason, Start: o.Start.UnixNano(), End: o.End.UnixNano(),
		Usage: o.Usage, Leftovers: o.Leftovers, Foreign: o.Foreign, Cut: o.Cut, Kept: o.Kept, Tail: o.Tail,
	})
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *Outcome) UnmarshalJSON(b []byte) error {
	var w wireOutcome
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*o = Outcome{
		Class: w.Class, ExitCode: w.ExitCode, Reason: w.Reason, Start: time.Unix(0, w.Start), End: time.Unix(0, w.End),
		Usage: w.Usage, Leftovers: w.Leftovers, Foreign: w.Foreign, Cut: w.Cut, Kept: w.Kept, Tail: w.Tail,
	}
	return nil
}

// WriteRecord writes how a run ended to a file, completely or not at all. The folder must exist.
func WriteRecord(path, run string, o Outcome) error {
	b, err := json.Marshal(record{V: recordVersion, Run: run, Outcome: &o})
	if err != nil {
		return fmt.Errorf("encode outcome: %w", err)
	}
	if err := durable.ReplaceFile(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("record outcome: %w", err)
	}
	return nil
}

// ReadRecord reads how a run ended. ok is false if the file does not exist or belongs to another
// run.
func ReadRecord(path, run string) (o Outcome, ok bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return o, false, nil
	}
	if err != nil {
		return o, false, fmt.Errorf("read recorded outcome: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return o, false, fmt.Errorf("read recorded outcome: %w", err)
	}
	if r.Run != run || r.Outcome == nil {
		return o, false, nil
	}
	return *r.Outcome, true, nil
}
