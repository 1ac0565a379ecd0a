package node

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// tokenBytes is the length of a node's token.
const tokenBytes = 8

// loadToken reads the random token of a state folder, and makes it if there is none. The processes
// of trials carry it in their environment.
func loadToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err == nil && len(bytes.TrimSpace(b)) == 2*tokenBytes {
		return string(bytes.TrimSpace(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the node's token: %w", err)
	}
	token := make([]byte, tokenBytes)
	rand.Read(token) // never fails
	text := hex.EncodeToString(token)
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the node's token: %w", err)
	}
	return text, nil
}
