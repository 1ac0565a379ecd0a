package history

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"modernc.org/sqlite"

	"mlfnode/grid"
)

// writer is the one connection that writes. It uses the driver without database/sql, whose checks
// would cost as much for each value as the insertion itself. It must be used by one goroutine at a
// time.
type writer struct {
	conn driver.Conn
	args []driver.NamedValue
	data []byte // of a chunk

	insert [len(insertRows)]driver.Stmt // rows of trials, which replace those that are there
	// rows of trials whose rows describe their only attempts so far, see earlierColumns
	again    [len(insertRows)]driver.Stmt
	prepared [statementCount]driver.Stmt
}

// statement identifies one of the writer's prepared statements.
type statement int

const (
	beginTx statement = iota
	commitTx
	rollbackTx
	setApplied // this one and those that follow need tables
	putSummary
	putKnown
	putAttempt
	putAttempts
	putBounds
	readChunk
	putChunk
	markStale
	markFresh
	putCause
	putCurve
	renameRun
	putSample
	deleteSample
	addNode
	findTrials
	findReopenable
	sumFailed
	putOverlay
	dropOverlay
	statementCount
)

// statements are the texts of the prepared statements.
var statements = [statementCount]string{
	beginTx:     "BEGIN IMMEDIATE",
	commitTx:    "COMMIT",
	rollbackTx:  "ROLLBACK",
	setApplied:  "UPDATE meta SET applied = ?",
	putSummary:  "INSERT OR REPLACE INTO sweep (number, id, summary) VALUES (?, ?, ?)",
	putKnown:    "INSERT OR REPLACE INTO known (id, bits) VALUES (?, ?)",
	putAttempt:  insertAttempt + attemptRow,
	putAttempts: insertAttempt + strings.Repeat(attemptRow+", ", attemptRows-1) + attemptRow,
	putBounds: "INSERT INTO block (id, value, lo, hi) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE" +
		" SET lo = min(lo, excluded.lo), hi = max(hi, excluded.hi) WHERE excluded.lo < lo OR excluded.hi > hi",
	readChunk:    "SELECT data FROM piece WHERE id = ?",
	putChunk:     "INSERT OR REPLACE INTO piece (id, data) VALUES (?, ?)",
	markStale:    "INSERT OR IGNORE INTO stale (block) VALUES (?)",
	markFresh:    "DELETE FROM stale WHERE block = ?",
	putCause:     "INSERT OR REPLACE INTO cause (id, class, signature, count, first, last, trial) VALUES (?, ?, ?, ?, ?, ?, ?)",
	putCurve:     "INSERT OR REPLACE INTO curve (trial, metric, run, data) VALUES (?, ?, ?, ?)",
	renameRun:    "UPDATE OR REPLACE curve SET run = ? WHERE trial = ? AND run = ?",
	putSample:    "INSERT OR REPLACE INTO sample (node, data) VALUES (?, ?)",
	deleteSample: "DELETE FROM sample WHERE node = ?",
	addNode:      "INSERT INTO node (number, name) VALUES (?, ?)",
	findTrials:   "SELECT " + readColumns + " FROM trial WHERE id BETWEEN ? AND ?",
	findReopenable: fmt.Sprintf("SELECT id, state, attempts, cpu, wall, CASE state WHEN %d THEN detail END ",
		stateCode(grid.Cancelled)) + coveredSQL,
	sumFailed: fmt.Sprintf("SELECT count(*), min(attempts), max(attempts), sum(cpu), sum(wall) FROM trial"+
		" WHERE id BETWEEN ? AND ? AND +state = %d AND reopened <> ?", stateCode(grid.Failed)),
	putOverlay:  "INSERT OR REPLACE INTO overlay (first, last, time, attempts) VALUES (?, ?, ?, ?)",
	dropOverlay: "DELETE FROM overlay WHERE first BETWEEN ? AND ?",
}

// attemptRows is how many attempts one statement stores.
const (
	attemptRows    = 32
	attemptColumns = 7
	attemptRow     = "(?, ?, ?, ?, ?, ?, ?)"
	insertAttempt  = "INSERT OR REPLACE INTO attempt (trial, run, number, node, outcome, ended, result) VALUES "
)

// insertRows are how many trials one statement stores, widest first.
var insertRows = [...]int{64, 8, 1}

// trialColumns are the columns of a trial's row that describe its current attempt, and
// readColumns those that are read of it.
const (
	trialColumns = "id, state, attempts, started, ended, wall, cpu, memory, objective, metrics, detail, reopened"
	readColumns  = trialColumns + ", earlier_detail"

	trialColumnCount = 12
	readColumnCount  = trialColumnCount + 1
)

