package parquet

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	reader "github.com/parquet-go/parquet-go"
	"pgregory.net/rapid"
)

// read returns the columns and the rows of a file. Missing values are zero.
func read(t rapid.TB, file []byte) (columns []Column, rows [][]Value) {
	t.Helper()
	f, err := reader.OpenFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	for _, c := range f.Root().Columns() {
		kind, ok := map[string]Kind{"INT(64,true)": Int, "DOUBLE": Double, "STRING": Text,
			"TIMESTAMP(isAdjustedToUTC=true,unit=MICROS)": Time}[c.Type().String()]
		if !ok {
			t.Fatalf("the column %q has the type %v", c.Name(), c.Type())
		}
		columns = append(columns, Column{c.Name(), kind})
	}
	in := reader.NewReader(f)
	defer in.Close()
	for buffer := make([]reader.Row, 1000); ; {
		n, err := in.ReadRows(buffer)
		for _, row := range buffer[:n] {
			values := make([]Value, len(columns))
			for _, v := range row {
				if v.IsNull() {
					continue
				}
				got := Value{Valid: true}
				switch columns[v.Column()].Kind {
				case Double:
					got.Double = v.Double()
				case Text:
					got.Text = string(v.ByteArray())
				default:
					got.Int = v.Int64()
				}
				values[v.Column()] = got
			}
			rows = append(rows, values)
		}
		if errors.Is(err, io.EOF) {
			return columns, rows
		}
		if err != nil {
			t.Fatalf("read rows: %v", err)
		}
	}
}

func written(t rapid.TB, columns []Column, rows [][]Value) []byte {
	t.Helper()
	var file bytes.Buffer
	w := NewWriter(&file, columns)
	for _, row := range rows {
		if err := w.Write(row); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func same(a, b Value) bool {
	if math.IsNaN(a.Double) && math.IsNaN(b.Double) {
		a.Double, b.Double = 0, 0
	}
	return a == b
}

// TestTables writes tables of any shape and reads the same tables back.
func TestTables(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kinds := rapid.SliceOfN(rapid.IntRange(0, int(Time)), 1, 40).Draw(t, "kinds")
		columns := make([]Column, len(kinds))
		for i, k := range kinds {
			columns[i] = Column{strings.Repeat("ü", i%3) + string(rune('A'+i)), Kind(k)}
		}
		rows := make([][]Value, rapid.IntRange(0, 40).Draw(t, "rows"))
		for r := range rows {
			for _, c := range columns {
				v := Value{Valid: rapid.Bool().Draw(t, "valid")}
				switch {
				case !v.Valid:
				case c.Kind == Double:
					v.Double = rapid.Float64().Draw(t, "double")
				case c.Kind == Text:
					v.Text = rapid.String().Draw(t, "text")
				default:
					v.Int = rapid.Int64().Draw(t, "int")
				}
				rows[r] = append(rows[r], v)
			}
		}
		gotColumns, got := read(t, written(t, columns, rows))
		if len(gotColumns) != len(columns) || len(got) != len(rows) {
			t.Fatalf("got %d columns and %d rows, want %d and %d", len(gotColumns), len(got), len(columns), len(rows))
		}
		for i := range columns {
			if gotColumns[i] != columns[i] {
				t.Fatalf("column %d: got %v, want %v", i, gotColumns[i], columns[i])
			}
			for r := range rows {
				if !same(got[r][i], rows[r][i]) {
					t.Fatalf("row %d, %s: got %v, want %v", r, columns[i].Name, got[r][i], rows[r][i])
				}
			}
		}
	})
}

// TestLongTables writes tables that need several row groups: because of their number of rows, and
// because of their bytes.
func TestLongTables(t *testing.T) {
	for name, text := range map[string]string{"rows": "x", "bytes": strings.Repeat("long ", 2000)} {
		t.Run(name, func(t *testing.T) {
			rows := make([][]Value, 2*groupRows+3)
			if name == "bytes" {
				rows = rows[:2*groupBytes/len(text)+3]
			}
			for i := range rows {
				rows[i] = []Value{{Valid: true, Int: int64(i)}, {Valid: i%3 == 0, Text: text}}
				if i%3 != 0 {
					rows[i][1].Text = ""
				}
			}
			_, got := read(t, written(t, []Column{{"i", Int}, {"text", Text}}, rows))
			if len(got) != len(rows) {
				t.Fatalf("got %d rows, want %d", len(got), len(rows))
			}
			for i := range rows {
				if got[i][0] != rows[i][0] || got[i][1] != rows[i][1] {
					t.Fatalf("row %d: got %.80v, want %.80v", i, got[i], rows[i])
				}
			}
		})
	}
}

// full is a disk that is full after this many bytes.
type full int

func (f *full) Write(p []byte) (int, error) {
	if *f -= full(len(p)); *f < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// TestFullDisk checks that the writer returns the file's error.
func TestFullDisk(t *testing.T) {
	for room := range full(600) {
		disk := room
		w := NewWriter(&disk, []Column{{"i", Int}})
		err := errors.Join(w.Write([]Value{{Valid: true, Int: 1}}), w.Close())
		if need := full(len(written(t, []Column{{"i", Int}},
			[][]Value{{{Valid: true, Int: 1}}}))); (err == nil) != (room >= need) {
			t.Fatalf("room for %d of %d bytes: %v", room, need, err)
		}
	}
}
