package api

import (
	"context"
	"iter"
	"net/url"
	"strconv"
	"time"

	"mlfnode/grid"
)

// Output is a piece of an attempt's output. Pieces of one stream of one run come in order.
type Output struct {
	Index  int64     `json:"index"`
	Run    string    `json:"run"`
	Stream string    `json:"stream"` // stdout, stderr or setup (the setup step that ran for it)
	Offset int64     `json:"offset"` // offset of Data in this stream of the run
	Data   []byte    `json:"data"`
	Time   time.Time `json:"time"`
	Seq    uint64    `json:"seq"` // position in the log, from which to continue

	// A piece without data, at the end of Logs, reports what is missing from a run: Cut and Gone as
	// in Printed, in bytes.
	Cut  int64 `json:"cut,omitempty"`
	Gone int64 `json:"gone,omitempty"`
}

// LogQuery selects output. Index -1 selects the whole sweep. For a single trial, the query selects
// the output of its latest attempt, or of Attempt.
type LogQuery struct {
	Index   int64
	Attempt int
	Follow  bool // continue until the sweep or the trial has ended
}

// The paths of one trial's output and files, below a prefix. Each takes the number of an attempt in
// the query; the default is the attempt that determines the trial's state.
const (
	PathLog       = "/sweeps/{sweep}/trials/{index}/log"
	PathLogText   = "/sweeps/{sweep}/trials/{index}/log.txt"
	PathLogSearch = "/sweeps/{sweep}/trials/{index}/log/search"
	PathFiles     = "/sweeps/{sweep}/trials/{index}/files"
	PathFile      = "/sweeps/{sweep}/trials/{index}/file"
)

// The paths of the output of all trials of a sweep, below a prefix. Each takes the same filter as
// charts.
const (
	PathSweepLog       = "/sweeps/{sweep}/log"
	PathSweepLogSearch = "/sweeps/{sweep}/log/search"
)

// Bounds of windows of output and of searches in output.
const (
	DefaultWindow = 64 << 10  // bytes
	MaxWindow     = 128 << 10 // bytes
	DefaultHits   = 100
	MaxHits       = 500
	MaxLogQuery   = 256 // bytes in the text to search for
	MaxFileList   = 10_000
)

// LogWindow is a part of an attempt's output. Offsets count the bytes of one stream or, without a
// stream, those of all streams in the order in which they were stored. Bytes that have been removed
// still count, so an offset keeps its meaning.
type LogWindow struct {
	Attempt int        `json:"attempt"` // 0 before the first
	Stream  string     `json:"stream"`  // the requested stream; empty for all
	Offset  int64      `json:"offset"`  // offset of the first byte of the window
	Next    int64      `json:"next"`    // offset after the window: request it to continue
	Total   int64      `json:"total"`   // offset after everything stored so far
	Ended   bool       `json:"ended"`   // the attempt has ended, and all of its output is stored
	Pieces  []LogPiece `json:"pieces"`
	Cut     int64      `json:"cut"`            // as in Printed
	Gone    Gone       `json:"gone,omitempty"` // as in Printed
}

// LogPiece is a piece of a window, of one stream.
type LogPiece struct {
	Stream string    `json:"stream"` // stdout, stderr or setup
	Offset int64     `json:"offset"` // offset of its first byte, counted like those of the window
	Time   time.Time `json:"time"`   // when the node read it
	Data   []byte    `json:"data"`
}

// SweepLog is a part of the output of a sweep's trials, in the order in which it was stored.
// Positions number its pieces, with gaps: they only order the pieces and mark where to continue.
type SweepLog struct {
	From  int64 `json:"from"`  // position of the first piece: request the output before it to go back
	Next  int64 `json:"next"`  // position after the last piece: request the output from it to continue
	First int64 `json:"first"` // position of the oldest output of any sweep that is still stored
	Total int64 `json:"total"` // position after everything stored so far
	Ended bool  `json:"ended"` // no trial of the sweep is running or will run, and all output is stored
	// may be empty although there is more before or after, if finding it took too long
	Pieces []SweepPiece `json:"pieces"`
}

