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
//	mlf.lease.<shape>                    leases, and mlf.wake.<shape>, which is not stored
//	mlf.event.<sweep>                    batches of events
//	mlf.log.<sweep>                      chunks of output
//	mlf.<bucket>.meta.<name>             one object; the parts of the name are tokens of the subject
//	mlf.<bucket>.data.<name>.<upload>    its chunks
const (
	recordStream = "records"
	leaseStream  = "leases"
	eventStream  = "events"
	logStream    = "logs"

	bundleBucket   = "bundles"
	artifactBucket = "artifacts"

	recordSubjects = "mlf.sweep.*"
	numberSubjects = "mlf.number.*"
	leaseSubjects  = "mlf.lease.*"
	wakeSubjects   = "mlf.wake.*"
	eventSubjects  = "mlf.event.*"
	logSubjects    = "mlf.log.*"
)

func recordSubject(id grid.SweepID) string { return "mlf.sweep." + token(string(id)) }
func numberSubject(project string) string  { return "mlf.number." + token(project) }
func leaseSubject(shape string) string     { return "mlf.lease." + token(shape) }
func wakeSubject(shape string) string      { return "mlf.wake." + token(shape) }
func eventSubject(id grid.SweepID) string  { return "mlf.event." + token(string(id)) }
func logSubject(id grid.SweepID) string    { return "mlf.log." + token(string(id)) }

// leaseConsumer is the shared consumer of a shape.
func leaseConsumer(shape string) string { return "shape_" + token(shape) }

// lastToken gives the plain text of a subject's last token.
func lastToken(subject string) string {
	return untoken(subject[strings.LastIndexByte(subject, '.')+1:])
}

func metaSubject(bucket, name string) string { return "mlf." + bucket + ".meta." + tokens(name) }
func dataSubject(bucket, name string) string { return "mlf." + bucket + ".data." + tokens(name) }

// under matches everything below a prefix of objects; prefix is empty or ends with a slash.
func under(subject func(bucket, name string) string, bucket, prefix string) string {
	if prefix == "" {
		return strings.TrimSuffix(subject(bucket, ""), "=") + ">"
	}
	return subject(bucket, strings.TrimSuffix(prefix, "/")) + ".>"
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
