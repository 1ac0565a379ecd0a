package cluster

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
)

// The few bytes that go with the news that a node is alive:
//
//	format:1 ( tag:1 length:uvarint value )*
//
// Numbers are uvarints. Readers skip tags that they do not know, so a field can be added without a
// new format. Of a format that they do not know they read the version alone, which keeps its place
// for good. Fields are written in the order of their importance, and those that do not fit are left
// out; the reason is cut before.
const metaFormat = 1

const (
	tagVersion = iota + 1
	tagStarted
	tagFlags
	tagRoles
	tagAPIPort
	tagNATSPort
	tagProtocol
	tagSlots
	tagRunning
	tagGPUs
	tagCPUs // thousandths
	tagMemory
	tagReason
)

const (
	flagDrained = 1 << iota
	flagQuarantined
	flagLeaving // the node is about to leave
)

const (
	maxName    = 128 // bytes of a node's name: several must fit into one packet
	maxVersion = 64
	maxRoles   = 64
	maxReason  = 1024 // bytes that are kept at all
)

// encodeMeta writes at most limit bytes: memberlist panics on more than it offers.
func encodeMeta(s Self, started time.Time, leaving bool, limit int) []byte {
	w := metaWriter{buf: []byte{metaFormat}, limit: min(limit, memberlist.MetaMaxSize)}
	w.text(tagVersion, cut(s.Version, maxVersion))
	w.number(tagStarted, uint64(started.UnixMilli()))
	var flags uint64
	if s.Drained {
		flags |= flagDrained
	}
	if s.Quarantined {
		flags |= flagQuarantined
	}
	if leaving {
		flags |= flagLeaving
	}
	w.number(tagFlags, flags)
	roles := ""
	for _, r := range s.Roles { // those that fit
		if len(roles)+1+len(r) <= maxRoles && r != "" && !strings.Contains(string(r), ",") {
			roles += "," + string(r)
		}
	}
	w.text(tagRoles, strings.TrimPrefix(roles, ","))
	w.number(tagAPIPort, natural(s.APIPort))
	w.number(tagNATSPort, natural(s.NATSPort))
	w.number(tagProtocol, natural(s.Protocol))
	w.number(tagSlots, natural(s.Slots))
	w.number(tagRunning, natural(s.Running))
	w.number(tagGPUs, natural(s.GPUs))
	if s.CPUs > 0 && s.CPUs <= math.MaxInt32 {
		w.number(tagCPUs, uint64(math.Round(s.CPUs*1000)))
	}
	w.number(tagMemory, natural(s.Memory))
	w.text(tagReason, cut(s.Reason, w.limit-len(w.buf)-3))
	return w.buf
}

func natural[N int | int64](n N) uint64 { return uint64(max(n, 0)) }

// cut shortens a text to at most n bytes without breaking a character.
func cut(text string, n int) string {
	if n < 0 {
		return ""
	}
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

type metaWriter struct {
	buf   []byte
	limit int
}

// text writes a field that is not empty, if it fits.
func (w *metaWriter) text(tag byte, value string) {
	if value == "" {
		return
	}
	field := append(binary.AppendUvarint([]byte{tag}, uint64(len(value))), value...)
	if len(w.buf)+len(field) <= w.limit {
		w.buf = append(w.buf, field...)
	}
}

// number writes a field that is not zero, if it fits.
func (w *metaWriter) number(tag byte, value uint64) {
	if value != 0 {
		w.text(tag, string(binary.AppendUvarint(nil, value)))
	}
}

// decodeMeta reads what another node wrote, or anything else: what can't be read is left out.
func decodeMeta(buf []byte) (s Self, started time.Time, leaving bool) {
	if len(buf) == 0 {
		return s, started, leaving
	}
	format := buf[0]
	for buf = buf[1:]; len(buf) > 0; {
		tag := buf[0]
		size, n := binary.Uvarint(buf[1:])
		if n <= 0 || size > uint64(len(buf)-1-n) {
			return s, started, leaving
		}
		value := buf[1+n : 1+n+int(size)]
		buf = buf[1+n+int(size):]
		if format != metaFormat && tag != tagVersion {
			continue
		}
		number, _ := binary.Uvarint(value)
		small := int(min(number, math.MaxInt32))
		switch tag {
		case tagVersion:
			s.Version = printable(value, maxVersion)
		case tagStarted:
			started = time.UnixMilli(int64(min(number, 1<<48)))
		case tagFlags:
			s.Drained, s.Quarantined = number&flagDrained != 0, number&flagQuarantined != 0
			leaving = number&flagLeaving != 0
		case tagRoles:
			s.Roles = nil
			for r := range strings.SplitSeq(printable(value, maxRoles), ",") {
				if r != "" && !slices.Contains(s.Roles, grid.NodeRole(r)) {
					s.Roles = append(s.Roles, grid.NodeRole(r))
				}
			}
		case tagAPIPort:
			s.APIPort = port(number)
		case tagNATSPort:
			s.NATSPort = port(number)
		case tagProtocol:
			s.Protocol = small
		case tagSlots:
			s.Slots = small
		case tagRunning:
			s.Running = small
		case tagGPUs:
			s.GPUs = small
		case tagCPUs:
			s.CPUs = float64(small) / 1000
		case tagMemory:
			s.Memory = int64(min(number, math.MaxInt64))
		case tagReason:
			s.Reason = printable(value, memberlist.MetaMaxSize)
		}
	}
	return s, started, leaving
}

func port(n uint64) int {
	if n > math.MaxUint16 {
		return 0
	}
	return int(n)
}

// printable returns at most n bytes of a text with its control characters replaced, so that those
// of another node do not reach a terminal.
func printable(value []byte, n int) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, string(value))
	return cut(clean, n)
}
