// Command mlfnode runs hyper-parameter sweeps of unmodified command-line programs.
package main

import (
	"context"
	"os"
)

func main() {
	// Signals are handled where something can be done about them; the process's life is the context's.
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
