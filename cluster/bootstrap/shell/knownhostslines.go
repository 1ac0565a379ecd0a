package shell

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" // the hash that known_hosts has, see sshd(8)
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// knownLine is a line of a file of known hosts, see sshd(8), SSH_KNOWN_HOSTS FILE FORMAT. The
// package knownhosts does not read them here: it refuses a file for one line that it cannot read,
// and takes an authority's key for a host's.
type knownLine struct {
	knownhosts.KnownKey
	marker   string // "", cert-authority or revoked
	patterns []string
}

// readLines reads the files that are there. As with OpenSSH, lines that cannot be read are passed
// over.
func readLines(files []string) ([]knownLine, error) {
	var lines []knownLine
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for i, text := range bytes.Split(data, []byte("\n")) {
			marker, patterns, key, _, _, err := ssh.ParseKnownHosts(text)
			if err == nil {
				lines = append(lines, knownLine{marker: marker, patterns: patterns,
					KnownKey: knownhosts.KnownKey{Key: key, Filename: file, Line: i + 1}})
			}
		}
	}
	return lines, nil
}

// appliesTo reports whether the line is about a machine, by its name as knownhosts.Normalize gives
// it.
func (l knownLine) appliesTo(name string) bool {
	found := false
	for _, p := range l.patterns {
		p, negated := strings.CutPrefix(p, "!")
		if !matchesPattern(p, strings.ToLower(name)) {
			continue
		}
		if negated {
			return false
		}
		found = true
	}
	return found
}

func matchesPattern(pattern, name string) bool {
	if strings.HasPrefix(pattern, "|1|") {
		return matchesHash(pattern, name)
	}
	// Brackets stand for themselves here, and are a class of characters there.
	literal := strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`).Replace(strings.ToLower(pattern))
	ok, err := path.Match(literal, name)
	return err == nil && ok
}

// matchesHash compares a name with |1|SALT|HASH.
func matchesHash(pattern, name string) bool {
	parts := strings.Split(pattern, "|")
	if len(parts) != 4 {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	hash, err := base64.StdEncoding.DecodeString(parts[3])
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	return err == nil && hmac.Equal(hash, mac.Sum(nil))
}
