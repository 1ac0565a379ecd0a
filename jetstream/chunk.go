package jetstream

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Chunk is a piece of one run's output.
type Chunk struct {
	Index  int64
	Run    string
	Stream uint8 // 1 is stdout, 2 is stderr, 3 is what the setup step prints
	Offset int64 // in the run's stream, bytes
	Time   int64 // when it was read, microseconds since 1970
	Data   []byte
}

// A message of the log stream is a version byte followed by chunks:
//
//	flags     1 byte: bit 0: stderr; bit 1: same index and run as the chunk before, omitted; bit 2: setup
//	index     varint
//	run       uvarint length, bytes
//	offset    varint
//	time      varint, less the time of the chunk before
//	data      uvarint length, bytes
const (
	chunkVersion = 1

	flagStderr = 1 << 0
	flagSame   = 1 << 1
	flagSetup  = 1 << 2
	flagsKnown = flagStderr | flagSame | flagSetup
)

var errCorrupt = errors.New("the message is truncated or corrupt")

// appendChunk appends a chunk to a message; prev is the previous chunk, nil for the first.
func appendChunk(b []byte, c, prev *Chunk) []byte {
	var flags byte
	switch c.Stream {
	case 2:
		flags |= flagStderr
	case 3:
		flags |= flagSetup
	}
	var before int64
	if prev != nil {
		before = prev.Time
		if prev.Index == c.Index && prev.Run == c.Run {
			flags |= flagSame
		}
	}
	b = append(b, flags)
	if flags&flagSame == 0 {
		b = binary.AppendVarint(b, c.Index)
		b = binary.AppendUvarint(b, uint64(len(c.Run)))
		b = append(b, c.Run...)
	}
	b = binary.AppendVarint(b, c.Offset)
	b = binary.AppendVarint(b, c.Time-before)
	b = binary.AppendUvarint(b, uint64(len(c.Data)))
	return append(b, c.Data...)
}

// decodeChunks is the inverse of packing. The data of the chunks points into b.
func decodeChunks(b []byte) ([]Chunk, error) {
	if len(b) == 0 {
		return nil, errCorrupt
	}
	if b[0] != chunkVersion {
		return nil, fmt.Errorf("unknown version %d", b[0])
	}
	d := decoder{b: b[1:]}
	var chunks []Chunk
	for len(d.b) > 0 && !d.failed {
		var prev Chunk
		if len(chunks) > 0 {
			prev = chunks[len(chunks)-1]
		}
		chunks = append(chunks, d.chunk(prev))
	}
	if d.failed {
		return nil, errCorrupt
	}
	return chunks, nil
}

// decoder reads fields. Once failed is set, it returns zero values.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) chunk(prev Chunk) Chunk {
	flags := d.next(1)
	if d.failed || flags[0] > flagsKnown {
		d.failed = true
		return Chunk{}
	}
	c := Chunk{Stream: 1 + flags[0]&flagStderr + flags[0]&flagSetup>>1, Index: prev.Index, Run: prev.Run}
	if flags[0]&flagSame == 0 {
		c.Index = d.varint()
		c.Run = string(d.bytes())
	}
	c.Offset = d.varint()
	c.Time = prev.Time + d.varint()
	c.Data = d.bytes()
	return c
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.advance(n)
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	d.advance(n)
	return v
}

func (d *decoder) bytes() []byte {
	v := d.uvarint()
	if v > uint64(len(d.b)) {
		d.failed = true
		return nil
	}
	return d.next(int(v))
}

// advance skips an encoded number of n bytes; n is not positive if the number is truncated or too
// large.
func (d *decoder) advance(n int) {
	if n <= 0 {
		d.failed = true
		return
	}
	d.next(n)
}

// next removes and returns n bytes.
func (d *decoder) next(n int) []byte {
	if d.failed || n < 0 || n > len(d.b) {
		d.failed = true
		return nil
	}
	head := d.b[:n:n]
	d.b = d.b[n:]
	return head
}
