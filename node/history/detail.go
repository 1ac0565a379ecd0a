package history

import (
	"encoding/binary"
	"slices"

	"mlfnode/grid"
)

// A trial's detail is what no listing sorts by, packed. Numbers are varints; text is its length,
// then its bytes.
//
//	parts  node  attempt  run
//	[log: first, last - first, bytes, cut]          with partLog
//	[files: count, bytes]                           with partFiles
//	[failure: class, exit code, reason]             with partFailure
//	[floor, n, n × (class, failures), n, n × run]   with partPast
//	[told, retried]                                 with partTold
//	[n, n × (run, attempt, class)]                  with partAway
//	[rule, device, n, n × device, n, n × (device, peak, busy)] with partCause
//	[left]                                          if it is not 0
const (
	partDone    = 1 << iota // Runs is exactly Run
	partLog                 // there is output
	partFiles               // there are artifacts
	partFailure             // Result is not a plain success
	partEarlier             // there were other attempts
	partTold                // metrics came while it ran, or it was reopened
	partAway                // runs are on nodes that are not heard from
	partCause               // a rule decided the class, or it had devices
)

func packDetail(b []byte, t *grid.Trial, node int64) []byte {
	r := &t.Result
	var parts byte
	if len(t.Runs) == 1 && t.Runs[0] == t.Run {
		parts |= partDone
	}
	if r.Log != (grid.LogRef{}) {
		parts |= partLog
	}
	if r.Files != (grid.FilesRef{}) {
		parts |= partFiles
	}
	if r.Class != "" || r.ExitCode != 0 || r.Reason != "" {
		parts |= partFailure
	}
	if t.Floor != 0 || len(t.Failures) > 0 || (len(t.Runs) > 0 && parts&partDone == 0) {
		parts |= partEarlier
	}
	if t.MetricsTime != 0 || t.Retried != 0 {
		parts |= partTold
	}
	if len(t.Away) > 0 {
		parts |= partAway
	}
	if r.Rule != "" || r.Device != "" || len(r.Devices) > 0 || len(r.Usage.GPU) > 0 {
		parts |= partCause
	}
	b = packNumbers(append(b, parts), node, int64(t.Attempt))
	b = packText(b, t.Run)
	if parts&partLog != 0 {
		b = packNumbers(b, int64(r.Log.First), int64(r.Log.Last-r.Log.First), r.Log.Bytes, r.Log.Cut)
	}
	if parts&partFiles != 0 {
		b = packNumbers(b, int64(r.Files.Count), r.Files.Bytes)
	}
	if parts&partFailure != 0 {
		b = packText(packNumbers(packText(b, string(r.Class)), int64(r.ExitCode)), r.Reason)
	}
	if parts&partEarlier != 0 {
		b = packEarlier(b, t, parts)
	}
	if parts&partTold != 0 {
		b = packNumbers(b, t.MetricsTime, t.Retried)
	}
	if parts&partAway != 0 {
		b = packNumbers(b, int64(len(t.Away)))
		for _, a := range t.Away {
			b = packText(packNumbers(packText(b, a.Run), int64(a.Attempt)), string(a.Class))
		}
	}
	if parts&partCause != 0 {
		b = packNumbers(packText(packText(b, r.Rule), r.Device), int64(len(r.Devices)))
		for _, uuid := range r.Devices {
			b = packText(b, uuid)
		}
		b = packNumbers(b, int64(len(r.Usage.GPU)))
		for _, u := range r.Usage.GPU {
			b = packNumbers(packText(b, u.UUID), u.Peak, int64(u.Busy))
		}
	}
	if r.Left != 0 {
		b = packNumbers(b, int64(r.Left))
	}
	return b
}

func packEarlier(b []byte, t *grid.Trial, parts byte) []byte {
	b = packNumbers(b, int64(t.Floor), int64(len(t.Failures)))
	classes := make([]grid.Class, 0, len(t.Failures))
	for class := range t.Failures {
		classes = append(classes, class)
	}
	slices.Sort(classes)
	for _, class := range classes {
		b = packNumbers(packText(b, string(class)), int64(t.Failures[class]))
	}
	runs := t.Runs
	if parts&partDone != 0 {
		runs = nil
	}
	b = packNumbers(b, int64(len(runs)))
	for _, run := range runs {
		b = packText(b, run)
	}
	return b
}