// SweepPiece is a piece of a trial's output. If its offset is not the end of the preceding piece of
// the same run and stream, the bytes between them are left out or have been removed.
type SweepPiece struct {
	Position int64  `json:"position"`
	Index    int64  `json:"index"` // index of the trial
	Run      string `json:"run"`   // unique to the attempt
	LogPiece        // its offset counts the bytes of the run's stream
}

// SweepHits lists the places where a text occurs in the output of a sweep's trials.
type SweepHits struct {
	Hits     []SweepHit `json:"hits"`
	Searched int64      `json:"searched"` // number of bytes searched
	// position at which to continue the search; set if there were too many hits or it took too long
	Next *int64 `json:"next,omitempty"`
}

// SweepHit is one place, in the piece at a position.
type SweepHit struct {
	Position int64  `json:"position"`
	Index    int64  `json:"index"`
	Run      string `json:"run"`
	LogHit          // its offset counts the bytes of the run's stream
}

// LogHits lists the places where a text occurs in an attempt's output.
type LogHits struct {
	Attempt  int      `json:"attempt"`
	Hits     []LogHit `json:"hits"`
	Searched int64    `json:"searched"` // number of bytes searched
	// offset at which to continue the search; set if there were too many hits or it took too long
	Next *int64 `json:"next,omitempty"`
}

// LogHit is one place. Before and After are the surrounding text on its line, a few hundred bytes
// at most.
type LogHit struct {
	Stream string `json:"stream"`
	Offset int64  `json:"offset"` // offset of Match, counted like those of a window
	Before string `json:"before"`
	Match  string `json:"match"`
	After  string `json:"after"`
}

// FileList lists the files that an attempt left.
type FileList struct {
	Attempt int    `json:"attempt"`
	Files   []File `json:"files"`
	More    bool   `json:"more,omitempty"` // not all files are listed
}

// File is one file of a FileList.
type File struct {
	Name  string    `json:"name"` // path with slashes
	Bytes int64     `json:"bytes"`
	Time  time.Time `json:"time"` // time of the last modification
}

// WindowQuery selects a part of an attempt's output.
type WindowQuery struct {
	Attempt int   // 0 is the attempt that determines the trial's state
	Offset  int64 // of the first byte
	Tail    int64 // unless 0, start this many bytes before the end instead
	Limit   int64 // bytes
}

// Logs reads the output of trials.
type Logs struct{ client *Client }

// Logs returns the calls about output.
func (c *Client) Logs() Logs { return Logs{c} }

// Stream streams stored and, with Follow, live output.
func (l Logs) Stream(ctx context.Context, id grid.SweepID, q LogQuery) iter.Seq2[Output, error] {
	v := attemptQuery(q.Attempt)
	v.Set("index", strconv.FormatInt(q.Index, 10))
	if q.Follow {
		v.Set("follow", "true")
	}
	return stream[Output](ctx, l.client, sweepPath(PathLogs, id), v)
}

// Window returns a part of an attempt's output.
func (l Logs) Window(ctx context.Context, id grid.TrialID, q WindowQuery) (LogWindow, error) {
	v := attemptQuery(q.Attempt)
	v.Set("limit", strconv.FormatInt(q.Limit, 10))
	if q.Tail > 0 {
		v.Set("tail", strconv.FormatInt(q.Tail, 10))
	} else {
		v.Set("offset", strconv.FormatInt(q.Offset, 10))
	}
	return getJSON[LogWindow](ctx, l.client, trialPath(PathLog, id), v)
}

// Search searches an attempt's output for a text, starting at an offset.
func (l Logs) Search(ctx context.Context, id grid.TrialID, attempt int, text string, offset int64) (LogHits, error) {
	v := attemptQuery(attempt)
	v.Set("q", text)
	v.Set("offset", strconv.FormatInt(offset, 10))
	v.Set("limit", strconv.Itoa(MaxHits))
	return getJSON[LogHits](ctx, l.client, trialPath(PathLogSearch, id), v)
}

func attemptQuery(number int) url.Values {
	v := url.Values{}
	if number > 0 {
		v.Set("attempt", strconv.Itoa(number))
	}
	return v
}
