package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// mirrorAddress is never sent to: it is of the block that routers discard (RFC 6666), and the mirror answers in its place.
const mirrorAddress = "[100::1]:1"

// lookLimit bounds one look; it takes some milliseconds for hundreds of members.
const lookLimit = 5 * time.Second

// mirror shows the state of every node as memberlist has it. There is no event for a suspicion, none that tells a death from a
// goodbye, and the list of members has no states. But memberlist tells all of that to a node that joins. So it is made to
// join an address behind which a second memberlist listens that has no network and takes nobody in: what that one is told is
// the picture.
type mirror struct {
	ml      *memberlist.Memberlist // the listener
	port    int
	streams chan net.Conn
	packets chan *memberlist.Packet
	looking atomic.Bool // memberlist is writing for the mirror now

	mu       sync.Mutex // one look at a time
	captured bytes.Buffer
	picture  chan []*memberlist.Node
}

// newMirror makes the listener with the keys and the label of the node's own memberlist.
func newMirror(of *memberlist.Config) (*mirror, error) {
	m := &mirror{
		port: of.BindPort, streams: make(chan net.Conn), packets: make(chan *memberlist.Packet), picture: make(chan []*memberlist.Node, 1),
	}
	mc := *of
	mc.Name, mc.Transport, mc.Merge = "mirror", blank{m}, m
	mc.Logger = log.New(io.Discard, "", 0)
	mc.ProbeInterval, mc.PushPullInterval, mc.GossipInterval = 0, 0, 0
	var err error
	if m.ml, err = memberlist.Create(&mc); err != nil {
		return nil, fmt.Errorf("start the mirror of the gossip: %w", err)
	}
	return m, nil
}

func (m *mirror) close() { m.ml.Shutdown() } // it never fails

var errMirror = errors.New("the mirror takes nobody in")

// NotifyMerge gets the picture, as a copy, and declines the nodes.
func (m *mirror) NotifyMerge(nodes []*memberlist.Node) error {
	m.picture <- nodes
	return errMirror
}

// take makes a node's memberlist show its state.
func (m *mirror) take(of *memberlist.Memberlist) ([]*memberlist.Node, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.captured.Reset()
	m.looking.Store(true)
	_, err := of.Join([]string{mirrorAddress}) // it writes, and finds the stream closed when it wants an answer
	m.looking.Store(false)
	if m.captured.Len() == 0 {
		return nil, fmt.Errorf("look at the members: %w", err)
	}
	read := &reading{Reader: bytes.NewReader(m.captured.Bytes()), done: make(chan struct{})}
	limit := time.NewTimer(lookLimit)
	defer limit.Stop()
	select {
	case m.streams <- read:
	case <-limit.C:
		return nil, errors.New("look at the members: the mirror hangs")
	}
	<-read.done // it reads from memory, so it always ends
	select {
	case nodes := <-m.picture:
		return nodes, nil
	default:
		return nil, errors.New("look at the members: memberlist told nothing that it can read itself")
	}
}

// over puts the mirror's address into a network.
func (m *mirror) over(network memberlist.NodeAwareTransport) memberlist.NodeAwareTransport {
	return mirrored{NodeAwareTransport: network, mirror: m}
}

type mirrored struct {
	memberlist.NodeAwareTransport
	mirror *mirror
}

// DialAddressTimeout opens a stream, as memberlist wants it.
func (t mirrored) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if a.Addr == mirrorAddress {
		return writing{kept: &t.mirror.captured}, nil
	}
	return t.NodeAwareTransport.DialAddressTimeout(a, timeout)
}

// blank is the network of the listener: nothing comes in but what the mirror hands it, and nothing goes out.
type blank struct{ m *mirror }

func (blank) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IPv4(127, 0, 0, 1), 1, nil
}
func (blank) WriteTo([]byte, string) (time.Time, error)           { return time.Now(), nil }
func (blank) DialTimeout(string, time.Duration) (net.Conn, error) { return nil, errMirror }
func (b blank) PacketCh() <-chan *memberlist.Packet               { return b.m.packets }
func (b blank) StreamCh() <-chan net.Conn                         { return b.m.streams }
func (blank) Shutdown() error                                     { return nil }

// silent is what both ends of a look have in common.
type silent struct{}

func (silent) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (silent) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.ParseIP("100::1"), Port: 1} }
func (silent) SetDeadline(time.Time) error      { return nil }
func (silent) SetReadDeadline(time.Time) error  { return nil }
func (silent) SetWriteDeadline(time.Time) error { return nil }

// writing is memberlist's end: it keeps what is written and has no answer.
type writing struct {
	silent
	kept *bytes.Buffer
}

func (w writing) Write(p []byte) (int, error) { return w.kept.Write(p) }
func (writing) Read([]byte) (int, error)      { return 0, io.EOF }
func (writing) Close() error                  { return nil }

// reading is the listener's end: it reads what was kept.
type reading struct {
	*bytes.Reader
	silent
	once sync.Once
	done chan struct{}
}

func (r *reading) Write(p []byte) (int, error) { return len(p), nil }
func (r *reading) Close() error {
	r.once.Do(func() { close(r.done) })
	return nil
}
