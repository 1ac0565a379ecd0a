package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"mlfnode/grid"
)

// Engine holds the settings of the container engine, which runs tasks with an image.
type Engine struct {
	Socket   string        // unix:///…; "auto" is the first engine that answers
	Patience time.Duration // how long the engine may be unavailable before its containers are given up
	Network  string        // of containers whose task does not choose one
	Mounts   []grid.Mount  // what tasks may mount
}

// DefaultEngine returns the default settings.
func DefaultEngine() Engine {
	return Engine{Socket: "auto", Patience: time.Minute, Network: "host"}
}

// engineSettings is Engine in node.yaml.
type engineSettings struct {
	Engine struct {
		Socket   string `yaml:"socket" form:"text"`
		Patience string `yaml:"patience" form:"duration"`
		Network  string `yaml:"network" form:"text"`
		Mounts   texts  `yaml:"mounts" form:"texts"`
	} `yaml:"engine"`
}

// read applies the settings. It calls set for each, with its name in the file and in the
// environment.
func (c *Engine) read(s *engineSettings, set func(key, env, value string, apply func(string) error)) {
	e := &s.Engine
	set("engine.socket", "MLF_ENGINE_SOCKET", e.Socket, func(v string) error { c.Socket = v; return checkSocket(v) })
	set("engine.patience", "MLF_ENGINE_PATIENCE", e.Patience, func(v string) (err error) {
		c.Patience, err = duration(v)
		return
	})
	set("engine.network", "MLF_ENGINE_NETWORK", e.Network, func(v string) error {
		c.Network = v
		return grid.CheckNetwork(v)
	})
	set("engine.mounts", "MLF_ENGINE_MOUNTS", strings.Join(e.Mounts, ","), func(v string) error {
		var problems []error
		for text := range strings.SplitSeq(v, ",") {
			m, err := grid.ParseMount(strings.TrimSpace(text))
			if err == nil && m.Target != "" {
				err = fmt.Errorf(
					"%q also names a place in the container; name the folder alone, since each task chooses that place itself",
					text)
			}
			problems = append(problems, err)
			c.Mounts = append(c.Mounts, m)
		}
		return errors.Join(problems...)
	})
}

// checkSocket returns an error unless the text names an engine on this machine. Folders are mounted
// by their paths on this machine, so an engine on another one would mount other folders.
func checkSocket(v string) error {
	if path, ok := strings.CutPrefix(v, "unix://"); v != "auto" && !(ok && filepath.IsAbs(path)) {
		return fmt.Errorf("%q is not the socket of an engine; write auto, or one like unix:///run/docker.sock", v)
	}
	return nil
}
