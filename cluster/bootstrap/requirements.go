package bootstrap

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"mlfnode/cluster/bootstrap/shell"
)

// What a machine must have.
const (
	minFree        = 512 << 20 // bytes: the program, and some room for a state folder
	noticeableSkew = 5 * time.Second
	// certificates and tokens then become valid or expire at the wrong time, see node/doctor
	harmfulSkew = time.Minute
)

// check returns why the machine can't take part, or nil if it can, and what a person should know
// about it.
func (f *Facts) check() (_ *shell.Problem, notes []string) {
	room := "make room on it (df -h " + f.existingDir + "), or choose a folder on another one with -r"
	switch {
	case f.OS != "Linux":
		return problem(fmt.Sprintf("it runs %s, and nodes need Linux", f.OS),
			"leave it out of -a; commands work there with: mlfnode token use"), nil
	case f.goArch() == "":
		return problem(fmt.Sprintf("its processor is %s, and there are programs for x86_64 and aarch64 only", f.Arch),
			"leave it out of -a"), nil
	case strings.Contains(f.Refused, "No space left"):
		return problem(fmt.Sprintf("the disk of %s is full", f.existingDir), room), nil
	case f.Refused != "":
		return problem(fmt.Sprintf("%s can't write to %s: %s", f.User, f.existingDir, f.Refused),
			"make the folder writable, or choose another one below the home folder with -r"), nil
	case f.Free < minFree && f.Free != 0: // 0: unknown
		return problem(fmt.Sprintf("only %s are free on the disk of %s, and a node needs %s",
			humanize.IBytes(uint64(f.Free)), f.existingDir, humanize.IBytes(minFree)), room), nil
	case f.Ahead.Abs() > harmfulSkew:
		return problem("its clock is "+f.skew(), "set it, as with: sudo timedatectl set-ntp true"), nil
	case f.Ahead.Abs() > noticeableSkew:
		notes = append(notes, "its clock is "+f.skew())
	}
	return nil, notes
}

// goArch returns the processor's name in Go, or "" if there is no program for it.
func (f *Facts) goArch() string {
	return map[string]string{"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}[f.Arch]
}

// skew describes how far the clock is off.
func (f *Facts) skew() string {
	way := "ahead of"
	if f.Ahead < 0 {
		way = "behind"
	}
	off := f.Ahead.Abs()
	if off > harmfulSkew {
		off = off.Round(time.Minute)
	}
	return fmt.Sprintf("%v %s this machine's", off, way)
}
