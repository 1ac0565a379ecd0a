package api

// SeenOutput drops output that has been delivered before. Output repeats after a node dies, since
// the next node stores the whole output of the lost attempts again, and after a client reconnects,
// since it reads the last message twice. The zero value has seen nothing.
type SeenOutput struct {
	next map[streamKey]int64
}

type streamKey struct{ run, name string }

// seenLimit bounds the memory of SeenOutput. The worst effect of forgetting is that output is shown
// twice.
const seenLimit = 1 << 14

// Fresh removes what has already been seen, and reports whether anything is left.
func (s *SeenOutput) Fresh(o *Output) bool {
	key := streamKey{o.Run, o.Stream}
	next := s.next[key]
	end := o.Offset + int64(len(o.Data))
	if end <= next {
		return false
	}
	if o.Offset < next {
		o.Data = o.Data[next-o.Offset:]
		o.Offset = next
	}
	if s.next == nil || len(s.next) >= seenLimit {
		s.next = map[streamKey]int64{}
	}
	s.next[key] = end
	return true
}
