package failure

import (
	"slices"

	"mlfnode/grid"
)

// Xid is what GPU faults with some of NVIDIA's numbers mean, after its catalogue ("Xid Errors").
type Xid struct {
	numbers []int
	// of an attempt that had the device and failed; ClassNone where the fault explains nothing
	Class           grid.Class
	Link            bool   // it concerns a link between devices, which only attempts with several devices use
	FaultsUntilSick int    // how many within a day take the device out of service; 0 for none
	Reason          string // what is wrong, and what helps; "" where the number is for information
}

// xids are the rows; the last one is for all numbers that are in no other.
var xids = [...]Xid{
	{
		Class: grid.ClassCUDAError, Reason: "a program failed on it", // or was killed: it says nothing about the device
		numbers: []int{
			11, 13, 25, 31, 32, 39, 40, 41, 43, 45, 60, 68, 69, 70, 71, 72, 75, 76, 77, 80, 82, 83, 84, 85, 86,
		},
	},
	{numbers: []int{63, 78, 92, 154}},
	{
		numbers: []int{94}, Class: grid.ClassGPUFault, FaultsUntilSick: 3,
		Reason: "contained memory errors repeat; needs a reset",
	},
	{
		numbers: []int{48}, Class: grid.ClassGPUFault, FaultsUntilSick: 1,
		Reason: "uncorrected memory error; needs a reset",
	},
	{
		numbers: []int{46, 62, 64, 95, 110, 119, 120, 136, 140, 143, 155, 156, 158}, Class: grid.ClassGPUFault,
		FaultsUntilSick: 1, Reason: "the GPU or its firmware has stopped; needs a reset",
	},
	{
		numbers: []int{109}, Class: grid.ClassGPUFault, FaultsUntilSick: 2,
		Reason: "context switches time out; needs a reset",
	},
	{numbers: []int{79}, Class: grid.ClassGPUFault, FaultsUntilSick: 1,
		Reason: "fell off the bus; needs a restart of the machine, and a look at its power and its slot"},
	{
		numbers: []int{74, 144, 145, 146, 147, 148, 149, 150}, Class: grid.ClassGPUFault, Link: true,
		FaultsUntilSick: 1, Reason: "NVLink error; needs a reset",
	},
	{numbers: []int{54}, FaultsUntilSick: 1, Reason: "a power cable is not connected"},
	{Class: grid.ClassGPUFault, FaultsUntilSick: 3, Reason: "unknown errors repeat"},
}

// XidOf returns the row of a number. Numbers of one kind have the same row.
func XidOf(number int) *Xid {
	i := slices.IndexFunc(xids[:], func(x Xid) bool { return slices.Contains(x.numbers, number) })
	if i < 0 {
		i = len(xids) - 1
	}
	return &xids[i]
}
