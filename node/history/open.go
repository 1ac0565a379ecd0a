package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"modernc.org/sqlite"
)

// schemaVersion changes with schema or with the meaning of the columns; a file of another version
// is folded again.
const schemaVersion = 13

// Files of these versions lack only tables for what no event reported then, or for what can be made
// from their rows. They are migrated.
const (
	withoutCurves   = 6
	withoutSamples  = 7
	withoutEnded    = 8
	withoutKnown    = 9
	withoutStream   = 10
	withoutReopened = 11
	withoutOverlay  = 12
)

const schema = `
CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), applied INTEGER NOT NULL);
INSERT INTO meta VALUES (1, 0);
CREATE TABLE node (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE sweep (number INTEGER PRIMARY KEY, id TEXT UNIQUE, summary TEXT NOT NULL);
CREATE TABLE trial (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, attempts INTEGER NOT NULL,
	started INTEGER NOT NULL, ended INTEGER NOT NULL, wall INTEGER NOT NULL, cpu INTEGER NOT NULL, memory INTEGER NOT NULL,
	objective REAL, metrics TEXT, detail BLOB NOT NULL);
CREATE INDEX trial_open ON trial (state) WHERE state < 2;
CREATE TABLE block (id INTEGER NOT NULL, value INTEGER NOT NULL, lo, hi, PRIMARY KEY (id, value)) WITHOUT ROWID;
CREATE TABLE piece (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE stale (block INTEGER PRIMARY KEY);
CREATE TABLE cause (id INTEGER PRIMARY KEY, class TEXT NOT NULL, signature TEXT NOT NULL, count INTEGER NOT NULL,
	first INTEGER NOT NULL, last INTEGER NOT NULL, trial INTEGER NOT NULL);
CREATE TABLE attempt (trial INTEGER NOT NULL, run TEXT NOT NULL, number INTEGER NOT NULL, node INTEGER NOT NULL,
	outcome TEXT NOT NULL, ended INTEGER NOT NULL, result TEXT NOT NULL, PRIMARY KEY (trial, run)) WITHOUT ROWID;
` + curveTable + sampleTable + knownTable + streamColumns + reopenedColumn + retryTables

// Pragmas of every connection. A commit is not synced: a power cut may take the newest ones,
// together with their applied sequence, and the stream still has them. Caches are kept small (in
// KiB) since the system caches the file as well.
const (
	writerPragmas = "&_txlock=immediate&_pragma=auto_vacuum(incremental)&_pragma=journal_mode(wal)&_pragma=synchronous(normal)" +
		"&_pragma=cache_size(-2048)&_pragma=journal_size_limit(16777216)&_pragma=wal_autocheckpoint(2000)&_pragma=temp_store(memory)"
	readerPragmas = "&_pragma=query_only(1)&_pragma=cache_size(-1024)&_pragma=temp_store(memory)"
)

// readers bounds the connections for reading, of the master and for listings each, and idleReaders
// how many of them stay open for readerIdle.
const (
	readers     = 4
	idleReaders = 1
	readerIdle  = time.Minute
)

// retryTables has what retries need.
const retryTables = overlayTable + earlierColumns

// errVersion means that the file has another schema.
var errVersion = errors.New("history has another version")

// Open opens the history at path, or creates it. A damaged file is set aside as path.damaged, one
// of another version is removed; either way the history is empty then (Applied is 0) and has to be
// folded from the start of the stream.
func Open(path string, logger *slog.Logger) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	log := logger.With("component", "history")
	if _, err := os.Lstat(path + markSuffix); err == nil {
		if err := setAside(path, log, errors.New("it was found damaged before")); err != nil {
			return nil, err
		}
	}
	d, err := openFile(path, log)
	if IsDamage(err) || errors.Is(err, errVersion) {
		if err := setAside(path, log, err); err != nil {
			return nil, err
		}
		d, err = openFile(path, log)
	}
	if err != nil {
		return nil, fmt.Errorf("open history %s: %w", path, err)
	}
	return d, nil
}

