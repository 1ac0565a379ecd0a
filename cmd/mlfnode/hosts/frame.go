package hosts

import "encoding/binary"

// What a switch has to know of a frame:
//
//	0        6        12     14               23
//	to (6)   from (6) type   IPv4 header …    protocol
const (
	headerLen = 14

	typeOffset     = 12
	protocolOffset = headerLen + 9
	typeIPv4       = 0x0800
	protocolUDP    = 17
)

// isFor reports whether a frame is for a host: to its own address, or to all.
func isFor(frame []byte, number int) bool {
	return frame[0]&1 != 0 || [6]byte(frame[:6]) == [6]byte(macOf(number))
}

func isUDP(frame []byte) bool {
	return binary.BigEndian.Uint16(frame[typeOffset:]) == typeIPv4 && len(frame) > protocolOffset && frame[protocolOffset] == protocolUDP
}
