package shell

import (
	"crypto/hmac"
	"crypto/sha1" // the hash that known_hosts has, see sshd(8)
	"encoding/base64"
	"path"
	"strings"
)

// matchesAny reports whether the patterns of a line match a machine, by its name as
// knownhosts.Normalize returns it.
func matchesAny(patterns []string, name string) bool {
	found := false
	name = strings.ToLower(name)
	for _, p := range patterns {
		p, negated := strings.CutPrefix(p, "!")
		matches := false
		if strings.HasPrefix(p, "|1|") {
			matches = matchesHash(p, name)
		} else {
			// In the file, brackets stand for themselves; in path.Match they are a class of
			// characters.
			literal := strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`).Replace(strings.ToLower(p))
			matches, _ = path.Match(literal, name) // a malformed pattern matches nothing
		}
		if matches && negated {
			return false
		}
		found = found || matches
	}
	return found
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
