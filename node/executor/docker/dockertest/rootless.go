package dockertest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// rootlessUser is the user that a rootless engine belongs to. Only the engine and the tests in it
// know of this user.
const rootlessUser = 42420

// rootlessScript starts a command as that user in a mount namespace where the user exists, has
// further IDs, and may create networks. $1 is the folder of the engine.
const rootlessScript = `set -e
mount --make-rprivate /
for f in passwd group subuid subgid; do cat /etc/$f >$1/$f 2>/dev/null || : >$1/$f; done
echo "mlfnode-test:x:42420:42420::$1/home:/bin/sh" >>$1/passwd
echo "mlfnode-test:x:42420:" >>$1/group
echo "mlfnode-test:4242000:65536" | tee -a $1/subuid >>$1/subgid
for f in passwd group subuid subgid; do [ -e /etc/$f ] || : >/etc/$f; mount --bind $1/$f /etc/$f; done
if [ -e /dev/net/tun ]; then [ -e $1/tun ] || mknod -m 666 $1/tun c 10 200; mount --bind $1/tun /dev/net/tun; fi
dir=$1; shift; cd $dir/home
exec setpriv --reuid 42420 --regid 42420 --clear-groups env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	HOME=$dir/home TMPDIR=$dir/home XDG_RUNTIME_DIR=$dir/run DOCKERD_ROOTLESS_ROOTLESSKIT_NET=slirp4netns "$@"`

// dockerdRootless is Docker's own script for starting a rootless engine, as Debian installs it.
const dockerdRootless = "/usr/share/docker.io/contrib/dockerd-rootless.sh"

// NeedRootless skips the test where there can be no rootless Docker.
func NeedRootless(t testing.TB) {
	t.Helper()
	Need(t)
	for _, program := range []string{dockerdRootless, "rootlesskit", "slirp4netns", "newuidmap", "setpriv"} {
		if _, err := exec.LookPath(program); err != nil && os.Getenv("CI") == "true" {
			t.Fatal(err)
		} else if err != nil {
			t.Skipf("%v (apt-get install rootlesskit slirp4netns uidmap)", err)
		}
	}
}

// rootless returns a command that the engine's user runs.
func (e *Engine) rootless(argv ...string) *exec.Cmd {
	return exec.Command("unshare", append([]string{"--mount", "sh", "-c", rootlessScript, "sh", e.Dir}, argv...)...)
}

// rootlessService returns the command of a rootless Docker.
func (e *Engine) rootlessService(args []string) (*exec.Cmd, error) {
	if err := os.Chmod(e.Dir, 0o755); err != nil {
		return nil, err
	}
	for _, dir := range []string{"home", "run"} {
		if err := os.Mkdir(e.path(dir), 0o700); err != nil && !os.IsExist(err) {
			return nil, err
		}
		if err := os.Chown(e.path(dir), rootlessUser, rootlessUser); err != nil {
			return nil, err
		}
	}
	if text, err := e.rootless("rootlesskit", "--net=slirp4netns", "--disable-host-loopback", "--copy-up=/etc",
		"--copy-up=/run", "true").CombinedOutput(); err != nil {
		return nil, &ForbiddenError{fmt.Sprintf("rootlesskit: %v: %s", err, strings.TrimSpace(string(text)))}
	}
	return e.rootless(append([]string{dockerdRootless, "--storage-driver", "vfs"}, args...)...), nil
}

// RunAsUser runs a test of this program again as the user of a rootless engine, with these
// additional environment variables.
func (e *Engine) RunAsUser(t *testing.T, test string, env ...string) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := e.path("test")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	argv := append([]string{"env"}, env...)
	text, err := e.rootless(append(argv, program, "-test.run", "^"+test+"$", "-test.v",
		"-test.count=1")...).CombinedOutput()
	t.Logf("%s", text)
	if err != nil {
		t.Errorf("%s as user %d: %v", test, rootlessUser, err)
	}
}

// Of returns, to the engine's own user, a rootless engine that another process has started.
func Of(dir string) *Engine {
	e := &Engine{Dir: dir, Kind: Rootless}
	e.Client = newClient(e.path("docker.sock"))
	return e
}
