// Command mlfnode runs hyper-parameter sweeps of unmodified command-line programs.
package main

import (
	"context"
	"os"
)

func main() {
	if os.Getpid() == 1 {
		os.Exit(runAsInit(os.Args, os.Stderr))
	}
	i := &interrupts{}
	ctx := i.listen(context.Background())
	os.Exit(run(ctx, i, os.Args[1:], os.Stdout, os.Stderr))
}
