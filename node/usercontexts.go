package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/durable"
)

// ContextFile is where this user's context is kept.
func ContextFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for the context: %w; set XDG_CONFIG_HOME", err)
	}
	return filepath.Join(dir, "mlfnode", "context.yaml"), nil
}

// SaveContext makes a context the current one of this user: later commands go to its cluster. The
// former context, if it is of another cluster, moves to a file beside it, whose path is returned,
// because its secret is shown only once. Older files of the saved cluster are removed.
func SaveContext(c trust.Context) (kept string, err error) {
	file, err := ContextFile()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", fmt.Errorf("make a folder for the context: %w", err)
	}
	if old, err := trust.LoadContext(file); err == nil && !old.OfSame(c) && old.Token != "" {
		kept = strings.TrimSuffix(file, ".yaml") + "-" + shortPin(old) + ".yaml"
		if err := trust.SaveContext(kept, old); err != nil {
			return "", fmt.Errorf("keep the context of another cluster: %w", err)
		}
	}
	if err := trust.SaveContext(file, c); err != nil {
		return kept, err
	}
	others, err := keptContexts(file)
	if err != nil {
		return kept, err
	}
	for _, other := range others {
		if old, err := trust.LoadContext(other); err == nil && old.OfSame(c) {
			if err := durable.Remove(other); err != nil {
				return kept, fmt.Errorf("remove an older context of the cluster: %w", err)
			}
		}
	}
	return kept, nil
}

// keptContexts returns the files beside the current context.
func keptContexts(current string) ([]string, error) {
	files, err := filepath.Glob(strings.TrimSuffix(current, ".yaml") + "-*.yaml")
	if err != nil {
		return nil, fmt.Errorf("find the contexts: %w", err)
	}
	return files, nil
}

// shortPin identifies the cluster of a context.
func shortPin(c trust.Context) string { return c.Pin().String()[:8] }

// KnownContext is one of this user's contexts.
type KnownContext struct {
	ID      string // names its cluster
	Current bool   // commands go there
	Used    time.Time
	trust.Context
}

// Contexts lists this user's contexts, one of each cluster, the current one first. A file that
// can't be read is an error.
func Contexts() ([]KnownContext, error) {
	current, err := ContextFile()
	if err != nil {
		return nil, err
	}
	files, err := keptContexts(current)
	if err != nil {
		return nil, err
	}
	var all []KnownContext
	for _, file := range append([]string{current}, files...) {
		c, err := trust.LoadContext(file)
		if errors.Is(err, trust.ErrNoContext) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(k KnownContext) bool { return k.OfSame(c) }) {
			continue // left by a killed command
		}
		k := KnownContext{ID: shortPin(c), Current: file == current, Context: c}
		if info, err := os.Stat(file); err == nil {
			k.Used = info.ModTime()
		}
		all = append(all, k)
	}
	return all, nil
}

// Use makes this the user's current context, at the address of another machine of its cluster if
// master is not empty.
func (k *KnownContext) Use(master string) error {
	if master != "" {
		address, err := api.WithPort(master, config.DefaultAPIPort)
		if err != nil {
			return err
		}
		k.Master = []string{address}
	}
	_, err := SaveContext(k.Context)
	return err
}
