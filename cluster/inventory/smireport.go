package inventory

import (
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"mlfnode/grid/lazyregexp"
)

// reportStart is the root element of the output of nvidia-smi -q -x. Errors about single GPUs can
// precede it.
const reportStart = "<nvidia_smi_log>"

// report holds the used parts of that document. Elements were added and moved between drivers; the
// formats of drivers 470 to 580 are supported.
type report struct {
	Driver string      `xml:"driver_version"`
	CUDA   string      `xml:"cuda_version"`
	GPUs   []reportGPU `xml:"gpu"`

	lost []string // what nvidia-smi says about GPUs that it could not read
}

type reportGPU struct {
	Bus         string `xml:"id,attr"`
	Name        string `xml:"product_name"`
	UUID        string `xml:"uuid"`
	Persistence string `xml:"persistence_mode"`
	Mode        string `xml:"compute_mode"`
	Recovery    string `xml:"gpu_recovery_action"` // 560 and later
	MIG         string `xml:"mig_mode>current_mig"`
	Total       string `xml:"fb_memory_usage>total"`
	Used        string `xml:"fb_memory_usage>used"`
	Busy        string `xml:"utilization>gpu_util"`
	Temperature string `xml:"temperature>gpu_temp"`
	// Power has been in three different places.
	Power        string           `xml:"power_readings>power_draw"`
	PowerGPU     string           `xml:"gpu_power_readings>power_draw"`
	PowerInstant string           `xml:"gpu_power_readings>instant_power_draw"`
	Instances    []reportInstance `xml:"mig_devices>mig_device"`
	Processes    []reportProcess  `xml:"processes>process_info"`
}

type reportInstance struct {
	Index           string `xml:"index"`
	UUID            string `xml:"uuid"`
	GPUInstance     string `xml:"gpu_instance_id"`
	ComputeInstance string `xml:"compute_instance_id"`
	Total           string `xml:"fb_memory_usage>total"`
	Used            string `xml:"fb_memory_usage>used"`

	profile string
}

type reportProcess struct {
	GPUInstance     string `xml:"gpu_instance_id"`
	ComputeInstance string `xml:"compute_instance_id"`
	PID             string `xml:"pid"`
	Type            string `xml:"type"` // C, G or C+G
	Used            string `xml:"used_memory"`
}

// parseReport parses the output of nvidia-smi -q -x.
func parseReport(out string) (*report, error) {
	head, _, ok := strings.Cut(out, reportStart)
	if !ok {
		return nil, errors.New("it holds no report")
	}
	r := &report{}
	if err := xml.Unmarshal([]byte(out[len(head):]), r); err != nil {
		return nil, err
	}
	for line := range strings.Lines(head) {
		if line = strings.TrimSpace(line); strings.Contains(line, "Unable to determine the device handle") {
			r.lost = append(r.lost, line)
		}
	}
	return r, nil
}

// gpus returns the GPUs of the report. Those that could not be read come last, without a UUID.
func (r *report) gpus(capabilities map[string]string) []GPU {
	var all []GPU
	for i := range r.GPUs {
		s := &r.GPUs[i]
		g := GPU{
			Index: i, UUID: known(s.UUID), Name: known(s.Name), Memory: mebibytes(s.Total),
			MemoryUsed:  mebibytes(s.Used),
			Utilization: figure(s.Busy), Temperature: figure(s.Temperature), Power: Unknown, MIG: s.MIG == "Enabled",
			Capability: capabilities[s.UUID], Group: Unknown, NUMA: numaNode("/", s.Bus),
			Persistence: s.Persistence == "Enabled",
			Recovery:    RecoveryReboot, // for an action that this version does not know
		}
		for _, text := range []string{s.Power, s.PowerGPU, s.PowerInstant} { // the last of them that is known
			if w := figure(text); w != Unknown {
				g.Power = w
			}
		}
		if action, ok := recoveries[s.Recovery]; ok {
			g.Recovery = action
		}
		switch {
		case strings.HasPrefix(s.Mode, "Exclusive"):
			g.Mode = Exclusive
		case s.Mode == "Prohibited":
			g.Mode = Prohibited
		}
		for _, p := range s.Processes {
			if strings.Contains(p.Type, "C") {
				g.Processes++
			}
		}
		for _, in := range s.Instances {
			g.Instances = append(g.Instances, Instance{
				UUID: known(in.UUID), Profile: in.profile, Memory: mebibytes(in.Total), MemoryUsed: mebibytes(in.Used),
				GPUInstance: figure(in.GPUInstance), ComputeInstance: figure(in.ComputeInstance),
			})
		}
		switch {
		case !strings.HasPrefix(g.UUID, "GPU-"):
			g.UUID, g.Problem = "", fmt.Sprintf("the driver does not report the UUID of GPU %d: %s", i, s.UUID)
		case strings.Contains(s.Total+s.Used+s.Temperature, "GPU is lost"), g.Memory == 0 &&
			strings.Contains(s.Total, "Unknown Error"):
			g.Problem = fmt.Sprintf("GPU %d is lost (it fell off the bus); restart the machine", i)
		}
		all = append(all, g)
	}
	for _, line := range r.lost {
		all = append(all, GPU{
			Index: len(all), Utilization: Unknown, Temperature: Unknown, Power: Unknown, Processes: Unknown,
			Group: Unknown, NUMA: Unknown, Recovery: RecoveryUnknown, Problem: "nvidia-smi says: " + line,
		})
	}
	return all
}

