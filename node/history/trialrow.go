package history

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"mlfnode/grid"
)

// indexBits is how many bits of a trial's row id are its index; the rest is the number of its
// sweep. Larger indexes are refused: leases are made in order of index, and nobody runs 4·10^12
// trials.
const indexBits = 42

const maxIndex = 1<<indexBits - 1

func rowID(sweep, index int64) int64 { return sweep<<indexBits | index }

// stateCode returns the number that stands for a state in the file, its place in grid.States.
func stateCode(s grid.State) int64 {
	return int64(max(0, slices.Index(grid.States[:], s)))
}

// rowValues appends the columns of a trial's row.
func (c *catalog) rowValues(dest []driver.Value, sweep int64, t *grid.Trial, metric string) ([]driver.Value, error) {
	metrics, err := packMetrics(t.Result.Metrics)
	if err != nil {
		return nil, fmt.Errorf("pack metrics of trial %d: %w", t.Index, err)
	}
	u := &t.Result.Usage
	return append(dest, rowID(sweep, t.Index), stateCode(t.State), int64(t.Attempts),
		t.Result.Started, t.Ended, u.Wall, u.CPU, u.Memory,
		objective(t.Result.Metrics, metric), metrics, packDetail(nil, t, c.numbers[t.Node]), t.Retried), nil
}

// decodeTrial is the inverse of rowValues: it returns the trial of the columns readColumns under an
// overlay.
func (c *catalog) decodeTrial(v []driver.Value, o *overlay) (grid.Trial, error) {
	var n [8]int64
	for i := range n {
		var ok bool
		if n[i], ok = v[i].(int64); !ok {
			return grid.Trial{}, errDamaged
		}
	}
	t := grid.Trial{Index: n[0] & maxIndex, Attempts: int(n[2]), Ended: n[4]}
	t.Result.Started, t.Result.Usage = n[3], grid.Usage{Wall: n[5], CPU: n[6], Memory: n[7]}
	detail, ok := v[10].([]byte)
	if n[1] < 0 || n[1] >= int64(len(grid.States)) || !ok {
		return t, fmt.Errorf("trial %d: %w", t.Index, errDamaged)
	}
	t.State = grid.States[n[1]]
	if text, ok := v[9].(string); ok {
		if err := json.Unmarshal([]byte(text), &t.Result.Metrics); err != nil {
			return t, fmt.Errorf("metrics of trial %d: %w: %w", t.Index, errDamaged, err)
		}
	}
	node, err := unpackDetail(detail, &t)
	if err != nil {
		return t, fmt.Errorf("trial %d: %w", t.Index, err)
	}
	t.Node = c.node(node)
	reopened, ok := v[11].(int64)
	if !ok {
		return t, fmt.Errorf("trial %d: %w", t.Index, errDamaged)
	}
	setReopened(&t, reopened)
	if earlier, ok := v[12].([]byte); ok {
		var first grid.Trial
		if _, err := unpackDetail(earlier, &first); err != nil {
			return t, fmt.Errorf("earlier attempt of trial %d: %w", t.Index, err)
		}
		t.Runs, t.MetricsTime = append(first.Runs, t.Runs...), first.MetricsTime
	}
	o.apply(&t, reopened)
	return t, nil
}

// setReopened applies the time of a reopening to a trial whose other columns are as they were
// before.
func setReopened(t *grid.Trial, reopened int64) {
	if reopened != 0 && reopened != t.Retried {
		t.Floor, t.Failures, t.Away, t.Retried = t.Attempts, nil, nil, reopened
	}
}

// objective returns the metric as a number, or nil when it is missing or not a number.
func objective(m grid.Metric, name string) driver.Value {
	raw, ok := m[name]
	if !ok || name == "" {
		return nil
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || raw[0] > '9' { // ParseFloat accepts more than JSON: Inf, NaN
		return nil
	}
	return f
}

// packMetrics writes a JSON object with sorted keys. Values keep their source text; one that is
// nested too deep is left out.
func packMetrics(m grid.Metric) (driver.Value, error) {
	if len(m) == 0 {
		return nil, nil
	}
	names := make([]string, 0, 8)
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	b := make([]byte, 0, 32*len(names))
	for i, name := range names {
		b = append(b, "{,"[min(i, 1)])
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		b = append(append(b, key...), ':')
		if value := m[name]; len(value) == 0 || isDeep(value) {
			b = append(b, "null"...)
		} else {
			b = append(b, value...)
		}
	}
	return string(append(b, '}')), nil
}

// maxDepth is how deep arrays and objects may be nested in a metric. This program's own workers
// send none; SQLite gives up at 1,000, and with it a listing that is sorted by a metric.
const maxDepth = 32

// isDeep reports whether a JSON value is nested more than maxDepth deep.
func isDeep(value []byte) bool {
	if len(value) <= maxDepth {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}
