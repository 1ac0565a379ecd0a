package space

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"mlfnode/grid/problem"
	"mlfnode/grid/yamlfile"
)

// table is a list of points during parsing, with its columns in the order of their first
// occurrence.
type table struct {
	keys    []string
	columns [][]Value
	rows    int
}

// tableReader returns the parser for a list of points, by the file's name, or nil for other files.
func tableReader(name string) func(t *table, data []byte) (line int, f *problem.Error) {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".csv":
		return func(t *table, data []byte) (int, *problem.Error) { return t.readCSV(data, ',') }
	case ".tsv":
		return func(t *table, data []byte) (int, *problem.Error) { return t.readCSV(data, '\t') }
	case ".jsonl", ".ndjson":
		return (*table).readLines
	}
	return nil
}

// parseTable parses a list of points: CSV whose first line names the parameters, or one JSON object
// per line. Values are the same as in a parameters file; an empty cell, null, or a parameter that
// an object lacks leaves out the option. A file has at most MaxFile bytes and MaxRows points.
func parseTable(name string, data []byte, read func(t *table, data []byte) (int, *problem.Error)) ([]Axis, error) {
	inFile := func(line int, f *problem.Error) error {
		return problem.List{{File: name, Line: line, Col: 1, Msg: f.Msg, Hint: f.Hint}}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(data) > yamlfile.MaxFile {
		return nil, inFile(1, yamlfile.TooLong("Split it into several sweeps."))
	}
	if !utf8.Valid(data) {
		line, _ := yamlfile.InvalidUTF8(data)
		return nil, inFile(line, problem.Errorf("Save it as UTF-8.", "the file is not valid UTF-8"))
	}
	t := &table{}
	if line, f := read(t, data); f != nil {
		return nil, inFile(line, f)
	}
	if t.rows == 0 {
		const hint = "Write a point on each line, in CSV below a line with the names of the parameters."
		return nil, inFile(1, problem.Errorf(hint, "the file has no points"))
	}
	a := Axis{Zip: make([]Axis, len(t.keys))}
	for c, key := range t.keys {
		a.Zip[c] = Axis{Key: key, Values: t.columns[c]}
	}
	a = a.unzipped()
	if f := a.check(); f != nil {
		return nil, inFile(1, f)
	}
	return []Axis{a}, nil
}

// set stores a value in the last row.
func (t *table) set(key string, v Value) *problem.Error {
	c := slices.Index(t.keys, key)
	if c < 0 {
		if len(t.keys) == maxAxes {
			return problem.Errorf("Put them into a file of the project.", "a point has more than %d parameters",
				maxAxes)
		}
		c = len(t.keys)
		t.keys, t.columns = append(t.keys, key), append(t.columns, nil)
		if f := t.checkCells(); f != nil {
			return f
		}
	}
	if len(t.columns[c]) == t.rows {
		return problem.Errorf("Keep one of them.", "a point has %s twice", key)
	}
	t.columns[c] = append(t.filled(c, t.rows-1), v)
	return nil
}

// filled returns a column with at least n values: those that it lacks leave out the option.
func (t *table) filled(c, n int) []Value {
	for len(t.columns[c]) < n {
		t.columns[c] = append(t.columns[c], canonical(Value{Kind: False}))
	}
	return t.columns[c]
}

// next begins a row.
func (t *table) next() *problem.Error {
	if t.rows++; t.rows > MaxRows {
		return problem.Errorf("Use a grid, or several sweeps.", "the file has more than %d points", MaxRows)
	}
	return t.checkCells()
}

// checkCells bounds the table before columns are padded: a short file can expand to a large table.
func (t *table) checkCells() *problem.Error {
	if t.rows*len(t.keys) > maxCells {
		return tooManyCells()
	}
	return nil
}

func (t *table) readCSV(data []byte, comma rune) (int, *problem.Error) {
	r := csv.NewReader(bytes.NewReader(data))
	r.Comma, r.TrimLeadingSpace, r.ReuseRecord = comma, comma == ',', true // a leading tab means an empty cell
	for {
		record, err := r.Read()
		var syntax *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return 0, nil
		case errors.As(err, &syntax) && errors.Is(err, csv.ErrFieldCount):
			return syntax.Line, problem.Errorf(
				"Give each line as many cells as the first one, which names the parameters.",
				"the line has %d cells, and there are %d parameters", len(record), len(t.keys))
		case errors.As(err, &syntax):
			return syntax.Line, problem.Errorf("Put quotes around the whole cell, and double those in it.",
				"invalid CSV: %v", syntax.Err)
		case err != nil:
			return 1, problem.Errorf("", "the file can't be read: %v", err)
		}
		line, _ := r.FieldPos(0)
		if t.keys == nil {
			for _, key := range record {
				if key = strings.TrimSpace(key); slices.Contains(t.keys, key) {
					return line, problem.Errorf("Keep one of them.", "the first line names %s twice", key)
				}
				t.keys = append(t.keys, key)
			}
			t.columns = make([][]Value, len(t.keys))
			continue
		}
		if f := t.next(); f != nil {
			return line, f
		}
		for c, cell := range record {
			v := plainValue(strings.TrimSpace(cell))
			if v.Text == "" {
				v = canonical(Value{Kind: False})
			}
			t.columns[c] = append(t.columns[c], v)
		}
	}
}

func (t *table) readLines(data []byte) (int, *problem.Error) {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		if f := t.next(); f != nil {
			return line, f
		}
		if f := t.readObject(text); f != nil {
			return line, f
		}
	}
	for c := range t.columns {
		t.columns[c] = t.filled(c, t.rows)
	}
	return 0, nil
}

func (t *table) readObject(text []byte) *problem.Error {
	broken := func(err error) *problem.Error {
		return problem.Errorf(`Write an object like {"lr": 0.1, "opt": "sgd"} on each line.`, "invalid point: %v", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return broken(fmt.Errorf("the line is not an object"))
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return broken(err)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return broken(err)
		}
		v := canonical(Value{Kind: False})
		if string(raw) != "null" {
			if err := v.UnmarshalJSON(raw); err != nil {
				return broken(err)
			}
		}
		if f := t.set(key.(string), v); f != nil {
			return f
		}
	}
	if _, err := dec.Token(); err != nil {
		return broken(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return broken(fmt.Errorf("text follows the object"))
	}
	return nil
}
