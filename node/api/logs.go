package api

import "time"

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
	Attempt int        `json:"attempt"` // 0 while there is none
	Stream  string     `json:"stream"`  // that was asked for; empty for all
	Offset  int64      `json:"offset"`  // of the first byte of the window
	Next    int64      `json:"next"`    // offset behind the window: ask for it to go on
	Total   int64      `json:"total"`   // offset behind all that is stored so far
	Ended   bool       `json:"ended"`   // the attempt prints no more, and all that it printed is stored
	Pieces  []LogPiece `json:"pieces"`
	Cut     int64      `json:"cut"`            // as in Printed
	Gone    Gone       `json:"gone,omitempty"` // as in Printed
}

// LogPiece is a piece of a window, of one stream.
type LogPiece struct {
	Stream string    `json:"stream"` // stdout, stderr or setup
	Offset int64     `json:"offset"` // of its first byte, counted as those of the window
	Time   time.Time `json:"time"`   // when the node read it
	Data   []byte    `json:"data"`
}

// SweepLog is a part of the output of a sweep's trials, in the order in which it was stored.
// Positions number its pieces, with gaps: they only order the pieces and mark where to continue.
type SweepLog struct {
	From   int64        `json:"from"`   // position of the first piece of the part: ask for what is before it to go back
	Next   int64        `json:"next"`   // position behind the part: ask from it to go on
	First  int64        `json:"first"`  // position of the oldest output of any sweep that is still stored
	Total  int64        `json:"total"`  // position behind all that is stored so far
	Ended  bool         `json:"ended"`  // nothing of the sweep runs or will run, and all that it printed is stored
	Pieces []SweepPiece `json:"pieces"` // there may be none, although there is more before or behind: it took too long to find
}

// SweepPiece is a piece of a trial's output. If its offset is not the end of the preceding piece of
// the same run and stream, the bytes between them are left out or have been removed.
type SweepPiece struct {
	Position int64  `json:"position"`
	Index    int64  `json:"index"` // of the trial
	Run      string `json:"run"`   // unique to the attempt
	LogPiece        // its offset counts the bytes of the run's stream
}

// SweepHits lists the places where a text occurs in the output of a sweep's trials.
type SweepHits struct {
	Hits     []SweepHit `json:"hits"`
	Searched int64      `json:"searched"`       // bytes that were looked at
	Next     *int64     `json:"next,omitempty"` // position to search on from: there were too many hits, or it took too long
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
	Searched int64    `json:"searched"`       // bytes that were looked at
	Next     *int64   `json:"next,omitempty"` // offset to search on from: there were too many hits, or it took too long
}

// LogHit is one place. Before and After are the surrounding text on its line, a few hundred bytes
// at most.
type LogHit struct {
	Stream string `json:"stream"`
	Offset int64  `json:"offset"` // of Match, counted as those of a window
	Before string `json:"before"`
	Match  string `json:"match"`
	After  string `json:"after"`
}

// FileList lists the files that an attempt left.
type FileList struct {
	Attempt int    `json:"attempt"`
	Files   []File `json:"files"`
	More    bool   `json:"more,omitempty"` // there are more than are listed
}

// File is one file of a FileList.
type File struct {
	Name  string    `json:"name"` // path with slashes
	Bytes int64     `json:"bytes"`
	Time  time.Time `json:"time"` // when it was changed last
}
