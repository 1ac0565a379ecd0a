package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// setupKey names the result of a setup step: it depends on the project's contents, on the step
// itself, on what is shared and on the image that the step runs in.
func setupKey(contents string, t *grid.Task, image string) string {
	if len(t.Setup) == 0 && len(t.Share) == 0 && len(t.Links) == 0 {
		return "bundle-" + contents
	}
	parts := []any{contents, t.Setup, t.Env, t.Share, t.Links}
	if len(t.Inputs) > 0 {
		parts = append(parts, "inputs", t.Inputs)
	}
	if image != "" && len(t.Setup) > 0 {
		parts = append(parts, image)
	}
	b, _ := json.Marshal(parts) // strings always encode
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

// preparer fills the folders of attempts with their projects.
type preparer struct {
	bundles    *bundles
	containers *taskContainers
	environs   *environs
	tail       *outputTail
	disk       *diskMonitor
}

// prepare fills the attempt's folder with the project, after unpacking it and running its setup if
// this node has not done so yet.
func (pp *preparer) prepare(s *sweep, slot executor.Slot, a *attempt) error {
	r := s.record
	if bundle := r.BundleOf(a.id.Index); bundle != r.Bundle {
		updated := *r
		updated.Bundle = bundle
		r = &updated
	}
	if r.Bundle == "" && len(r.Task.Setup) == 0 && len(r.Task.Links) == 0 {
		a.project.names = map[string]bool{}
		return nil
	}
	image := pp.containers.setupImage(r, a.image)
	p, err := pp.bundles.get(s.ctx, r, image, func(dir string) error { return pp.runSetup(s, slot, a, dir) })
	if err != nil {
		return err
	}
	if len(r.Task.Share) > 0 {
		a.project.folders = p.folders
	} else {
		defer pp.bundles.unpin(p.folders)
	}
	if err := fillFolder(a.spool.work, p.entries); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			pp.bundles.invalidate(setupKey(r.Bundle, &r.Task, image), r.Bundle, p, len(r.Task.Share) > 0)
		}
		return fmt.Errorf("the attempt's folder could not be filled: %w", err)
	}
	a.project.names = p.names
	return nil
}

// runSetup runs the task's setup step in dir. Its output is shown as setup output of the attempt
// that needed it.
func (pp *preparer) runSetup(s *sweep, slot executor.Slot, a *attempt, dir string) error {
	log, err := os.OpenFile(dir+".log", os.O_CREATE|os.O_RDWR|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("the setup's log could not be created: %w", err)
	}
	defer log.Close()
	a.output.sources = []*outputSource{{file: log, stream: streamSetup}}
	container, err := pp.containers.spec(s, a, true, [2]string{log.Name(), log.Name()})
	if err != nil {
		return err
	}
	pp.tail.watch(a)
	out := slot.Run(s.ctx, &executor.Attempt{
		Spec: executor.Spec{
			Dir: dir, OutputLimit: a.outputLimit(), Grace: a.task.Grace, Container: container,
			Devices: a.allocation.UUIDs(),
		},
		Argv: a.task.Setup, Env: pp.environs.forAttempt(s, a), Stdout: log, Stderr: log,
	})
	if out.Class == grid.ClassNone {
		if advice := copyAdvice(dir, a.task.Share); advice != "" {
			fmt.Fprintln(log, advice) // at worst nobody sees the advice
		}
	}
	pp.tail.unwatch(a)
	a.mu.Lock()
	pp.tail.sendOutput(a)
	a.output.ref.Cut += out.Cut
	a.output.sources = nil // the attempt continues with others
	a.mu.Unlock()
	if out.Class == grid.ClassNone {
		return nil
	}
	result := a.resultOf(out)
	pp.disk.attribute(a, result)
	reason := joinReason("the setup step failed: "+result.Reason, lastLines(log, reasonLines, reasonBytes))
	return &setupError{class: result.Class, reason: reason, wall: out.Usage.Wall}
}

// setupError is the failure of a setup step, or of something else that a project needs on a node
// before its trials can run.
type setupError struct {
	class  grid.Class // of the step's program
	reason string
	wall   int64
}

func (e *setupError) Error() string { return e.reason }

// prepareFailure returns the result of an attempt whose folder could not be filled. The failure is
// the setup's, or else the node's.
func (a *attempt) prepareFailure(err error) *grid.Result {
	if unfetched, ok := errors.AsType[*fetchError](err); ok {
		return a.fetchFailure(unfetched)
	}
	failed, ok := errors.AsType[*setupError](err)
	switch {
	case ok && failed.class != grid.ClassNode:
		r := a.failedResult(grid.ClassSetup, failed.reason)
		r.Usage.Wall = failed.wall
		return r
	case errors.As(err, new(*mountError)):
		return a.containerFailure(err)
	case errors.Is(err, errInactive):
		return a.failedResult(grid.ClassHalt, err.Error())
	case ok || isNodeError(err):
		return a.failedResult(grid.ClassNode, err.Error())
	}
	return a.failedResult(grid.ClassSetup, err.Error())
}
