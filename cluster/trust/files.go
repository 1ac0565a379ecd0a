package trust

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"mlfnode/node/durable"
)

// The files of the trust folder.
const (
	caCertFile   = "ca.crt"
	caKeyFile    = "ca.key"      // master
	nodeCertFile = "node.crt"    // its presence is what makes an identity
	nodeKeyFile  = "node.key"    //
	joinKeyFile  = "join.key"    // the key of a join that has not ended yet
	clusterFile  = "cluster.pin" // names the cluster, once its first CA may be gone
	keyringFile  = "keyring.json"
	tokensFile   = "tokens.json" // master
	nodesFile    = "nodes.json"  // master
)

// largestFile bounds what is read. A registry of 10,000 nodes takes about 3 MB.
const largestFile = 64 << 20

// openFolder makes the folder private, and removes what was being written when a process was
// killed.
func openFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the trust folder: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the trust folder: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 { // each file is checked on its own
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("make the trust folder private: %w", err)
		}
	}
	if err := durable.Clean(dir); err != nil {
		return fmt.Errorf("clean the trust folder: %w", err)
	}
	return durable.SyncFolder(filepath.Dir(dir))
}

// readPrivate reads a file that nobody else may read. A secret that others could read is not one,
// so the mode is not quietly mended: the owner should know.
func readPrivate(path string) ([]byte, error) {
	b, mode, err := readRegular(path)
	if err == nil && mode&0o077 != 0 {
		return nil, exposed(path, mode)
	}
	return b, err
}

func exposed(path string, mode fs.FileMode) error {
	return fmt.Errorf("%s can be read by other users (mode %04o), and it holds a secret; if nobody has read it, run: chmod 600 %s",
		path, mode, path)
}

// readRegular reads a whole file and gives its permissions. It does not wait for a writer, should
// the file be a pipe.
func readRegular(path string) ([]byte, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, 0, err
	case !info.Mode().IsRegular():
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > largestFile:
		return nil, 0, fmt.Errorf("%s is too large to be ours", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, largestFile))
	return b, info.Mode().Perm(), err
}

// RoleIn tells whose credentials the folder holds: a master's, a worker's, or "" for nobody's.
func RoleIn(dir string) NodeRole {
	there := func(file string) bool {
		_, err := os.Lstat(filepath.Join(dir, file))
		return err == nil
	}
	switch {
	case there(caKeyFile):
		return Master
	case there(nodeCertFile):
		return Worker
	}
	return ""
}

// CAsIn gives the CAs by which the node of the folder knows its cluster, nil for none.
func CAsIn(dir string) CAs {
	cas, err := readCAs(filepath.Join(dir, caCertFile))
	if err != nil {
		return nil
	}
	return cas
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
