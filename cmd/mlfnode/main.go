// Command mlfnode runs hyper-parameter sweeps of unmodified command-line programs.
package main

import (
	"context"
	"os"
)

func main() {
	i := &interrupts{}
	ctx := i.listen(context.Background())
	os.Exit(run(ctx, i, os.Args[1:], os.Stdout, os.Stderr))
}
