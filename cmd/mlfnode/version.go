package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versions is what `version --json` prints.
type versions struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	NATS     string `json:"nats_server"`
	Platform string `json:"platform"`
}

func version() versions {
	v := versions{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && v.Version == "devel" {
			v.Version = "devel-" + s.Value[:12]
		}
	}
	for _, d := range info.Deps {
		if d.Path == "github.com/nats-io/nats-server/v2" {
			v.NATS = d.Version
		}
	}
	return v
}

func (a *app) versionCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "version", Short: "Print versions", Args: noArgument, Example: "  mlfnode version --json",
		RunE: func(*cobra.Command, []string) error {
			v := version()
			if a.json {
				return json.NewEncoder(a.stdout).Encode(v)
			}
			fmt.Fprintf(a.stdout, "mlfnode %s (%s, nats-server %s, %s)\n", v.Version, v.Go, v.NATS, v.Platform)
			return nil
		},
	}
	a.jsonFlag(c)
	return c
}
