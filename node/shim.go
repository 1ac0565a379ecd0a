package node

import (
	"io"
	"os"

	"mlfnode/node/executor/shim"
)

// KeeperCommand is the name of the hidden command that a node agent starts to have its programs outlive it.
const KeeperCommand = shim.Command

// Keeper is that command, from its arguments to the exit status. Signals brings what the process gets.
func Keeper(args []string, signals <-chan os.Signal, stderr io.Writer) int {
	return shim.Main(args, signals, stderr)
}
