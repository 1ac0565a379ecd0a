package inventory

import (
	"path/filepath"
	"strconv"
	"strings"
)

// numaNode returns the NUMA node of a PCI device, below a root folder that tests choose. NVIDIA
// writes the address's domain with eight digits, Linux with four.
func numaNode(root, bus string) int {
	domain, rest, ok := strings.Cut(strings.ToLower(bus), ":")
	if !ok || strings.ContainsAny(bus, "/\x00") {
		return Unknown
	}
	if len(domain) > 4 {
		domain = domain[len(domain)-4:]
	}
	n, err := strconv.Atoi(readLine(filepath.Join(root, "sys/bus/pci/devices", domain+":"+rest), "numa_node"))
	if err != nil || n < 0 {
		return Unknown
	}
	return n
}
