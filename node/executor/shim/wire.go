package shim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"mlfnode/node/executor"
)

const (
	// version is the version of the protocol that this program speaks; oldest is the oldest one
	// that it understands. Newer agents regularly talk to older shims, since shims outlive agents.
	// So fields and kinds are only ever added, and unknown ones are skipped.
	version = 1
	oldest  = 1
)

// kind is the kind of a message.
type kind string

// The messages. Each agent has one control connection, on which any message may come at any time,
// and one connection for each slot, on which a run is answered by its outcome.
//
//	agent ── hello ──► shim     first on a control connection
//	agent ◄─ welcome ─ shim     or refused, or taken (another agent has come)
//	agent ── stop ───► shim     ends a run
//	agent ── collect ► shim     the outcome of a run is safe, the shim may forget it
//	agent ── quit ───► shim     stop everything and end
//	agent ◄─ ended ─── shim     a run of an earlier agent has ended
//	agent ◄─ gone ──── shim     a slot's connection ended without bye, and so did its last run
//
//	agent ── slot ───► shim     first on a slot's connection; answered by ready or refused
//	agent ── run ────► shim     with the output files; collects the slot's previous run
//	agent ◄─ began ─── shim     only if requested
//	agent ◄─ ended ─── shim
//	agent ── bye ────► shim     the slot is closed; an end without it means that the agent died
const (
	kindHello   kind = "hello"
	kindWelcome kind = "welcome"
	kindRefused kind = "refused"
	kindTaken   kind = "taken"
	kindStop    kind = "stop"
	kindCollect kind = "collect"
	kindQuit    kind = "quit"
	kindSlot    kind = "slot"
	kindReady   kind = "ready"
	kindRun     kind = "run"
	kindBegan   kind = "began"
	kindEnded   kind = "ended"
	kindBye     kind = "bye"
	kindGone    kind = "gone"
)

// message is the head of every frame. The kind decides which fields are used.
type message struct {
	Kind      kind   `json:"k"`
	V         int    `json:"v,omitempty"`      // hello, welcome: what the sender speaks
	Oldest    int    `json:"oldest,omitempty"` // hello, welcome: the oldest that it understands
	Token     string `json:"token,omitempty"`  // hello
	Own       bool   `json:"own,omitempty"`    // hello: this agent has started the shim
	Slot      uint64 `json:"slot,omitempty"`   // slot, gone: its number
	ID        uint64 `json:"id,omitempty"`     // run, stop, collect, began, ended, gone: the run, see runID
	PID       int    `json:"pid,omitempty"`    // began
	Container string `json:"box,omitempty"`    // began: the container's id
	Reason    string `json:"reason,omitempty"` // refused

	Cause cause `json:"cause,omitempty"` // stop
	Kill  bool  `json:"kill,omitempty"`  // stop: without grace
	Save  bool  `json:"save,omitempty"`  // stop, cancelled: the program may save its state first

	Info    *shimInfo         `json:"hold,omitempty"`    // welcome
	Run     *runRequest       `json:"order,omitempty"`   // run
	Outcome *executor.Outcome `json:"outcome,omitempty"` // ended, gone
}

// shimInfo is what a shim tells an agent about itself.
type shimInfo struct {
	Trees  string `json:"held"`   // how trees are held together, for logs
	Limits bool   `json:"limits"` // memory limits are enforced
	// Containers is set by a shim that runs containers; an older one would run the program as a
	// process.
	Containers bool      `json:"containers,omitempty"`
	Runs       []runInfo `json:"runs,omitempty"`
}

// runInfo describes a run that the shim has not been told to forget.
type runInfo struct {
	ID   uint64 `json:"id"`
	Name string `json:"name"`
	PID  int    `json:"pid,omitempty"`
	// Start is when the process started, in clock ticks since boot: it tells the process from a
	// later one with its id.
	Start     uint64            `json:"start,omitempty"`
	Outcome   *executor.Outcome `json:"outcome,omitempty"` // once it has ended
	Container bool              `json:"box,omitempty"`     // it is in a container, which outlives a shim
}