// uses returns the use of each device that trials can get.
func (r *report) uses() []Use {
	var all []Use
	for i := range r.GPUs {
		s := &r.GPUs[i]
		if s.MIG != "Enabled" && known(s.UUID) != "" && figure(s.Used) != Unknown {
			all = append(all, Use{
				UUID: s.UUID, Memory: mebibytes(s.Used), Busy: figure(s.Busy), Listed: true,
				Processes: s.processes(func(*reportProcess) bool { return true }),
			})
		}
		for _, in := range s.Instances {
			if in.UUID == "" {
				continue
			}
			all = append(all, Use{
				UUID: in.UUID, Memory: mebibytes(in.Used), Busy: Unknown, Listed: true,
				Processes: s.processes(func(p *reportProcess) bool {
					return p.GPUInstance == in.GPUInstance && p.ComputeInstance == in.ComputeInstance
				}),
			})
		}
	}
	return all
}

func (s *reportGPU) processes(on func(*reportProcess) bool) []Process {
	var all []Process
	for i := range s.Processes {
		p := &s.Processes[i]
		pid, err := strconv.Atoi(p.PID)
		if err != nil || !on(p) {
			continue
		}
		memory := int64(Unknown)
		if figure(p.Used) != Unknown {
			memory = mebibytes(p.Used)
		}
		all = append(all, Process{PID: pid, Memory: memory, Graphics: p.Type == "G"})
	}
	return all
}

var recoveries = map[string]Recovery{
	"": RecoveryUnknown, "N/A": RecoveryUnknown, "None": RecoveryNone, "Reset": RecoveryReset,
	"Drain P2P": RecoveryDrainP2P, "Drain and Reset": RecoveryDrainAndReset,
}

// The lines of nvidia-smi -L.
var (
	listedGPU      = lazyregexp.New(`^GPU \d+: .*\(UUID: (GPU-[^)]+)\)`)
	listedInstance = lazyregexp.New(`^\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[^)]+)\)`)
)

// nameInstances sets the profiles and UUIDs of the instances from the output of nvidia-smi -L.
func (r *report) nameInstances(list string) {
	var of *reportGPU
	for line := range strings.Lines(list) {
		if m := listedGPU.Get().FindStringSubmatch(line); m != nil {
			of = nil
			for i := range r.GPUs {
				if r.GPUs[i].UUID == m[1] {
					of = &r.GPUs[i]
				}
			}
		}
		m := listedInstance.Get().FindStringSubmatch(line)
		if m == nil || of == nil {
			continue
		}
		for i := range of.Instances {
			if in := &of.Instances[i]; in.Index == m[2] {
				in.profile, in.UUID = m[1], m[3]
			}
		}
	}
}

// mebibytes parses `40960 MiB`. It returns 0 for anything that is not a number.
func mebibytes(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSuffix(text, " MiB"), 10, 43)
	if err != nil || n < 0 {
		return 0
	}
	return n << 20
}

// figure parses a number with or without a unit, for example `87 %`, `61 C` or `301.52 W`.
func figure(text string) int {
	number, _, _ := strings.Cut(text, " ")
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f >= 0) || f > 1<<40 {
		return Unknown
	}
	return int(f)
}
