package hosts

// rule describes what a firewall drops: what one host sends to a port of another.
type rule struct {
	from, to int // to is anyHost for all others
	protocol byte
	port     uint16
}

const anyHost = -1

func (s *virtualSwitch) setRule(r rule, drop bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules[r] = drop
}

// dropsLocked reports whether a rule drops a frame from one host to the other.
func (s *virtualSwitch) dropsLocked(from, to int, frame []byte) bool {
	protocol, port, ok := destination(frame)
	if !ok {
		return false
	}
	return s.rules[rule{from, to, protocol, port}] || s.rules[rule{from, anyHost, protocol, port}]
}