// runRequest is an attempt. Its arguments and environment are in the frame's body; the output files
// are sent with the frame.
type runRequest struct {
	executor.Spec
	Argc   int  `json:"argc"`             // how many of the body's strings are arguments
	Stdout int  `json:"stdout,omitempty"` // number of the file that came with the frame, from 1; 0 means none
	Stderr int  `json:"stderr,omitempty"`
	Tell   bool `json:"tell,omitempty"` // send began
}

// cause is the reason why a run is stopped.
type cause string

const (
	causeCancel cause = "cancelled"
	causeLost   cause = "lost"
	causeHalt   cause = "halted"
)

func causeOf(err error) cause {
	switch {
	case errors.Is(err, executor.ErrCancelled):
		return causeCancel
	case errors.Is(err, executor.ErrLost):
		return causeLost
	}
	return causeHalt
}

// err returns the cause of a stop as the executor's error.
func (m *message) err() error {
	err, kill := executor.ErrHalted, m.Kill
	switch m.Cause {
	case causeCancel:
		err = executor.ErrCancelled
		if m.Save {
			err = executor.ErrCancelledSaving
		}
	case causeLost:
		err = executor.ErrLost
	}
	if kill {
		return fmt.Errorf("%w: %w", err, executor.ErrKill)
	}
	return err
}

// slotShift divides run numbers: the upper bits are the number of the slot, the lower bits a count
// within the slot. So a stop that overtakes its run can be told from one that comes too late.
const slotShift = 40

func runID(slot, n uint64) uint64 { return slot<<slotShift | n }

// A frame consists of the lengths of head and body as two big-endian 32-bit numbers, the head as
// JSON and the body, which is a sequence of strings, each after its length as a varint. Both
// lengths are limited, so garbage on the socket costs no memory. The kernel accepts less than 8 MiB
// of arguments and environment (MAX_ARG_STRLEN and bprm_stack_limits in fs/exec.c).
const (
	prefixSize = 8
	maxHead    = 4 << 20
	maxBody    = 16 << 20
)

var errFrame = errors.New("the frame is not part of this protocol")

// appendFrame appends a frame to buf.
func appendFrame(buf []byte, m *message, body ...[]string) ([]byte, error) {
	head, err := json.Marshal(m)
	if err != nil {
		return buf, fmt.Errorf("encode %s: %w", m.Kind, err)
	}
	at := len(buf)
	buf = append(buf, make([]byte, prefixSize)...)
	buf = append(buf, head...)
	for _, list := range body {
		for _, s := range list {
			buf = append(binary.AppendUvarint(buf, uint64(len(s))), s...)
		}
	}
	binary.BigEndian.PutUint32(buf[at:], uint32(len(head)))
	binary.BigEndian.PutUint32(buf[at+4:], uint32(len(buf)-at-prefixSize-len(head)))
	return buf, nil
}

// decodePrefix decodes the lengths at the start of a frame.
func decodePrefix(prefix []byte) (head, body int, err error) {
	h, b := binary.BigEndian.Uint32(prefix), binary.BigEndian.Uint32(prefix[4:])
	if h < 2 || h > maxHead || b > maxBody {
		return 0, 0, errFrame
	}
	return int(h), int(b), nil
}

// readFrame reads exactly one frame.
func readFrame(r io.Reader) (*message, error) {
	var prefix [prefixSize]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, err
	}
	head, body, err := decodePrefix(prefix[:])
	if err != nil {
		return nil, err
	}
	b := make([]byte, head)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, int64(body)); err != nil {
		return nil, err
	}
	return decode(b)
}

func decode(head []byte) (*message, error) {
	m := new(message)
	if err := json.Unmarshal(head, m); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	return m, nil
}

// decodeStrings decodes the strings of a body. They share one piece of memory.
func decodeStrings(body []byte) ([]string, error) {
	text := string(body)
	var all []string
	for at := 0; at < len(body); {
		n, size := binary.Uvarint(body[at:])
		if size <= 0 || n > uint64(len(body)-at-size) {
			return nil, errFrame
		}
		at += size
		all = append(all, text[at:at+int(n)])
		at += int(n)
	}
	return all, nil
}