func packNumbers(b []byte, numbers ...int64) []byte {
	for _, n := range numbers {
		b = binary.AppendVarint(b, n)
	}
	return b
}

func packText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// unpackDetail decodes what packDetail has encoded, and returns the number of the node.
func unpackDetail(b []byte, t *grid.Trial) (node int64, err error) {
	p := unpacker{rest: b}
	parts, r := p.readByte(), &t.Result
	node, t.Attempt = p.readNumber(), int(p.readNumber())
	t.Run = p.readText()
	if parts&partDone != 0 {
		t.Runs = []string{t.Run}
	}
	if parts&partLog != 0 {
		r.Log.First = uint64(p.readNumber())
		r.Log.Last = r.Log.First + uint64(p.readNumber())
		r.Log.Bytes, r.Log.Cut = p.readNumber(), p.readNumber()
	}
	if parts&partFiles != 0 {
		r.Files = grid.FilesRef{Count: int(p.readNumber()), Bytes: p.readNumber()}
	}
	if parts&partFailure != 0 {
		r.Class, r.ExitCode, r.Reason = grid.Class(p.readText()), int(p.readNumber()), p.readText()
	}
	if parts&partEarlier != 0 {
		p.unpackEarlier(t)
	}
	if parts&partTold != 0 {
		t.MetricsTime, t.Retried = p.readNumber(), p.readNumber()
	}
	if parts&partAway != 0 {
		for range p.readLength() {
			t.Away = append(t.Away, grid.AwayRun{Run: p.readText(), Attempt: int(p.readNumber()),
				Class: grid.Class(p.readText())})
		}
	}
	if parts&partCause != 0 {
		r.Rule, r.Device = p.readText(), p.readText()
		for range p.readLength() {
			r.Devices = append(r.Devices, p.readText())
		}
		for range p.readLength() {
			r.Usage.GPU = append(r.Usage.GPU,
				grid.DeviceUse{UUID: p.readText(), Peak: p.readNumber(), Busy: int(p.readNumber())})
		}
	}
	if !p.bad && len(p.rest) > 0 {
		r.Left = int(p.readNumber())
	}
	if p.bad || len(p.rest) > 0 {
		return 0, errDamaged
	}
	return node, nil
}

// unpacker reads a detail. Once something does not fit, it is bad and returns zeros.
type unpacker struct {
	rest []byte
	bad  bool
}

func (p *unpacker) unpackEarlier(t *grid.Trial) {
	t.Floor = int(p.readNumber())
	if n := p.readLength(); n > 0 {
		t.Failures = make(map[grid.Class]int, n)
		for range n {
			class := grid.Class(p.readText())
			t.Failures[class] = int(p.readNumber())
		}
	}
	for range p.readLength() {
		t.Runs = append(t.Runs, p.readText())
	}
}

func (p *unpacker) readByte() byte {
	if len(p.rest) == 0 {
		p.bad = true
		return 0
	}
	b := p.rest[0]
	p.rest = p.rest[1:]
	return b
}

func (p *unpacker) readNumber() int64 {
	n, size := binary.Varint(p.rest)
	if size <= 0 {
		p.bad, p.rest = true, nil
		return 0
	}
	p.rest = p.rest[size:]
	return n
}

// readLength reads how many items follow; each takes a byte at least.
func (p *unpacker) readLength() int64 {
	n := p.readNumber()
	if n < 0 || n > int64(len(p.rest)) {
		p.bad, p.rest = true, nil
		return 0
	}
	return n
}

func (p *unpacker) readText() string {
	n, size := binary.Uvarint(p.rest)
	if size <= 0 || n > uint64(len(p.rest)-size) {
		p.bad, p.rest = true, nil
		return ""
	}
	s := string(p.rest[size : size+int(n)])
	p.rest = p.rest[size+int(n):]
	return s
}