func openWriter(dsn string) (*writer, error) {
	conn, err := (&sqlite.Driver{}).Open(dsn)
	if err != nil {
		return nil, err
	}
	w := &writer{conn: conn}
	for id := beginTx; id < setApplied; id++ {
		if w.prepared[id], err = conn.Prepare(statements[id]); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return w, nil
}

// prepare prepares the statements of the fold, once there are tables.
func (w *writer) prepare() (err error) {
	if w.prepared[findTrials] != nil {
		return nil
	}
	row := "(" + strings.Repeat("?, ", trialColumnCount-1) + "?)"
	for i, n := range insertRows {
		values := " INTO trial (" + trialColumns + ") VALUES " + strings.Repeat(row+", ", n-1) + row
		if w.insert[i], err = w.conn.Prepare("INSERT OR REPLACE" + values); err != nil {
			return fmt.Errorf("prepare insertion of %d trials: %w", n, err)
		}
		if w.again[i], err = w.conn.Prepare("INSERT" + values + keepEarlier); err != nil {
			return fmt.Errorf("prepare update of %d trials: %w", n, err)
		}
	}
	for id := setApplied; id < statementCount; id++ {
		if w.prepared[id], err = w.conn.Prepare(statements[id]); err != nil {
			return fmt.Errorf("prepare %.40s: %w", statements[id], err)
		}
	}
	return nil
}

func (w *writer) close() error {
	var errs []error
	for _, s := range slices.Concat(w.insert[:], w.again[:], w.prepared[:]) {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// transaction runs fn and commits, or rolls everything back when something goes wrong. A context
// does not cancel it: it is short, and half of it is of no use.
func (w *writer) transaction(fn func() error) error {
	if err := w.run(beginTx); err != nil {
		return err
	}
	err := fn()
	if err == nil {
		err = w.run(commitTx)
	}
	if err != nil {
		// Some failures end the transaction by themselves, and then there is nothing to roll back.
		// So fn must run no statement after one that failed: it would be committed alone.
		_ = w.run(rollbackTx)
	}
	return err
}

// run runs a prepared statement.
func (w *writer) run(id statement, args ...driver.Value) error {
	return w.exec(w.prepared[id], args...)
}

// exec runs a statement. A context that never ends costs the driver no goroutine.
func (w *writer) exec(stmt driver.Stmt, args ...driver.Value) error {
	_, err := stmt.(driver.StmtExecContext).ExecContext(context.Background(), w.named(args))
	return err
}

func (w *writer) named(args []driver.Value) []driver.NamedValue {
	for len(w.args) < len(args) {
		w.args = append(w.args, driver.NamedValue{Ordinal: len(w.args) + 1})
	}
	for i, v := range args {
		w.args[i].Value = v
	}
	return w.args[:len(args)]
}

// script runs several statements.
func (w *writer) script(text string) error {
	_, err := w.conn.(driver.ExecerContext).ExecContext(context.Background(), text, nil)
	return err
}

// each calls fn with every row of a query.
func (w *writer) each(text string, fn func([]driver.Value) error, args ...driver.Value) error {
	rows, err := w.conn.(driver.QueryerContext).QueryContext(context.Background(), text, w.named(args))
	if err != nil {
		return err
	}
	return eachRow(rows, fn)
}

// query runs a prepared statement; the rows must be read to their end.
func (w *writer) query(id statement, args ...driver.Value) (driver.Rows, error) {
	return w.prepared[id].(driver.StmtQueryContext).QueryContext(context.Background(), w.named(args))
}

func eachRow(rows driver.Rows, fn func([]driver.Value) error) error {
	defer rows.Close()
	dest := make([]driver.Value, len(rows.Columns()))
	for {
		err := rows.Next(dest)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = fn(dest)
		}
		if err != nil {
			return err
		}
	}
}

func (w *writer) integer(text string, args ...driver.Value) (n int64, err error) {
	found := false
	err = w.each(text, func(v []driver.Value) error {
		n, found = v[0].(int64)
		return nil
	}, args...)
	if err == nil && !found {
		err = errDamaged
	}
	return n, err
}

func loadNodes(w *writer) ([]grid.NodeID, map[grid.NodeID]int64, error) {
	var names []grid.NodeID
	numbers := map[grid.NodeID]int64{}
	err := w.each("SELECT number, name FROM node ORDER BY number", func(v []driver.Value) error {
		name, ok := v[1].(string)
		if !ok || v[0] != int64(len(names)+1) {
			return errDamaged
		}
		names = append(names, grid.NodeID(name))
		numbers[grid.NodeID(name)] = int64(len(names))
		return nil
	})
	return names, numbers, err
}
