// Benchtable runs go test -v with benchmarks and prints their figures as a table, as make bench
// does:
//
//	benchtable go test -v -run '^$' -bench . ./cmd/mlfnode/bench
//
// Everything else that the benchmarks print is shown only for those that fail, or always with
// BENCH_VERBOSE=1. Its exit status is 1 if the command fails.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: benchtable COMMAND ARGUMENT...")
		os.Exit(2)
	}
	if err := run(os.Stdout, os.Getenv("BENCH_VERBOSE") != "", os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "benchtable: %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// run runs a command and prints a table of its output to w.
func run(w io.Writer, verbose bool, command []string) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	t := table{w: w, verbose: verbose}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			t.add(line)
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	t.end(err != nil)
	return err
}
