package shell

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid/gridtest"
)

// configurations are forms of ssh's configuration, for the machine gpu1. More is a file beside
// them.
var configurations = map[string]string{
	"nothing":               "",
	"match originalhost":    "Match originalhost gpu*\n  User ada\n  Port 2222\n",
	"match exec":            "Match host gpu1 exec \"true\"\n  ProxyJump gate\n  User ada\n",
	"match exec that fails": "Match host gpu1 exec \"false\"\n  ProxyJump gate\n  User ada\n",
	"match host list":       "Match host gpu1,gpu2\n  User ada\n",
	"match host not":        "Match host *,!gpu2\n  User ada\n",
	"match user":            "Host gpu1\n  User ada\nMatch user ada\n  Port 2222\n",
	"match final":           "Match final all\n  User ada\n",
	"match host quoted":     "Match host \"gpu1\"\n  User ada\n",
	"match after hostname":  "Host gpu1\n  HostName 10.0.0.1\nMatch host 10.0.0.*\n  User ada\n",
	"match localuser":       "Match localuser root\n  User ada\n",
	"match host and user":   "Match host gpu1 user root\n Port 2222\n",
	"match all after host":  "Host other\n User x\nMatch all\n  User ada\n",
	"equals sign":           "Host=gpu1\nUser=ada\nPort=2222\n",
	"tabs and case":         "hOST\tgpu1\n\tuSER\tada\n",
	"comment at end":        "Host gpu1 # the big one\n  User ada # me\n",
	"negated":               "Host gpu* !gpu1\n  User bob\nHost gpu1\n User ada\n",
	"question mark":         "Host gpu?\n  User ada\n",
	"hostname tokens":       "Host gpu1\n  HostName %h.lab.example\n",
	"hostname percent":      "Host gpu1\n  HostName fe80::1%%h\n",
	"first wins":            "Host *\n  User bob\nHost gpu1\n  User ada\n",
	"proxycommand tokens":   "Host gpu1\n  ProxyCommand ssh -W %h:%p -l %r gate-%n\n",
	"jump with user":        "Host gpu1\n  ProxyJump ada@gate:2200,inner\n",
	"jump uri":              "Host gpu1\n  ProxyJump ssh://ada@gate:2200\n",
	"jump, then command":    "ProxyJump a\nProxyCommand b\n",
	"command, then jump":    "ProxyCommand b\nProxyJump a\n",
	"no command, then jump": "ProxyCommand none\nProxyJump a\n",
	"no jump, then command": "ProxyJump none\nProxyCommand b\n",
	"no jump, then jump":    "ProxyJump none\nProxyJump a\n",
	"quotes in a command":   "ProxyCommand b \"x y\" %h:%p\n",
	"command of another":    "Host other\nProxyCommand c\nHost *\nProxyJump a\n",
	"connect timeout":       "Host gpu1\n  ConnectTimeout 3\n",
	"keyword with quotes":   "Host gpu1\n  User \"ada\"\n",
	"host in quotes":        "Host \"gpu1\"\n  User ada\n",
	"two hosts one line":    "Host a gpu1\n  User ada\n",
	"unknown is ignored":    "IgnoreUnknown Foo\nFoo bar\nHost gpu1\n User ada\n",
	"address family":        "Host gpu1\n AddressFamily inet6\n BindAddress 127.0.0.9\n",
	"include":               "Host gpu1\n Include MORE\n User zed\n",
	"alias":                 "HostKeyAlias inner\nIdentitiesOnly yes\n",
	"no passwords":          "PasswordAuthentication no\nChallengeResponseAuthentication no\n",
	"only keys":             "PreferredAuthentications publickey\n",
	"accept new":            "StrictHostKeyChecking accept-new\n",
	"accept all":            "StrictHostKeyChecking no\n",
}

// reached is what a route comes to, and what `ssh -G` says of it.
type reached struct {
	User, Host, Port, Jumps, Command, Family, From, Alias, Only, Methods, AcceptNew, Timeout string
}

func bySSH(t *testing.T, program, file string) reached {
	t.Helper()
	out, err := exec.Command(program, "-G", "-F", file, "gpu1").Output()
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		option, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if value != "none" && said[option] == "" {
			said[option] = value
		}
	}
	r := reached{
		User: said["user"], Host: said["hostname"], Port: said["port"], Jumps: said["proxyjump"],
		From: said["bindaddress"], Alias: said["hostkeyalias"],
		Family: map[string]string{"any": "tcp", "inet": "tcp4", "inet6": "tcp6"}[said["addressfamily"]],
		Only:   fmt.Sprint(said["identitiesonly"] == "yes"),
		AcceptNew: fmt.Sprint(said["stricthostkeychecking"] == "accept-new" ||
			said["stricthostkeychecking"] == "false"),
		Timeout: "10s",
	}
	if c := said["connecttimeout"]; c != "" {
		r.Timeout = c + "s"
	}
	r.Command = strings.NewReplacer("%h", r.Host, "%p", r.Port, "%r", r.User, "%n",
		"gpu1").Replace(said["proxycommand"])
	switch {
	case said["preferredauthentications"] != "":
		r.Methods = said["preferredauthentications"]
	case said["passwordauthentication"] == "no" && said["kbdinteractiveauthentication"] == "no":
		r.Methods = "publickey"
	default:
		r.Methods = strings.Join(methodNames[:], ",")
	}
	return r
}

