package jetstream

import (
	"fmt"
	"strings"

	"mlfnode/grid"
)

// Every subject, stream and consumer name is built here. Subjects:
//
//	mlf.sweep.<sweep>                    one sweep record
//	mlf.number.<project>                 the last sweep number of a project
//	mlf.probe                            what Probe has written last
//	mlf.cut.<node>                       where removed output of a node ends
//	mlf.lease.<shape>                    leases
//	mlf.event.<node>.<sweep>             batches of events
//	mlf.log.<node>.<sweep>               chunks of output
//	mlf.<bucket>.meta.<node>.<name>      one object; the parts of the name are tokens of the subject
//	mlf.<bucket>.data.<node>.<name>.<upload>    its chunks
//	mlf.call.<node>.<verb>               a node asks the master; not stored
//
// The node is the one that has reported what is stored. The server lets a node publish its own
// calls only, and the master stores under the caller's name what they bring. Under the empty name
// the master writes what it decides itself.
const (
	recordStream = "records"
	leaseStream  = "leases"
	eventStream  = "events"
	logStream    = "logs"

	bundleBucket   = "bundles"
	artifactBucket = "artifacts"

	recordSubjects = "mlf.sweep.*"
	numberSubjects = "mlf.number.*"
	probeSubject   = "mlf.probe"
	cutSubjects    = "mlf.cut.*"
	leaseSubjects  = "mlf.lease.*"
	eventSubjects  = "mlf.event.*.*"
	logSubjects    = "mlf.log.*.*"
	callSubjects   = "mlf.call.*.*"
)

func recordSubject(id grid.SweepID) string { return "mlf.sweep." + token(string(id)) }
func numberSubject(project string) string  { return "mlf.number." + token(project) }
func cutSubject(node grid.NodeID) string   { return "mlf.cut." + token(string(node)) }
func leaseSubject(shape string) string     { return "mlf.lease." + token(shape) }

func eventSubject(node grid.NodeID, id grid.SweepID) string {
	return "mlf.event." + token(string(node)) + "." + token(string(id))
}

func logSubject(node grid.NodeID, id grid.SweepID) string {
	return "mlf.log." + token(string(node)) + "." + token(string(id))
}

func callSubject(node grid.NodeID, verb string) string {
	return "mlf.call." + token(string(node)) + "." + verb
}

// inbox is the prefix of the subjects of answers to a node.
func inbox(node grid.NodeID) string { return "_INBOX." + token(string(node)) }

// anyVerb matches every call of a node.
const anyVerb = ">"

// anyNode matches every node in the subjects above.
const anyNode = "*"

func eventsOf(id grid.SweepID) string       { return "mlf.event." + anyNode + "." + token(string(id)) }
func logSubjectsOf(node grid.NodeID) string { return "mlf.log." + token(string(node)) + ".*" }
func logsOf(id grid.SweepID) string         { return "mlf.log." + anyNode + "." + token(string(id)) }

// nodeOf returns the node that a subject of events, output or calls belongs to.
func nodeOf(subject string) grid.NodeID {
	parts := strings.Split(subject, ".")
	if len(parts) < 4 {
		return ""
	}
	return grid.NodeID(untoken(parts[2]))
}

// maxSubject bounds a subject. The longest that this package builds, of an artifact's chunks, has
// some 400 bytes. nats-server closes a connection that sends a line longer than
// natsd.MaxControlLine.
const maxSubject = 1024

// checkSubject returns ErrName for a subject that is too long to be anything that was stored.
func checkSubject(subject string) error {
	if len(subject) > maxSubject {
		return fmt.Errorf("%w (%d bytes): %.60s…", ErrName, len(subject), subject)
	}
	return nil
}

// mayWrite reports whether a node may report on a run. Runs are named after their node; the master
// may report on all.
func mayWrite(node grid.NodeID, run string) bool {
	of, _, named := strings.Cut(run, ".")
	return node == "" || (named && of == string(node))
}

// lastToken returns the plain text of a subject's last token.
func lastToken(subject string) string {
	return untoken(subject[strings.LastIndexByte(subject, '.')+1:])
}

func metaSubject(bucket, name string) string { return metaOf(bucket, owner(name)) + tokens(name) }
func dataSubject(bucket, name string) string { return dataOf(bucket, owner(name)) + tokens(name) }

func metaOf(bucket, owner string) string { return "mlf." + bucket + ".meta." + owner + "." }
func dataOf(bucket, owner string) string { return "mlf." + bucket + ".data." + owner + "." }

// owner returns the token of the node that an object belongs to: artifacts are named after their
// run, and runs after their node. Other objects belong to the master.
func owner(name string) string {
	node, _, ok := strings.Cut(name[strings.LastIndexByte(name, '/')+1:], ".")
	if !ok {
		node = ""
	}
	return token(node)
}

// objectFilter matches all objects below a prefix, whatever their owner. The prefix is empty or
// ends with a slash.
func objectFilter(subjects func(bucket, owner string) string, bucket, prefix string) string {
	if prefix == "" {
		return subjects(bucket, anyNode) + ">"
	}
	return subjects(bucket, anyNode) + tokens(strings.TrimSuffix(prefix, "/")) + ".>"
}

// objectName returns the name of the object with this meta subject.
func objectName(bucket, subject string) string {
	_, name, _ := strings.Cut(subject[len("mlf."+bucket+".meta."):], ".")
	return convertParts(name, ".", "/", untoken)
}

// tokens converts a name with slashes to tokens of a subject.
func tokens(name string) string { return convertParts(name, "/", ".", token) }

// convertParts converts each part of a text, and what separates the parts.
func convertParts(s, from, to string, convert func(part string) string) string {
	parts := strings.Split(s, from)
	for i, p := range parts {
		parts[i] = convert(p)
	}
	return strings.Join(parts, to)
}

// token converts any text to one token of a subject: bytes other than letters, digits, '-' and '_'
// become =XX, and the empty text becomes =.
func token(s string) string {
	if s == "" {
		return "="
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

func plain(c byte) bool {
	return c == '-' || c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
}

// untoken is the inverse of token. It keeps what token can't have produced.
func untoken(s string) string {
	if s == "=" {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c, ok := unhex(s[i:]); ok {
			b.WriteByte(c)
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func unhex(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '=' {
		return 0, false
	}
	hi, lo := strings.IndexByte(hexDigits, s[1]), strings.IndexByte(hexDigits, s[2])
	return byte(hi<<4 | lo), hi >= 0 && lo >= 0
}

const hexDigits = "0123456789ABCDEF"
