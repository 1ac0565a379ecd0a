package bootstrap

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
	"mlfnode/grid/printable"
)

// probeScript examines a machine before anything is installed there. It changes nothing, except
// that it creates and removes a file to find out whether that is possible. Each line that it prints
// is key=value; unknown values are left out.
const probeScript = `
say() { [ -z "$2" ] || printf '%s=%s\n' "$1" "$2"; }
soon() { if command -v timeout >/dev/null; then timeout 5 "$@"; else "$@"; fi; }
home=$HOME
root=$home/ROOT
say os "$(uname -s)"
say arch "$(uname -m)"
say user "$(id -un)"
say uid "$(id -u)"
say host "$(uname -n)"
say home "$home"
say time "$(date +%s)"
say glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/.* //')"
say ssh "$SSH_CONNECTION"
[ ! -d /run/systemd/system ] || say systemd yes
[ ! -e /proc/driver/nvidia/version ] || say nvidia "$(soon nvidia-smi -L 2>/dev/null | grep -c '^GPU')"
dir=$root
while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done
say there "$dir"
say free "$(df -Pk "$dir/." 2>/dev/null | awk 'NR==2 {print $4}')"
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)
say boot "$boot"
say disk "$boot $(stat -Lc %d:%i "$dir" 2>/dev/null)"
try=$dir/.mlfnode-$$
if (umask 077; env echo x >"$try") 2>/dev/null; then say writable yes; else say refused "$( (env echo x >"$try") 2>&1 | sed 's/.*: //' | tail -n 1)"; fi
rm -f "$try" 2>/dev/null
say gzip "$(command -v gzip)"
if [ -x "$root/bin/mlfnode" ]; then
	digest='' was='' is=$(stat -Lc '%s %z %i' "$root/bin/mlfnode" 2>/dev/null) # size, time of its last change, inode
	[ ! -r "$root/bin/.digest" ] || read -r digest was <"$root/bin/.digest"
	[ -n "$is" ] && [ "$is" = "$was" ] || digest=$(sha256sum "$root/bin/mlfnode" 2>/dev/null | cut -d' ' -f1)
	say digest "$digest"
fi
say end yes
`

// Facts are what the probe has found on a machine.
type Facts struct {
	OS          string          `json:"os"`         // as uname says: Linux
	Arch        string          `json:"arch"`       // as uname says: x86_64, aarch64
	User        string          `json:"user"`       //
	Root        bool            `json:"root"`       // that user is root
	Host        string          `json:"host"`       // its own name
	Home        string          `json:"home"`       //
	Glibc       string          `json:"glibc"`      // version; "" for another C library
	Systemd     bool            `json:"systemd"`    // it is run by systemd
	GPUs        int             `json:"gpus"`       // that its NVIDIA driver shows
	Ahead       time.Duration   `json:"ahead_ns"`   // of this machine's clock, exact to a second
	Free        int64           `json:"free_bytes"` // on the disk of the folder
	Digest      string          `json:"digest"`     // of the program that is there; "" for none
	Boot        string          `json:"boot"`       // identifies the machine until it reboots
	Disk        string          `json:"disk"`       // the machine, and the place on its disks
	Client      string          `json:"client"`     // address from which ssh came
	Server      string          `json:"server"`     // address to which ssh came
	Gzip        bool            `json:"gzip"`       //
	Refused     string          `json:"refused"`    // why no file can be made
	Layout      protocol.Layout `json:"place"`      //
	existingDir string          // the nearest existing ancestor of the layout's root
}

// runProbe runs the probe for the folder root in the home folder.
func runProbe(ctx context.Context, m shell.Machine, root string) (*Facts, error) {
	began := time.Now()
	text, err := withTimeout(ctx, probeTimeout, "it", func(ctx context.Context) (string, error) {
		return shell.Output(ctx, m, strings.Replace(probeScript, "$home/ROOT", "$home/"+shell.Quote(root), 1), nil)
	})
	if err != nil {
		return nil, err
	}
	f := parseFacts(text, began.Add(time.Since(began)/2))
	if f == nil {
		return nil, &shell.Problem{Cause: "the machine gave an unexpected answer: " + clip(text),
			Cure: "log in with ssh and try: sh -c 'uname -a; df -Pk $HOME'"}
	}
	f.Layout = protocol.Layout{Root: path.Join(f.Home, root)}
	return f, nil
}

// clip quotes and shortens the output of another machine.
func clip(text string) string {
	const most = 200
	return fmt.Sprintf("%q", printable.Clip(strings.Join(strings.Fields(printable.Clip(text, maxCause)), " "), most))
}

// parseFacts parses the output of the probe and makes it safe to show and to use. It returns nil if
// that is incomplete, or can't be that of a machine. now is this machine's time at the probe's.
func parseFacts(text string, now time.Time) *Facts {
	said := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, "="); ok {
			said[key] = strings.TrimSpace(value)
		}
	}
	if said["end"] == "" {
		return nil
	}
	f := &Facts{
		OS: said["os"], Arch: said["arch"], User: said["user"], Root: said["uid"] == "0", Host: said["host"],
		Home: said["home"], Glibc: said["glibc"], Systemd: said["systemd"] != "", Digest: said["digest"],
		Gzip: said["gzip"] != "", Boot: said["boot"], Disk: said["disk"], existingDir: said["there"],
	}
	if said["writable"] == "" {
		f.Refused = cmp.Or(said["refused"], "files can't be created there")
	}
	f.GPUs, _ = strconv.Atoi(said["nvidia"])
	if free, err := strconv.ParseInt(said["free"], 10, 64); err == nil {
		f.Free = free << 10
	}
	if at, err := strconv.ParseInt(said["time"], 10, 64); err == nil {
		f.Ahead = time.Unix(at, 0).Sub(now).Round(time.Second)
	}
	if way := strings.Fields(said["ssh"]); len(way) == 4 { // client address, its port, server address, its port: ssh(1)
		f.Client, f.Server = way[0], way[2]
	}
	for _, text := range []*string{&f.OS, &f.Arch, &f.User, &f.Host, &f.Glibc, &f.Refused, &f.existingDir} {
		*text = protocol.Line(*text)
	}
	for _, address := range []*string{&f.Client, &f.Server} {
		if _, err := netip.ParseAddr(*address); err != nil {
			*address = "" // treated as unknown
		}
	}
	if checkDigest(f.Digest) != nil {
		f.Digest = "" // then the program is installed
	}
	if !path.IsAbs(f.Home) || !printable.Plain(f.Home) || len(f.Home) > maxHome {
		return nil
	}
	return f
}
