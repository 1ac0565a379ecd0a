// Package parquet writes tables as Apache Parquet files, which pandas, Polars, DuckDB and R read
// with the types of their columns.
//
// A file has flat columns of four kinds, and any value may be missing. It consists of row groups of
// bounded size, so writing a table of any length takes little memory.
package parquet

import (
	"cmp"
	"errors"
	"io"
	"slices"

	"github.com/parquet-go/parquet-go"
)

// Kind is the type of a column's values.
type Kind int

// The kinds of columns. An Int can be stored as a Double, and both can be stored as a Text.
const (
	Int    Kind = iota // 64-bit integers
	Double             // 64-bit floats
	Text               // UTF-8
	Time               // microseconds since 1970, UTC
)

// Column is a column of a table. Columns of one table have different names.
type Column struct {
	Name string
	Kind Kind
}

// Value is a cell: the field that the kind of its column names. The zero value is a missing cell.
type Value struct {
	Valid  bool
	Int    int64 // for Int and Time
	Double float64
	Text   string
}

// Bounds of a row group.
const (
	groupRows  = 64 << 10
	groupBytes = 16 << 20
)

// Writer writes rows to a file. Its methods are not safe for concurrent use.
type Writer struct {
	w       *parquet.Writer
	columns []Column
	rows    int // in the current row group
	bytes   int // of the texts in the current row group
}

// NewWriter begins a file.
func NewWriter(w io.Writer, columns []Column) *Writer {
	group := parquet.Group{}
	for _, c := range columns {
		node := parquet.Leaf(parquet.Int64Type)
		switch c.Kind {
		case Double:
			node = parquet.Leaf(parquet.DoubleType)
		case Text:
			node = parquet.String()
		case Time:
			node = parquet.Timestamp(parquet.Microsecond)
		}
		group[c.Name] = parquet.Optional(node)
	}
	schema := parquet.NewSchema("trials", table{group, columns})
	return &Writer{w: parquet.NewWriter(w, schema, parquet.Compression(&parquet.Zstd),
		parquet.CreatedBy("mlfnode", "", "")), columns: columns}
}

// table is a group whose fields keep the order of the columns instead of being sorted by name.
type table struct {
	parquet.Group
	columns []Column
}

// Fields implements parquet.Node.
func (t table) Fields() []parquet.Field {
	fields := t.Group.Fields()
	place := make(map[string]int, len(t.columns))
	for i, c := range t.columns {
		place[c.Name] = i
	}
	slices.SortFunc(fields, func(a, b parquet.Field) int { return cmp.Compare(place[a.Name()], place[b.Name()]) })
	return fields
}

// Write adds a row, which has one value for each column.
func (p *Writer) Write(row []Value) error {
	if len(row) != len(p.columns) {
		return errors.New("write row: it has not as many values as there are columns")
	}
	out := make(parquet.Row, len(row))
	for i, v := range row {
		value, present := parquet.NullValue(), 0
		if v.Valid {
			present = 1
			switch p.columns[i].Kind {
			case Double:
				value = parquet.DoubleValue(v.Double)
			case Text:
				value = parquet.ByteArrayValue([]byte(v.Text))
			default:
				value = parquet.Int64Value(v.Int)
			}
		}
		out[i] = value.Level(0, present, i)
		p.bytes += len(v.Text)
	}
	if _, err := p.w.WriteRows([]parquet.Row{out}); err != nil {
		return err
	}
	if p.rows++; p.rows == groupRows || p.bytes >= groupBytes {
		p.rows, p.bytes = 0, 0
		return p.w.Flush()
	}
	return nil
}

// Close ends the file. It does not close the underlying writer.
func (p *Writer) Close() error { return p.w.Close() }
