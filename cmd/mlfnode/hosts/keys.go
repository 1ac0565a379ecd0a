package hosts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"mlfnode/grid/gridtest"
)

func (hs *Harness) keyFile() string { return filepath.Join(hs.Dir, "key") }

// publicKey returns the public half of the harness's own key, which it makes on the first call.
func (hs *Harness) publicKey() string {
	hs.t.Helper()
	gridtest.Program(hs.t, "ssh-keygen")
	if _, err := os.Stat(hs.keyFile()); err != nil {
		if err := makeKey(hs.keyFile(), "ed25519", ""); err != nil {
			hs.t.Fatal(err)
		}
	}
	text, err := os.ReadFile(hs.keyFile() + ".pub")
	if err != nil {
		hs.t.Fatal(err)
	}
	return keyText(text)
}

// makeKey writes a new key pair to a file and to that name with .pub, replacing existing files.
func makeKey(file, kind, passphrase string) error {
	for _, old := range []string{file, file + ".pub"} {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	// Use few rounds, since the passphrase protects nothing here.
	keygen := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-a", "1", "-C", "", "-f", file)
	out, err := keygen.CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a key: %w\n%s", err, out)
	}
	return nil
}

// keyText returns the type and the key from a line of a .pub file, without the comment.
func keyText(line []byte) string {
	fields := strings.Fields(string(line))
	return strings.Join(fields[:min(2, len(fields))], " ")
}
