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
	harmfulSkew    = time.Minute // certificates and tokens then become valid or expire at the wrong time, see node/doctor
)

// check returns why the machine can't take part, or nil if it can, and what a person should know
// about it.
func (f *Facts) check() (problem *shell.Problem, notes []string) {
	for _, look := range []func() *shell.Problem{f.checkSystem, f.checkFolder, f.checkSpace, f.checkClock} {
		if p := look(); p != nil {
			return p, nil
		}
	}
	if f.Ahead.Abs() > noticeableSkew {
		notes = append(notes, "its clock is "+f.skew())
	}
	return nil, notes
}

func (f *Facts) checkSystem() *shell.Problem {
	if f.OS != "Linux" {
		return &shell.Problem{Cause: fmt.Sprintf("it runs %s, and nodes need Linux", f.OS), Cure: "leave it out of -a; commands work there with: mlfnode token use"}
	}
	if f.goArch() == "" {
		return &shell.Problem{Cause: fmt.Sprintf("its processor is %s, and there are programs for x86_64 and aarch64 only", f.Arch), Cure: "leave it out of -a"}
	}
	return nil
}

// goArch returns the processor's name in Go, or "" if there is no program for it.
func (f *Facts) goArch() string {
	switch f.Arch {
	case "x86_64", "amd64":
		return "amd64"
	case "aarch64", "arm64":
		return "arm64"
	}
	return ""
}

func (f *Facts) checkFolder() *shell.Problem {
	if f.Refused == "" {
		return nil
	}
	if strings.Contains(f.Refused, "No space left") {
		return &shell.Problem{Cause: fmt.Sprintf("the disk of %s is full", f.existingDir), Cure: "make room on it (df -h " + f.existingDir + "), or choose a folder on another one with -r"}
	}
	return &shell.Problem{Cause: fmt.Sprintf("%s can't write to %s: %s", f.User, f.existingDir, f.Refused),
		Cure: "make the folder writable, or choose another one below the home folder with -r"}
}

func (f *Facts) checkSpace() *shell.Problem {
	if f.Free >= minFree || f.Free == 0 { // 0: unknown; a full disk has already been noticed
		return nil
	}
	return &shell.Problem{Cause: fmt.Sprintf("only %s are free on the disk of %s, and a node needs %s", humanize.IBytes(uint64(f.Free)), f.existingDir, humanize.IBytes(minFree)),
		Cure: "make room on it (df -h " + f.existingDir + "), or choose a folder on another one with -r"}
}

func (f *Facts) checkClock() *shell.Problem {
	if f.Ahead.Abs() <= harmfulSkew {
		return nil
	}
	return &shell.Problem{Cause: "its clock is " + f.skew(), Cure: "set it, as with: sudo timedatectl set-ntp true"}
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
