package trust

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// The files of the trust folder.
const (
	caCertFile   = "ca.crt"
	caKeyFile    = "ca.key"      // master
	nodeCertFile = "node.crt"    // an identity exists if this file does
	nodeKeyFile  = "node.key"    //
	joinKeyFile  = "join.key"    // the key of an unfinished join
	clusterFile  = "cluster.pin" // identifies the cluster, once its first CA may be gone
	keyringFile  = "keyring.json"
	tokensFile   = "tokens.json" // master
	nodesFile    = "nodes.json"  // master
)

// largestFile bounds the size of files that are read. A registry of 10,000 nodes takes about 3 MB.
const largestFile = 64 << 20

// openFolder makes the folder private and removes incomplete files left by a killed process.
func openFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the trust folder: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the trust folder: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 { // the mode of each file is checked as well
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("make the trust folder private: %w", err)
		}
	}
	if err := durable.Clean(dir); err != nil {
		return fmt.Errorf("clean the trust folder: %w", err)
	}
	return durable.SyncFolder(filepath.Dir(dir))
}

// readPrivate reads a file that only its owner can read. It rejects other modes instead of fixing
// them, because a secret that others could read is no longer secret, and the owner should know.
func readPrivate(path string) ([]byte, error) {
	b, mode, err := readRegular(path)
	if err == nil && mode&0o077 != 0 {
		return nil, exposed(path, mode)
	}
	return b, err
}

func exposed(path string, mode fs.FileMode) error {
	return fmt.Errorf(
		"%s can be read by other users (mode %04o), and it holds a secret; if nobody has read it, run: chmod 600 %s",
		path, mode, path)
}

// readRegular reads a whole file and returns its permissions. If the file is a pipe, it does not
// wait for a writer.
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

// RoleIn returns the role of the credentials in the folder, or "" if there are none.
func RoleIn(dir string) grid.NodeRole {
	there := func(file string) bool {
		_, err := os.Lstat(filepath.Join(dir, file))
		return err == nil
	}
	switch {
	case there(caKeyFile):
		return grid.Master
	case there(nodeCertFile):
		return grid.Worker
	}
	return ""
}

// CAsIn returns the CAs that the folder's node trusts, or nil.
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
