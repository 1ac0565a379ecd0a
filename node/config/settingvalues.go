package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/units"
	"mlfnode/node/api"
	"mlfnode/node/worker"
)

func positive(v string) (float64, error) {
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || !(f > 0) || f > 1e6 {
		return 0, fmt.Errorf("%q is not a number of processors; write one above 0, such as 4", v)
	}
	return f, nil
}

func count(v string) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a whole number of at least 0", v)
	}
	return n, nil
}

func duration(v string) (time.Duration, error) {
	d, err := units.ParseDuration(v)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write one such as 90d or 36h", v)
	}
	return d, nil
}

func size(to *int64) func(string) error {
	return func(v string) error {
		n, err := units.ParseSize(v)
		if err != nil || n == 0 || n > 1<<60 {
			return fmt.Errorf("%q is not a size; write one such as 500MB or 10GiB", v)
		}
		*to = n
		return nil
	}
}

// labels parses the labels by which tasks select this node.
func labels(to *[]string) func(string) error {
	return func(v string) error {
		var all []string
		for label := range strings.SplitSeq(v, ",") {
			label = strings.TrimSpace(label)
			if err := grid.CheckNodeLabel(label); err != nil {
				return err
			}
			all = append(all, label)
		}
		if len(all) > grid.MaxLabels {
			return fmt.Errorf("a node can have at most %d labels, not %d", grid.MaxLabels, len(all))
		}
		*to = all
		return nil
	}
}

// devices parses which GPUs trials may use: all, none, or indexes and UUIDs.
func devices(to *worker.Policy) func(string) error {
	return func(v string) error {
		to.None, to.Use = false, nil
		switch v {
		case "none":
			to.None = true
			return nil
		case "all":
			return nil
		}
		for name := range strings.SplitSeq(v, ",") {
			name = strings.TrimSpace(name)
			if _, err := strconv.ParseUint(name, 10, 16); err != nil && !strings.HasPrefix(name, "GPU-") &&
				!strings.HasPrefix(name, "MIG-") {
				return fmt.Errorf("%q is not a GPU; write all, none, or indexes and UUIDs as in [0, 2]", name)
			}
			to.Use = append(to.Use, name)
		}
		return nil
	}
}

// cleanName replaces what a node's name may not contain, since it becomes part of NATS subjects and
// of file names.
func cleanName(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, name)
	if clean == "" {
		return "node"
	}
	return clean
}

func checkName(name string) error {
	if name != cleanName(name) {
		return fmt.Errorf("%q is not a valid node name; use letters, digits, - and _", name)
	}
	return nil
}

func address(to *string) func(string) error {
	return func(v string) error {
		if _, err := netip.ParseAddr(v); err != nil {
			return fmt.Errorf("%q is not an IP address; write one such as 10.0.0.5", v)
		}
		*to = v
		return nil
	}
}

func port(to *int) func(string) error {
	return func(v string) error {
		n, err := api.ParsePort(v)
		if err == nil {
			*to = n
		}
		return err
	}
}