func openFile(path string, log *slog.Logger) (*DB, error) {
	if err := restrict(path); err != nil {
		return nil, err
	}
	w, err := openWriter(dsn(path, writerPragmas))
	if err != nil {
		return nil, err
	}
	d := &DB{reader{index: &index{
		path: path, log: log, w: w, blocks: blockCache{w: w, limit: maxCachedBytes}, minColumnRows: minColumnRows,
		maxCurveBytes: maxCurveBytes,
		sortSlots:     make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}}}
	if err := d.prepare(); err != nil {
		return nil, errors.Join(err, w.close())
	}
	if d.read, err = sql.Open("sqlite", dsn(path, readerPragmas)); err != nil {
		return nil, errors.Join(err, w.close())
	}
	if d.listings, err = sql.Open("sqlite", dsn(path, readerPragmas)); err != nil {
		return nil, errors.Join(err, d.read.Close(), w.close())
	}
	for _, pool := range []*sql.DB{d.read, d.listings} { // no connection is opened before the first query
		pool.SetMaxOpenConns(readers)
		pool.SetMaxIdleConns(idleReaders)
		pool.SetConnMaxIdleTime(readerIdle)
	}
	return d, nil
}

// prepare creates, migrates or checks the schema and loads what is kept in memory.
func (x *index) prepare() error {
	version, err := x.w.integer("PRAGMA user_version")
	if err != nil {
		return err
	}
	tables, err := x.w.integer("SELECT count(*) FROM sqlite_schema")
	if err != nil {
		return err
	}
	missing, older := "", version >= withoutCurves && version <= withoutKnown
	switch {
	case version == 0 && tables == 0:
		missing = schema
	case version == withoutCurves:
		missing = curveTable + sampleTable + knownTable + streamColumns + reopenedColumn + retryTables
	case version == withoutSamples:
		missing = sampleTable + knownTable + streamColumns + reopenedColumn + retryTables
	case older:
		missing = knownTable + streamColumns + reopenedColumn + retryTables
	case version == withoutStream:
		missing = streamColumns + reopenedColumn + retryTables
	case version == withoutReopened:
		missing = reopenedColumn + retryTables
	case version == withoutOverlay:
		missing = retryTables
	case version != schemaVersion:
		return errVersion
	}
	if version != schemaVersion {
		err := x.w.transaction(func() error {
			if err := x.w.script(missing + fmt.Sprintf("PRAGMA user_version = %d;", schemaVersion)); err != nil ||
				!older {
				return err
			}
			if err := x.w.prepare(); err != nil {
				return err
			}
			if version <= withoutEnded {
				if err := x.addEndedColumn(); err != nil {
					return err
				}
			}
			return moveKnownTrials(x.w)
		})
		if err != nil {
			return fmt.Errorf("create tables: %w", err)
		}
	}
	if err := x.w.prepare(); err != nil {
		return err
	}
	return x.load()
}

// restrict makes the file readable for its owner only; SQLite gives its side files the same mode.
func restrict(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Chmod(0o600); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func dsn(path, pragmas string) string {
	u := url.URL{Path: path}
	return "file:" + u.EscapedPath() + "?_pragma=busy_timeout(10000)" + pragmas
}

// The name that a history gets which is no longer used, and the mark that a running process leaves
// when it finds damage.
const (
	asideSuffix = ".damaged"
	markSuffix  = ".is-damaged"
)

// setAside moves a history out of the way. Only the last damaged one is kept. The mark stays until
// all is done: a new file must not meet the log of the old one when this is interrupted.
func setAside(path string, log *slog.Logger, why error) error {
	log.Warn("history is rebuilt from the event stream", "path", path, "err", why)
	if err := os.WriteFile(path+markSuffix, nil, 0o600); err != nil {
		return fmt.Errorf("set history aside: %w", err)
	}
	move := func() error { return os.Rename(path, path+asideSuffix) }
	if errors.Is(why, errVersion) {
		move = func() error { return os.Remove(path) }
	}
	if err := move(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set history aside: %w", err)
	}
	for _, suffix := range []string{"-wal", "-shm", markSuffix} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set history aside: %w", err)
		}
	}
	return nil
}

