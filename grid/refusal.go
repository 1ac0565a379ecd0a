package grid

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// RefusalCode says what kind of reason keeps a trial waiting.
type RefusalCode string

// The reasons why a trial can't begin on a node now.
const (
	RefusedNever     RefusalCode = "never"         // the node has too little, even when nothing runs
	RefusedProfile   RefusalCode = "never.profile" // it has no MIG instances of this profile, or too few
	RefusedModel     RefusalCode = "never.model"   // it has no such GPUs, or too few
	RefusedMemory    RefusalCode = "never.memory"  // its GPUs have too little memory
	RefusedNodes     RefusalCode = "never.nodes"   // the task names other nodes
	RefusedBusy      RefusalCode = "busy"          // what it needs is in use
	RefusedFragment  RefusalCode = "fragment"      // there is enough in all, but not on one device
	RefusedBehind    RefusalCode = "behind"        // what it needs is kept for trials that come first
	RefusedSick      RefusalCode = "sick"          // a device is out of service
	RefusedGone      RefusalCode = "gone"          // a device has disappeared
	RefusedDirty     RefusalCode = "dirty"         // the memory of a device is not free yet though its trial has ended
	RefusedForeign   RefusalCode = "foreign"       // a device is used by a program that is not a trial
	RefusedExclusive RefusalCode = "exclusive"     // its devices can't be shared
	RefusedImage     RefusalCode = "image"         // it does not have the image yet
	RefusedEngine    RefusalCode = "engine"        // it can't run containers, or not this one
	RefusedWithheld  RefusalCode = "withheld"      // such trials failed there, and did not elsewhere
)

// Amount names what there is too little of.
type Amount string

// The amounts of a refusal. Bytes count for memory, thousandths for the others.
const (
	AmountCPUs      Amount = "cpus"
	AmountMemory    Amount = "memory"
	AmountGPUs      Amount = "gpus"
	AmountGPUMemory Amount = "gpu_memory"
)

// Refusal says why a node can't begin a trial now. The zero value refuses nothing.
type Refusal struct {
	Code   RefusalCode `json:"code"`
	Of     Amount      `json:"of,omitempty"`
	Want   int64       `json:"want,omitempty"`
	Have   int64       `json:"have,omitempty"`
	Device string      `json:"device,omitempty"` // index of the device that is in the way
	By     string      `json:"by,omitempty"`     // the lane that comes first, or what is wrong with the device
	What   string      `json:"what,omitempty"`   // the model or profile that is asked for
}

// Never reports whether waiting does not help on this node.
func (r Refusal) Never() bool {
	switch r.Code {
	case RefusedNodes, RefusedNever, RefusedProfile, RefusedModel, RefusedMemory, RefusedExclusive:
		return true
	}
	return false
}

// IsNearer reports whether a node that refuses for good for this reason comes nearer to what is asked for than one that refuses for the
// other.
func (r *Refusal) IsNearer(other *Refusal) bool {
	rank := []RefusalCode{RefusedNodes, RefusedNever, RefusedProfile, RefusedModel, RefusedMemory, RefusedExclusive}
	gpus := func(r *Refusal) int { // a node with too few processors has the GPUs, or the question did not come up
		if r.Of == AmountCPUs || r.Of == AmountMemory {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(slices.Index(rank, r.Code), slices.Index(rank, other.Code)), cmp.Compare(gpus(r), gpus(other)), cmp.Compare(r.Have, other.Have)) > 0
}

// String says it in words, for one node: "needs 4 GPUs and has 2".
func (r Refusal) String() string {
	switch r.Code {
	case "":
		return ""
	case RefusedProfile:
		return fmt.Sprintf("has %s of MIG profile %s, and a trial needs %s", countText(r.Have, "instance"), r.What, countText(r.Want, "instance"))
	case RefusedModel:
		return fmt.Sprintf("has %s whose model contains %q, and a trial needs %s", countText(r.Have, "GPU"), r.What, amountText(AmountGPUs, r.Want))
	case RefusedMemory:
		return fmt.Sprintf("has GPUs with at most %s of memory, and a trial needs %s", bytesText(r.Have), bytesText(r.Want))
	case RefusedNodes:
		return "is not one of the nodes that the task names: " + NodeSet(r.What).String()
	case RefusedNever:
		return fmt.Sprintf("has %s, and a trial needs %s", amountText(r.Of, r.Have), amountText(r.Of, r.Want))
	case RefusedBusy:
		return fmt.Sprintf("%s free, and a trial needs %s", amountText(r.Of, r.Have), amountText(r.Of, r.Want))
	case RefusedFragment:
		return fmt.Sprintf("no GPU has enough left: at most %s on one, and a trial needs %s", amountText(r.Of, r.Have), amountText(r.Of, r.Want))
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
	return string(r.Code) // of a newer version
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

// bytesText writes a size with three digits at most: 1.5 GiB.
func bytesText(n int64) string {
	v, unit := float64(n), 0
	for ; v >= 1024 && unit < 5; unit++ {
		v /= 1024
	}
	return strconv.FormatFloat(v, 'g', 3, 64) + " " + [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}[unit]
}
