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
	protocolTCP    = 6
	protocolUDP    = 17
)

// isFor reports whether a frame is addressed to a host or broadcast.
func isFor(frame []byte, number int) bool {
	return frame[0]&1 != 0 || [6]byte(frame[:6]) == [6]byte(macOf(number))
}

func isUDP(frame []byte) bool {
	return binary.BigEndian.Uint16(frame[typeOffset:]) == typeIPv4 && len(frame) > protocolOffset &&
		frame[protocolOffset] == protocolUDP
}

// destination returns the port of a host to which an IPv4 packet goes. Later fragments, which do
// not name a port, are for none.
func destination(frame []byte) (protocol byte, port uint16, ok bool) {
	if binary.BigEndian.Uint16(frame[typeOffset:]) != typeIPv4 || len(frame) <= protocolOffset {
		return 0, 0, false
	}
	protocol = frame[protocolOffset]
	ports := headerLen + int(frame[headerLen]&0xf)*4
	fragment := binary.BigEndian.Uint16(frame[headerLen+6:]) & 0x1fff
	if protocol != protocolTCP && protocol != protocolUDP || fragment != 0 || len(frame) < ports+4 {
		return 0, 0, false
	}
	return protocol, binary.BigEndian.Uint16(frame[ports+2:]), true
}
