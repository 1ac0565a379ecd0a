package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/processid"
)

// recordFile is the file of the runRecord in the folder of a run.
const recordFile = "order.json"

// recordVersion is the version of runRecord. Fields are added, never renamed.
const recordVersion = 1

// runRecord is what a process needs to adopt a run.
type runRecord struct {
	V       int           `json:"v"`
	Owner   processid.ID  `json:"owner"` // the process that follows it
	Spec    executor.Spec `json:"spec"`
	Program string        `json:"program"`          // first word of the command
	Shared  bool          `json:"shared,omitempty"` // both streams go to one file

	ID      string       `json:"id,omitempty"`     // the engine's, once the container is created
	Began   int64        `json:"began,omitempty"`  // nanoseconds since 1970
	Process processid.ID `json:"process,omitzero"` // the container's first process, in this machine's PID namespace
}

func readRecord(dir string) (runRecord, error) {
	var r runRecord
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read the record of a container: %w", err)
	}
	return r, nil
}

func (r *runRecord) began() time.Time { return time.Unix(0, r.Began) }

// lost returns the outcome of a run whose end nobody knows.
func (r *runRecord) lost(why string) executor.Outcome {
	now, began := time.Now(), r.began()
	if r.Began == 0 {
		began = now
	}
	return executor.Outcome{
		Class: grid.ClassLost, ExitCode: grid.NoExit, Reason: why, Start: began, End: now,
		Usage: grid.Usage{Wall: max(now.Sub(began).Microseconds(), 1)},
	}
}

// openOutput opens the files that the output of the attempt is appended to.
func (r *runRecord) openOutput() (files [2]*os.File, err error) {
	if r.Spec.Container == nil {
		return files, errors.New("no container is described")
	}
	for i, path := range r.Spec.Container.Output {
		if path == "" {
			continue
		}
		if i == 1 && r.Shared {
			files[1] = files[0]
			break
		}
		if files[i], err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err != nil {
			return files, err
		}
	}
	return files, nil
}
