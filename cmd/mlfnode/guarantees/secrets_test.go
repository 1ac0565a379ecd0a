package guarantees

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mlfnode/cmd/mlfnode/hosts"
)

// checkAgents fails if an agent has panicked, or has logged what is secret.
func checkAgents(t *testing.T, c *hosts.Cluster) {
	for _, h := range c.Hosts {
		for _, text := range h.Processes.Logs() {
			for _, bad := range []string{"panic:", "fatal error:", "DATA RACE", "goroutine 1 ["} {
				if i := strings.Index(text, bad); i >= 0 {
					t.Errorf("%s: a program has printed %s", h.Name, text[i:min(len(text), i+2000)])
				}
			}
			for _, secret := range secrets(c) {
				if strings.Contains(text, secret) {
					t.Errorf("%s: a program has printed a secret", h.Name)
				}
			}
		}
	}
}

// keyring is the gossip keyring of a host, as its node keeps it.
func keyring(t *testing.T, h *hosts.Host) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.StateDir(), "trust", "keyring.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// secretText is what may be a secret in a file: a long word of base64 or hexadecimal digits.
var secretText = regexp.MustCompile(`[A-Za-z0-9+/_-]{32,}=*`)

// secrets are the words that no program may print: the secrets of tokens, private keys and the
// gossip keyring. What is public is in certificates.
func secrets(c *hosts.Cluster) []string {
	var words []string
	for _, token := range c.Tokens {
		words = append(words, token[strings.LastIndexByte(token, '.')+1:])
	}
	for _, h := range c.Hosts {
		for _, name := range []string{"ca.key", "node.key", "keyring.json"} {
			text, _ := os.ReadFile(filepath.Join(h.StateDir(), "trust", name)) // most have no key of the CA
			words = append(words, secretText.FindAllString(string(text), -1)...)
		}
	}
	return words
}
