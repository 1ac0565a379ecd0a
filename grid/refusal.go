package grid

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// RefusalCode is the kind of reason that keeps a trial waiting.
type RefusalCode string

// The reasons why a trial cannot start on a node now.
const (
	RefusedNever    RefusalCode = "never"         // the node has too little, even when it is idle
	RefusedProfile  RefusalCode = "never.profile" // it has no MIG instances of this profile, or too few
	RefusedModel    RefusalCode = "never.model"   // it has no GPUs of this model, or too few
	RefusedMemory   RefusalCode = "never.memory"  // its GPUs have too little memory
	RefusedNodes    RefusalCode = "never.nodes"   // the task is limited to other nodes
	RefusedBusy     RefusalCode = "busy"          // what the trial needs is in use
	RefusedFragment RefusalCode = "fragment"      // there is enough in total, but not on one device
	RefusedBehind   RefusalCode = "behind"        // what the trial needs is reserved for trials that come first
	RefusedSick     RefusalCode = "sick"          // a device is out of service
	RefusedGone     RefusalCode = "gone"          // a device has disappeared
	// The memory of a device is still in use although its trial has ended.
	RefusedDirty     RefusalCode = "dirty"
	RefusedForeign   RefusalCode = "foreign"   // a program other than a trial is using a device
	RefusedExclusive RefusalCode = "exclusive" // its devices can't be shared
	RefusedImage     RefusalCode = "image"     // it does not have the image yet
	RefusedEngine    RefusalCode = "engine"    // it cannot run containers, or not this one
	RefusedWithheld  RefusalCode = "withheld"  // similar trials failed on this node but not elsewhere
)

// Amount names the resource that is short.
type Amount string

// The amounts of a refusal. Memory is in bytes, the others in thousandths.
const (
	AmountCPUs      Amount = "cpus"
	AmountMemory    Amount = "memory"
	AmountGPUs      Amount = "gpus"
	AmountGPUMemory Amount = "gpu_memory"
)

// Refusal is the reason why a node cannot start a trial now. The zero value refuses nothing.
type Refusal struct {
	Code   RefusalCode `json:"code"`
	Of     Amount      `json:"of,omitempty"`
	Want   int64       `json:"want,omitempty"`
	Have   int64       `json:"have,omitempty"`
	Device string      `json:"device,omitempty"` // index of the device that prevents it
	By     string      `json:"by,omitempty"`     // the lane that comes first, or the fault of the device
	What   string      `json:"what,omitempty"`   // the requested model or profile
}

// Never reports whether waiting is futile on this node.
func (r Refusal) Never() bool {
	switch r.Code {
	case RefusedNodes, RefusedNever, RefusedProfile, RefusedModel, RefusedMemory, RefusedExclusive:
		return true
	}
	return false
}

// IsNearer reports whether a node that refuses permanently for this reason comes nearer to the
// request than one that refuses for the other reason.
func (r *Refusal) IsNearer(other *Refusal) bool {
	rank := []RefusalCode{RefusedNodes, RefusedNever, RefusedProfile, RefusedModel, RefusedMemory, RefusedExclusive}
	gpus := func(r *Refusal) int { // a node without enough processors has the GPUs, or they were not checked
		if r.Of == AmountCPUs || r.Of == AmountMemory {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(slices.Index(rank, r.Code), slices.Index(rank, other.Code)),
		cmp.Compare(gpus(r), gpus(other)), cmp.Compare(r.Have, other.Have)) > 0
}

// String describes the refusal by one node, for example "needs 4 GPUs and has 2".
func (r Refusal) String() string {
	switch r.Code {
	case "":
		return ""
	case RefusedProfile:
		return fmt.Sprintf("has %s of MIG profile %s, and a trial needs %s", countText(r.Have, "instance"), r.What,
			countText(r.Want, "instance"))
	case RefusedModel:
		return fmt.Sprintf("has %s whose model contains %q, and a trial needs %s", countText(r.Have, "GPU"), r.What,
			amountText(AmountGPUs, r.Want))
	case RefusedMemory:
		return fmt.Sprintf("has GPUs with at most %s of memory, and a trial needs %s", bytesText(r.Have),
			bytesText(r.Want))
	case RefusedNodes:
		return "is not one of the nodes that the task names: " + NodeSet(r.What).String()
	case RefusedNever:
		return fmt.Sprintf("has %s, and a trial needs %s", amountText(r.Of, r.Have), amountText(r.Of, r.Want))
	case RefusedBusy:
		return fmt.Sprintf("%s free, and a trial needs %s", amountText(r.Of, r.Have), amountText(r.Of, r.Want))
	case RefusedFragment:
		return fmt.Sprintf("no GPU has enough left: at most %s on one, and a trial needs %s", amountText(r.Of, r.Have),
			amountText(r.Of, r.Want))
	case RefusedBehind:
		return "what it needs is kept for trials that come first"
	case RefusedExclusive:
		return fmt.Sprintf("GPU %s is in exclusive mode and can't be shared", r.Device)
	case RefusedImage, RefusedEngine, RefusedWithheld:
		return r.By
	case RefusedSick:
		return fmt.Sprintf("GPU %s is out of service: %s", r.Device, r.By)
	case RefusedGone:
		return fmt.Sprintf("GPU %s has disappeared: %s", r.Device, r.By)
	case RefusedDirty:
		return fmt.Sprintf("GPU %s is not free yet after its last trial: %s", r.Device, r.By)
	case RefusedForeign:
		return fmt.Sprintf("GPU %s is used by a program that is not a trial: %s", r.Device, r.By)
	}
	return string(r.Code) // a code of a newer version
}

func amountText(of Amount, n int64) string {
	switch of {
	case AmountMemory:
		return bytesText(n) + " of memory"
	case AmountGPUMemory:
		return bytesText(n) + " of GPU memory"
	case AmountCPUs:
		if Milli(n) == One {
			return "1 processor"
		}
		return Milli(n).String() + " processors"
	}
	if Milli(n) == One {
		return "1 GPU"
	}
	return Milli(n).String() + " GPUs"
}

func countText(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatInt(n, 10) + " " + what + "s"
}

// bytesText formats a size with at most three digits, for example 1.5 GiB.
func bytesText(n int64) string {
	v, unit := float64(n), 0
	for ; v >= 1024 && unit < 5; unit++ {
		v /= 1024
	}
	return strconv.FormatFloat(v, 'g', 3, 64) + " " + [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}[unit]
}
