package shell

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Target is a machine as its user names it. Zero values are not given: ssh's configuration then
// says.
type Target struct {
	User string
	Host string
	Port int
}

// ParseTarget reads [user@]host[:port]; an IPv6 address with a port stands in brackets. A leading
// ssh:// is taken off.
func ParseTarget(text string) (Target, error) {
	var t Target
	rest := strings.TrimSuffix(strings.TrimPrefix(text, "ssh://"), "/")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		t.User, rest = rest[:i], rest[i+1:]
		if t.User == "" {
			return t, fmt.Errorf("%q has no user before the @; write user@host or host", text)
		}
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil { // no port: a name, or a bare address of either kind
		host, port = strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]"), "0"
	} else if t.Port, err = strconv.Atoi(port); err != nil || t.Port < 1 || t.Port > 65535 {
		return t, fmt.Errorf("%q is not a port of %q; ports are 1 to 65535", port, text)
	}
	t.Host = host
	bare := err != nil && strings.Contains(host, ":") && net.ParseIP(strings.SplitN(host, "%", 2)[0]) == nil
	if host == "" || strings.HasPrefix(host, "-") || bare || strings.ContainsAny(text, " \t\r\n'\"\\;$&|<>*?()`") {
		return t, fmt.Errorf("%q names no machine; write [user@]host[:port]", text)
	}
	return t, nil
}

// String gives the target as ParseTarget reads it.
func (t Target) String() string {
	host := t.Host
	switch {
	case t.Port != 0:
		host = net.JoinHostPort(t.Host, strconv.Itoa(t.Port))
	case strings.Contains(t.Host, ":"):
		host = "[" + t.Host + "]"
	}
	if t.User == "" {
		return host
	}
	return t.User + "@" + host
}
