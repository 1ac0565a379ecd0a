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

// release is the version of a release, such as 1.4.0. The linker sets it: go build -ldflags "-X
// main.release=1.4.0", as `make build RELEASE=1.4.0` does. If it is empty, the version comes from
// the build information of Go.
var release string

func version() versions {
	v := versions{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	if v.Version == "" {
		v.Version = sourceVersion(info)
	}
	for _, d := range info.Deps {
		if d.Path == "github.com/nats-io/nats-server/v2" {
			v.NATS = d.Version
		}
	}
	return v
}

// shownRevision is how much of a commit's hash is shown.
const shownRevision = 12

// sourceVersion names what was built: a version of the module, or else the commit, or else just
// "devel".
func sourceVersion(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= shownRevision {
			return "devel-" + s.Value[:shownRevision]
		}
	}
	return "devel"
}

func versionCommand(ui *console) *cobra.Command {
	c := &cobra.Command{
		Use: "version", Short: "Print versions", Args: noArgument, Example: "  mlfnode version --json",
		RunE: func(*cobra.Command, []string) error {
			v := version()
			if ui.json {
				return json.NewEncoder(ui.stdout).Encode(v)
			}
			fmt.Fprintf(ui.stdout, "mlfnode %s (%s, nats-server %s, %s)\n", v.Version, v.Go, v.NATS, v.Platform)
			return nil
		},
	}
	ui.jsonFlag(c)
	return c
}
