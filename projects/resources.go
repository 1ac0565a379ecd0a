package projects

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"

	"mlfnode/grid"
	"mlfnode/grid/jsonschema"
	"mlfnode/grid/units"
)

// resourceFields reads the resources of a trial into t.
func resourceFields(t *task) map[string]field {
	r := &t.Resources
	return map[string]field{
		"cpus": {jsonschema.Above(0), func(v yamlValue) {
			into(&r.CPUs, amount)(v)
			if r.CPUs == 0 {
				v.report("Give the cores that one trial uses, like 1 or 0.5.", "cpus is 0")
			}
		}},
		"memory": sizeField(&r.Memory),
		"gpus":   {jsonschema.Amount, into(&r.GPUs, amount)},
		"gpu_memory": {jsonschema.Any(jsonschema.Choice("auto"), jsonschema.Size), func(v yamlValue) {
			if m := v.target(); m != nil && m.Value == "auto" {
				r.GPUMemory = grid.GPUMemoryAuto
				return
			}
			into(&r.GPUMemory, size)(v)
		}},
		"measure_by":  textField(&t.MeasureBy),
		"gpu_profile": textField(&r.GPUProfile),
		"gpu_model":   textField(&r.GPUModel),
	}
}

// readNodes reads which nodes may run trials.
func readNodes(v yamlValue, t *task) {
	var all []string
	if m := v.target(); m != nil && m.Kind == yaml.ScalarNode {
		if text, ok := v.filled(); ok {
			all = []string{text}
		}
	} else if all, _ = v.texts("[gpu1, label=a100]"); len(all) == 0 {
		v.report("Name nodes, or leave nodes out: then all may run trials.", "%s is empty", v.what)
	}
	t.Resources.Nodes = grid.NodeSetOf(all)
	v.reportError(t.Resources.Nodes.Check())
}

// The readers of numbers that may have a unit.
var (
	// amount reads a count that may be a fraction.
	amount = parsed(func(text string) (grid.Milli, error) {
		n, err := grid.ParseMilli(text)
		if err == nil && (n < 0 || n > grid.MaxMilli) {
			err = errors.New("out of range")
		}
		return n, err
	}, ", which is not a valid number", "Give a number like 1 or 0.5.")

	// size reads `1GiB`, `500MB`, `1.5 GiB` or plain bytes. A prefix without B, as in 1G, is
	// refused: some read it as a power of 1000, others as a power of 1024.
	size = parsed(func(text string) (int64, error) {
		if !regexp.MustCompile(`^([0-9]+(\.0+)?( ?B)?|[0-9]+(\.[0-9]+)? ?[kKMGTP]i?B)$`).MatchString(text) {
			return 0, errors.New("not a size")
		}
		return units.ParseSize(text)
	}, ", which is not a size", "Write it like 1GiB, 500MB or as bytes.")

	duration = parsed(ParseDuration, ", which is not a duration",
		"Write it like 2h, 1h30m, 90s or 1d; a plain number is in seconds.")

	retryCount = wholeNumber(0, grid.MaxRetries, ", which is not a number of retries")
)

// ParseDuration parses `1d`, `1h30m`, `90s`, `500ms`, or a plain number of seconds, as in
// project.yaml.
func ParseDuration(text string) (time.Duration, error) {
	if regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`).MatchString(text) {
		text += "s"
	}
	return units.ParseDuration(text)
}

// wholeNumber returns a reader of numbers from least to most.
func wholeNumber(least, most int64, fault string) func(yamlValue) (int64, bool) {
	return parsed(func(text string) (int64, error) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err == nil && (n < least || n > most) {
			err = errors.New("out of range")
		}
		return n, err
	}, fault, fmt.Sprintf("Give a whole number from %d to %d.", least, most))
}