// errDamaged means that a row can't be decoded.
var errDamaged = errors.New("a row is damaged")

// Result codes of SQLite, https://sqlite.org/rescode.html.
const (
	codeIO      = 10
	codeCorrupt = 11
	codeFull    = 13
	codeNotADB  = 26
)

// IsDamage reports whether the error means that the content of the file is wrong: only a new start,
// which folds the history again, helps.
func IsDamage(err error) bool {
	var e *sqlite.Error
	if errors.As(err, &e) {
		code := e.Code() & 0xff
		return code == codeCorrupt || code == codeNotADB
	}
	return errors.Is(err, errDamaged)
}

// IsFull reports whether the error means that there was no room, or that the disk could not be
// written for now.
func IsFull(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff
	return code == codeFull || code == codeIO
}

// markDamage returns the error; on damage it leaves a mark that makes the next Open fold the
// history again.
func (x *index) markDamage(err error) error {
	if !IsDamage(err) {
		return err
	}
	if f, merr := os.OpenFile(x.path+markSuffix, os.O_CREATE|os.O_WRONLY, 0o600); merr == nil {
		f.Close()
	}
	return fmt.Errorf("history is damaged and is rebuilt at the next start: %w", err)
}

// load loads what is kept in memory.
func (x *index) load() error {
	applied, err := x.w.integer("SELECT applied FROM meta")
	if err != nil {
		return fmt.Errorf("load applied sequence: %w", err)
	}
	nodes, numbers, err := loadNodes(x.w)
	if err != nil {
		return fmt.Errorf("load nodes: %w", err)
	}
	sweeps, err := x.w.sweeps()
	if err != nil {
		return fmt.Errorf("load sweeps: %w", err)
	}
	if err := loadCauses(x.w, sweeps); err != nil {
		return fmt.Errorf("load causes: %w", err)
	}
	if err := loadOverlays(x.w, sweeps); err != nil {
		return fmt.Errorf("load overlays: %w", err)
	}
	origin, err := x.w.origin()
	if err != nil {
		return fmt.Errorf("load stream origin: %w", err)
	}
	x.mu.Lock()
	x.applied, x.nodes, x.numbers, x.sweeps, x.origin = uint64(applied), nodes, numbers, sweeps, origin
	x.mu.Unlock()
	if err := x.rebuildBlocks(sweeps); err != nil {
		return fmt.Errorf("load blocks: %w", err)
	}
	x.columns.clear()
	x.orders.clear()
	x.stale = false
	return nil
}

// reload resets what is kept in memory to what the file says, after a transaction that failed. If
// that fails now, the next fold does it.
func (x *index) reload() {
	x.stale = true
	if err := x.load(); err != nil {
		x.log.Debug("load history again", "err", err)
	}
}

// Reset empties the history, for a fold from the start of the stream.
func (d *DB) Reset(ctx context.Context) error {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	err := d.w.transaction(func() error {
		return d.w.script(
			"DELETE FROM trial; DELETE FROM block; DELETE FROM piece; DELETE FROM stale; DELETE FROM cause;" +
				"DELETE FROM overlay; DELETE FROM attempt; DELETE FROM curve; DELETE FROM known; DELETE FROM sweep; DELETE FROM node; UPDATE meta SET applied = 0, stream = '', unread = 0;")
	})
	if err == nil {
		d.stale = true // until it is loaded
		err = d.load()
	}
	if err != nil {
		return fmt.Errorf("reset history: %w", d.markDamage(err))
	}
	return nil
}
