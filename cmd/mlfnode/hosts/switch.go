package hosts

import (
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// LinkConditions determine what happens to the frames that a host sends. The zero value is a
// perfect link.
type LinkConditions struct {
	Loss      float64       // share of frames that are lost
	Duplicate float64       // share of frames that arrive twice
	Delay     time.Duration // how long each frame takes
	NoUDP     bool          // UDP is dropped, as by a strict firewall
}

// virtualSwitch is the switch between the hosts. It knows each host's hardware address, so it has
// nothing to learn.
type virtualSwitch struct {
	mu    sync.Mutex
	ports map[int]*port
	// conditions and cut survive a host's reboot, like everything that is not part of the host.
	conditions map[int]LinkConditions
	cut        map[[2]int]bool // frames from one to the other are lost
	down       map[int]bool
	rules      map[rule]bool // what a firewall drops
}

// port is the port of the switch that a host is connected to.
type port struct {
	tap  *os.File
	late chan queuedFrame
	done sync.WaitGroup
}

// queuedFrame is a frame in transit.
type queuedFrame struct {
	to    *port
	frame []byte
	due   time.Time
}

// mostLate bounds the frames of one host that are in transit; further ones are lost, as on a
// congested line.
const mostLate = 1 << 13

func newVirtualSwitch() *virtualSwitch {
	return &virtualSwitch{ports: map[int]*port{}, conditions: map[int]LinkConditions{}, cut: map[[2]int]bool{},
		down: map[int]bool{}, rules: map[rule]bool{}}
}

// macOf returns a locally administered address, see IEEE 802.
func macOf(number int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x77, 0, 0, byte(number >> 8), byte(number)}
}

func (s *virtualSwitch) plug(number int, tap *os.File) {
	p := &port{tap: tap, late: make(chan queuedFrame, mostLate)}
	s.mu.Lock()
	s.ports[number] = p
	s.mu.Unlock()
	p.done.Add(2)
	go s.forward(number, p)
	go p.deliver()
}

// unplug returns when no frame of the host is in transit any more.
func (s *virtualSwitch) unplug(number int) {
	s.mu.Lock()
	p := s.ports[number]
	delete(s.ports, number)
	s.mu.Unlock()
	if p == nil {
		return
	}
	_ = p.tap.Close() // this also removes the interface
	p.done.Wait()
}

func (s *virtualSwitch) close() {
	s.mu.Lock()
	numbers := make([]int, 0, len(s.ports))
	for n := range s.ports {
		numbers = append(numbers, n)
	}
	s.mu.Unlock()
	for _, n := range numbers {
		s.unplug(n)
	}
}

func (s *virtualSwitch) setConditions(number int, c LinkConditions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conditions[number] = c
}

func (s *virtualSwitch) setDown(number int, down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down[number] = down
}

func (s *virtualSwitch) setCut(from, to int, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut[[2]int{from, to}] = cut
}

// forward passes on what one host sends until its cable is unplugged.
func (s *virtualSwitch) forward(from int, p *port) {
	defer p.done.Done()
	defer close(p.late)
	buf := make([]byte, 1<<16)
	for {
		n, err := p.tap.Read(buf)
		if err != nil {
			return
		}
		if n < headerLen {
			continue
		}
		s.enqueue(from, p, buf[:n])
	}
}

func (s *virtualSwitch) enqueue(from int, p *port, frame []byte) {
	to, w := s.route(from, frame)
	for _, other := range to {
		for range copies(w) {
			if w.Delay == 0 {
				_, _ = other.tap.Write(frame) // a full queue loses frames
				continue
			}
			select {
			case p.late <- queuedFrame{to: other, frame: append([]byte(nil), frame...), due: time.Now().Add(w.Delay)}:
			default:
			}
		}
	}
}

// route returns the ports that a frame is for, and the conditions of the link.
func (s *virtualSwitch) route(from int, frame []byte) (to []*port, w LinkConditions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w = s.conditions[from]
	if s.down[from] || w.NoUDP && isUDP(frame) {
		return nil, w
	}
	for number, other := range s.ports {
		if number != from && !s.down[number] && !s.cut[[2]int{from, number}] && isFor(frame, number) &&
			!s.dropsLocked(from, number, frame) {
			to = append(to, other)
		}
	}
	return to, w
}

// copies returns how often a frame arrives.
func copies(w LinkConditions) int {
	switch {
	case w.Loss > 0 && rand.Float64() < w.Loss:
		return 0
	case w.Duplicate > 0 && rand.Float64() < w.Duplicate:
		return 2
	}
	return 1
}

// deliver delivers delayed frames, in the order in which they were sent.
func (p *port) deliver() {
	defer p.done.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for queued := range p.late {
		timer.Reset(time.Until(queued.due))
		<-timer.C
		_, _ = queued.to.tap.Write(queued.frame) // it may have been unplugged
	}
}
