package api

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// WithPort returns the address of a node as HOST:PORT. It adds the default port to a bare HOST.
func WithPort(text string, defaultPort int) (string, error) {
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		host, number = text, strconv.Itoa(defaultPort)
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err != nil && (host == "" || strings.ContainsAny(host, " /@:")) {
		return "", fmt.Errorf("%q is not the address of a node; write HOST or HOST:PORT", text)
	}
	if _, err := ParsePort(number); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, number), nil
}

// ParsePort parses a port number, from 1 to 65535.
func ParsePort(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 65535 {
		return 0, fmt.Errorf("%q is not a port; write a number from 1 to 65535", text)
	}
	return n, nil
}
