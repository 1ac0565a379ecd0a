package main

import "mlfnode/grid/printable"

// sanitize makes a line from a program or another machine safe to show.
func sanitize(line []byte) string { return printable.Line(line) }
