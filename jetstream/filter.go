package jetstream

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"mlfnode/grid"
)

// refusedError is what a node sends that it may not.
type refusedError struct{ what string }

func (e refusedError) Error() string { return e.what }

// Bounds of what a node may send, as nats-server has them.
const (
	longestLine   = 4096
	longestPrefix = 256 // of a request's subject, before the subject that it is about
	longestHeader = 64 << 10
	longestAPI    = 64 << 10 // of a request that is looked into
)

// filter passes on what a node sends to nats-server. It writes the node's name into CONNECT, and refuses what the server does
// not check:
//
//   - An answer may go only to where the node listens. The server would publish it anywhere in its own name, be it into the
//     stream of another node's events, or over a sweep's record.
//   - A cursor may not be pushed to a subject, for the same reason.
//   - A message may not take the place of others (rollup), since that may be all of a stream.
//
// The protocol is that of NATS clients: lines that end with CRLF, and behind PUB and HPUB as many bytes as they say. What the node
// may publish and listen to, the server checks (permissions).
type filter struct {
	node   grid.NodeID
	secret string
	inbox  []byte
	in     *bufio.Reader
	out    *bufio.Writer
	known  bool // CONNECT has come
}

func newFilter(node grid.NodeID, secret string, from io.Reader, to io.Writer) *filter {
	return &filter{
		node: node, secret: secret, inbox: []byte(inbox(node) + "."),
		in: bufio.NewReaderSize(from, 32<<10), out: bufio.NewWriterSize(to, 32<<10),
	}
}

// run passes on until an end closes or something is refused.
func (f *filter) run() error {
	for {
		if f.in.Buffered() == 0 {
			if err := f.out.Flush(); err != nil {
				return err
			}
		}
		line, err := f.line()
		if err == nil {
			err = f.operation(line)
		}
		if err != nil {
			return err
		}
	}
}

// line reads up to a line end, which it leaves off. What it gives is valid until the next read.
func (f *filter) line() ([]byte, error) {
	line, err := f.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || (err == nil && len(line) > longestLine) {
		return nil, refusedError{"a line that is too long"}
	}
	return bytes.TrimRight(line, "\r\n"), err
}

func (f *filter) operation(line []byte) error {
	verb, args, _ := bytes.Cut(line, []byte(" "))
	if tab := bytes.IndexByte(verb, '\t'); tab >= 0 {
		verb, args = line[:tab], line[tab+1:]
	}
	name := string(bytes.ToUpper(verb))
	if !f.known && name != "CONNECT" {
		return refusedError{"something before CONNECT"}
	}
	switch name {
	case "CONNECT":
		return f.connect(args)
	case "PUB":
		return f.publish(name, bytes.Fields(args), 1)
	case "HPUB":
		return f.publish(name, bytes.Fields(args), 2)
	case "SUB", "UNSUB", "PING", "PONG":
		return f.pass(line)
	}
	return refusedError{fmt.Sprintf("the operation %.20q", name)}
}

func (f *filter) pass(parts ...[]byte) error {
	for _, p := range parts {
		if _, err := f.out.Write(p); err != nil {
			return err
		}
	}
	_, err := f.out.WriteString("\r\n")
	return err
}

// connect passes CONNECT on with the node's name in the place of whatever credentials it has.
func (f *filter) connect(args []byte) error {
	var options map[string]any
	if f.known {
		return refusedError{"a second CONNECT"}
	}
	if err := json.Unmarshal(args, &options); err != nil {
		return refusedError{"a CONNECT that can't be read"}
	}
	for _, name := range []string{"auth_token", "jwt", "nkey", "sig", "account", "new_account", "tls_required"} {
		delete(options, name)
	}
	options["user"], options["pass"] = nodeUser+string(f.node), f.secret
	b, err := json.Marshal(options)
	if err != nil {
		return err
	}
	f.known = true
	return f.pass([]byte("CONNECT "), b)
}

// publish passes a message on: `subject [answers] [header bytes] bytes`, with so many numbers.
func (f *filter) publish(verb string, args [][]byte, numbers int) error {
	if len(args) < 1+numbers || len(args) > 2+numbers {
		return refusedError{"a message without its sizes"}
	}
	subject := args[0]
	if len(subject) > maxSubject+longestPrefix {
		return refusedError{"a subject that is too long"}
	}
	if len(args) == 2+numbers && !bytes.HasPrefix(args[1], f.inbox) {
		return refusedError{fmt.Sprintf("a request whose answer is to go to %.100q", args[1])}
	}
	header := 0
	size, err := count(args[len(args)-1])
	if err == nil && numbers == 2 {
		header, err = count(args[len(args)-2])
	}
	if err != nil || size > maxPayload || header > min(size, longestHeader) {
		return refusedError{"a message whose sizes are wrong"}
	}
	looked := header
	if bytes.HasPrefix(subject, []byte("$JS.API.CONSUMER.CREATE.")) {
		if looked = size; size > longestAPI {
			return refusedError{"a request that is too long"}
		}
	}
	if err := f.pass([]byte(verb), []byte(" "), bytes.Join(args, []byte(" "))); err != nil {
		return err
	}
	return f.payload(header, looked, size)
}

func count(b []byte) (int, error) {
	n, err := strconv.ParseUint(string(b), 10, 31)
	return int(n), err
}

// payload passes on the bytes of a message, of which the first are looked at.
func (f *filter) payload(header, looked, size int) error {
	if looked > 0 {
		b := make([]byte, looked)
		if _, err := io.ReadFull(f.in, b); err != nil {
			return err
		}
		if err := f.inspect(b[:header], b[header:]); err != nil {
			return err
		}
		if _, err := f.out.Write(b); err != nil {
			return err
		}
	}
	if _, err := io.CopyN(f.out, f.in, int64(size-looked)); err != nil {
		return err
	}
	end, err := f.line()
	if err == nil && len(end) > 0 {
		err = refusedError{"a message that is longer than its size"}
	}
	if err != nil {
		return err
	}
	return f.pass()
}

// inspect refuses what does harm in a header or in the making of a cursor.
func (f *filter) inspect(header, body []byte) error {
	if bytes.Contains(bytes.ToLower(header), []byte("nats-rollup")) {
		return refusedError{"a message that takes the place of others"}
	}
	if len(body) == 0 {
		return nil
	}
	var request struct {
		Config struct {
			Deliver string `json:"deliver_subject"`
		} `json:"config"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return refusedError{"a cursor that can't be read"}
	}
	if request.Config.Deliver != "" {
		return refusedError{"a cursor that is pushed to a subject"}
	}
	return nil
}