func byRoute(r route) reached {
	var jumps []string
	for _, j := range r.jumps {
		jumps = append(jumps, j.String())
	}
	from := ""
	if r.bindAddress != nil {
		from = r.bindAddress.String()
	}
	return reached{
		User: r.user, Host: r.host, Port: fmt.Sprint(r.port), Jumps: strings.Join(jumps, ","), Command: r.proxy,
		Family: r.family, From: from,
		Alias: r.alias, Only: fmt.Sprint(r.identitiesOnly), Methods: strings.Join(r.methods, ","),
		AcceptNew: fmt.Sprint(r.acceptNew), Timeout: r.connectTimeout.String(),
	}
}

// TestConfigAsOpenSSH has machines reached as OpenSSH's client would; where that is not installed,
// a configuration means the same, or is refused.
func TestConfigAsOpenSSH(t *testing.T) {
	program := gridtest.Program(t, "ssh")
	refused := 0
	for name, text := range configurations {
		dir := t.TempDir()
		more := filepath.Join(dir, "more")
		write(t, more, "User ada\n")
		file := filepath.Join(dir, "config")
		write(t, file, strings.ReplaceAll(text, "MORE", more))
		want := bySSH(t, program, file)
		d := dialer(t, Options{ConfigFile: file})
		r, err := d.route(Target{Host: "gpu1"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, byRoute(r)); diff != "" {
			t.Errorf("%s: ssh (-) is not agreed with (+):\n%s", name, diff)
		}
		var p *Problem
		files, err := readConfigFiles(file, d.home)
		if errors.As(err, &p) {
			if refused++; !strings.Contains(p.Cause, "Match ") && !strings.Contains(p.Cause, "Foo") {
				t.Errorf("%s is refused: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d.config = files
		if r, err = d.route(Target{Host: "gpu1"}); err != nil {
			t.Fatalf("%s, without ssh: %v", name, err)
		}
		if diff := cmp.Diff(want, byRoute(r)); diff != "" {
			t.Errorf("%s: without ssh (+) it means something else than with it (-):\n%s", name, diff)
		}
	}
	if refused == 0 || refused > len(configurations)/3 {
		t.Errorf("%d of %d are refused without ssh", refused, len(configurations))
	}
}

// TestConfigOfHome reads the configuration of the home folder that HOME names, which the client
// itself does not look into.
func TestConfigOfHome(t *testing.T) {
	home := filepath.Join(t.TempDir(), "a home")
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	if r, err := dialer(t, Options{}).route(Target{Host: "gpu1"}); err != nil || r.host != "gpu1" {
		t.Errorf("without a configuration: got %q, %v", r.host, err)
	}
	write(t, filepath.Join(home, ".ssh", "config"), "Host gpu1\nHostName 10.0.0.1\nIdentityFile ${HOME}/%n\n")
	r, err := dialer(t, Options{}).route(Target{Host: "gpu1"})
	if err != nil || r.host != "10.0.0.1" || len(r.identities) != 1 || r.identities[0] != home+"/gpu1" {
		t.Errorf("got %q with %q, %v", r.host, r.identities, err)
	}
	t.Setenv("TMPDIR", filepath.Dir(home))
	write(t, filepath.Join(home, ".ssh", "config"), "Match final all\nUser ada\n") // has the client read it twice
	if r, err := dialer(t, Options{}).route(Target{Host: "gpu1"}); err != nil || r.user != "ada" {
		t.Errorf("a Match final: got %q, %v", r.user, err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(home), "mlfnode-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	write(t, filepath.Join(home, ".ssh", "config"), "Host gpu1\nNoSuchOption yes\n")
	var p *Problem
	if _, err := dialer(t, Options{}).route(Target{Host: "gpu1"}); !errors.As(err, &p) ||
		!strings.Contains(p.Cause, "nosuchoption") {
		t.Errorf("a configuration that ssh refuses: got %v", err)
	}
}

// TestConfigWithoutAnswers reads the files where the program named ssh gives no answers, and asks
// it once about a machine where it does.
func TestConfigWithoutAnswers(t *testing.T) {
	ssh := gridtest.Program(t, "ssh")
	dir := t.TempDir()
	file, asked := filepath.Join(dir, "config"), filepath.Join(dir, "asked")
	write(t, file, "Host gpu1\nHostName %h.lab\n")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	program := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program("exit 1")
	if r, err := dialer(t, Options{ConfigFile: file}).route(Target{Host: "gpu1"}); err != nil || r.host != "gpu1.lab" {
		t.Errorf("got %q, %v", r.host, err)
	}
	program("echo >>" + asked +
		"\ncase \"$*\" in *gpu2) echo not that one >&2; exit 1 ;; esac\nsleep 600 2>&1 &\necho $! >>" +
		filepath.Join(dir, "children") + "\nexec " + ssh + " \"$@\"")
	d := dialer(t, Options{ConfigFile: file})
	for range 3 {
		if r, err := d.route(Target{Host: "gpu1"}); err != nil || r.host != "gpu1.lab" {
			t.Errorf("with its output kept open: got %q, %v", r.host, err)
		}
		var p *Problem
		if _, err := d.route(Target{Host: "gpu2"}); !errors.As(err, &p) ||
			!strings.HasSuffix(p.Cause, ": not that one") {
			t.Errorf("what ssh refuses: got %v", err)
		}
	}
	if lines, err := os.ReadFile(asked); err != nil || len(lines) != 3 {
		t.Errorf("asked %d times, want once about each machine and once about the defaults (%v)", len(lines), err)
	}
	children, err := os.ReadFile(filepath.Join(dir, "children"))
	if err != nil {
		t.Fatal(err)
	}
	for _, child := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
}
