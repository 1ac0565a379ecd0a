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
//	mlf.cut.<node>                       up to where output of a node was removed before older output of others
//	mlf.lease.<shape>                    leases
//	mlf.event.<node>.<sweep>             batches of events
//	mlf.log.<node>.<sweep>               chunks of output
//	mlf.<bucket>.meta.<node>.<name>      one object; the parts of the name are tokens of the subject
//	mlf.<bucket>.data.<node>.<name>.<upload>    its chunks
//	mlf.call.<node>.<verb>               a node asks the master; not stored
//
// The node is the one that has reported what is stored. The server lets a node publish its own calls only, and the master stores under
// the caller's name what they bring. Under the empty name the master writes what it decides itself.
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

// anyVerb stands for every call of a node.
const anyVerb = ">"

// anyNode stands for every node in the subjects above.
const anyNode = "*"

func eventsOf(id grid.SweepID) string       { return "mlf.event." + anyNode + "." + token(string(id)) }
func logSubjectsOf(node grid.NodeID) string { return "mlf.log." + token(string(node)) + ".*" }
func logsOf(id grid.SweepID) string         { return "mlf.log." + anyNode + "." + token(string(id)) }

// writer gives the node that wrote under a subject of events, of output or of calls.
func writer(subject string) grid.NodeID {
	parts := strings.Split(subject, ".")
	if len(parts) < 4 {
		return ""
	}
	return grid.NodeID(untoken(parts[2]))
}

// maxSubject bounds a subject. The longest that this package makes, of an artifact's chunks, has some 400 bytes. nats-server ends a
// connection on which a line is longer than natsd.MaxControlLine.
const maxSubject = 1024

// checkSubject refuses a subject whose names are too long to be anything that was stored.
func checkSubject(subject string) error {
	if len(subject) > maxSubject {
		return fmt.Errorf("%w (%d bytes): %.60s…", ErrName, len(subject), subject)
	}
	return nil
}

// writes reports whether a node may speak for a run. Runs are named after their node; the master speaks for all.
func writes(node grid.NodeID, run string) bool {
	of, _, named := strings.Cut(run, ".")
	return node == "" || (named && of == string(node))
}

// lastToken gives the plain text of a subject's last token.
func lastToken(subject string) string {
	return untoken(subject[strings.LastIndexByte(subject, '.')+1:])
}

func metaSubject(bucket, name string) string { return metaOf(bucket, owner(name)) + tokens(name) }
func dataSubject(bucket, name string) string { return dataOf(bucket, owner(name)) + tokens(name) }

func metaOf(bucket, owner string) string { return "mlf." + bucket + ".meta." + owner + "." }
func dataOf(bucket, owner string) string { return "mlf." + bucket + ".data." + owner + "." }

// owner is the token of the node that an object belongs to: artifacts are named after their run, and runs after their node.
// Other objects belong to the master.
func owner(name string) string {
	node, _, ok := strings.Cut(name[strings.LastIndexByte(name, '/')+1:], ".")
	if !ok {
		node = ""
	}
	return token(node)
}

// under matches everything below a prefix of objects, whoever owns it; prefix is empty or ends with a slash.
func under(subjects func(bucket, owner string) string, bucket, prefix string) string {
	if prefix == "" {
		return subjects(bucket, anyNode) + ">"
	}
	return subjects(bucket, anyNode) + tokens(strings.TrimSuffix(prefix, "/")) + ".>"
}

// objectName gives the name of the object with this meta subject.
func objectName(bucket, subject string) string {
	_, name, _ := strings.Cut(subject[len("mlf."+bucket+".meta."):], ".")
	return untokens(name)
}

// tokens turns a name with slashes into tokens of a subject.
func tokens(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = token(p)
	}
	return strings.Join(parts, ".")
}

// untokens is the inverse of tokens.
func untokens(s string) string {
	parts := strings.Split(s, ".")
	for i, p := range parts {
		parts[i] = untoken(p)
	}
	return strings.Join(parts, "/")
}

// token makes any text one token of a subject: bytes other than letters, digits, '-' and '_' become =XX, and the empty text
// becomes =.
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

// untoken is the inverse of token. What token can't have made stays as it is.
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
