package shell

import (
	"cmp"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid/lazyregexp"
)

// route is how a machine is reached, after the configuration.
type route struct {
	name            string // as the user gave it
	user            string
	host            string
	port            int
	alias           string   // what known_hosts calls it, "" for its address
	knownHostsFiles []string // files of known hosts; new ones go to the first
	acceptNew       bool     // trust host keys that were never seen
	transportOptions
	loginOptions
}

// transportOptions say how to open the connection to a machine.
type transportOptions struct {
	jumps          []Target
	proxy          string // the command that gives the connection, "" for none
	connectTimeout time.Duration
	family         string // of addresses: tcp, tcp4 or tcp6
	bindAddress    net.IP // the address of this machine to connect from, nil for any
}

// loginOptions say how to authenticate the user.
type loginOptions struct {
	identities     []string    // files of keys that are named
	certificates   []string    // files that are named
	agent          string      // socket, "" for none
	identitiesOnly bool        // offer no other keys than those named
	methods        []string    // authentication methods, in the order in which they are tried
	unsupported    unsupported // options that only OpenSSH's client supports
}

// connectTimeout bounds a connection; a machine that is up answers in milliseconds, one lost packet
// costs a second.
const connectTimeout = 10 * time.Second

// route resolves a target.
func (d *Dialer) route(t Target) (route, error) {
	options, err := d.config.lookup(t)
	if err != nil {
		return route{}, err
	}
	get := options.first
	r := route{
		name: t.Host, user: cmp.Or(t.User, get("User"), userName()), port: t.Port,
		host: strings.ToLower(cmp.Or(get("HostName"), t.Host)), alias: strings.ToLower(get("HostKeyAlias")),
	}
	r.connectTimeout, r.family, r.bindAddress = connectTimeout, "tcp", net.ParseIP(get("BindAddress"))
	r.identitiesOnly = strings.EqualFold(get("IdentitiesOnly"), "yes")
	switch strings.ToLower(get("AddressFamily")) {
	case "inet":
		r.family = "tcp4"
	case "inet6":
		r.family = "tcp6"
	}
	if port, err := strconv.Atoi(get("Port")); err == nil && r.port == 0 {
		r.port = port
	}
	r.port = cmp.Or(r.port, 22)
	if s, err := strconv.Atoi(get("ConnectTimeout")); err == nil && s > 0 {
		r.connectTimeout = time.Duration(s) * time.Second
	}
	r.identities = d.expandFiles(options.all("IdentityFile"), r)
	r.certificates = d.expandFiles(options.all("CertificateFile"), r)
	r.methods, r.unsupported = methods(options), unsupportedOptions(options)
	switch agent := get("IdentityAgent"); { // see ssh_config(5)
	case agent == "", agent == "SSH_AUTH_SOCK":
		r.agent = os.Getenv("SSH_AUTH_SOCK")
	case strings.EqualFold(agent, "none"):
	case strings.HasPrefix(agent, "$"):
		r.agent = os.Getenv(strings.TrimSuffix(strings.TrimPrefix(agent[1:], "{"), "}"))
	default:
		r.agent = d.expand(agent, r)
	}
	r.knownHostsFiles = d.knownFiles(get("UserKnownHostsFile"), r)
	switch strings.ToLower(get("StrictHostKeyChecking")) {
	case "accept-new", "no", "off", "false": // all but the first trust changed keys as well, which goes too far
		r.acceptNew = true
	}
	r.acceptNew = r.acceptNew || d.options.AcceptNew
	return r, r.resolveProxy(options, t)
}

// expandFiles expands the names of files.
func (d *Dialer) expandFiles(names []string, r route) (files []string) {
	for _, file := range names {
		if !strings.EqualFold(file, "none") {
			files = append(files, d.expand(file, r))
		}
	}
	return files
}

// resolveProxy determines the jump hosts, or the command, by which a machine is reached.
func (r *route) resolveProxy(options settings, t Target) error {
	jumps, command := options.first("ProxyJump"), options.first("ProxyCommand")
	switch {
	case jumps != "" && !strings.EqualFold(jumps, "none"):
		for text := range strings.SplitSeq(jumps, ",") {
			jump, err := ParseTarget(strings.TrimSpace(text))
			if err != nil {
				return problemf("fix it in ~/.ssh/config", "the ProxyJump of %s cannot be read, %v", t.Host, err)
			}
			r.jumps = append(r.jumps, jump)
		}
	case !strings.EqualFold(command, "none"):
		r.proxy = strings.NewReplacer("%%", "%", "%h", r.host, "%n", r.name, "%p", strconv.Itoa(r.port), "%r",
			r.user).Replace(command)
	}
	return nil
}

// knownFiles are the files of known hosts for a machine; the first is the one that is added to.
func (d *Dialer) knownFiles(configured string, r route) []string {
	if d.options.KnownHosts != "" {
		return []string{d.options.KnownHosts}
	}
	var files []string
	for _, f := range strings.Fields(configured) {
		if f = strings.Trim(f, `"`); strings.EqualFold(f, "none") {
			f = os.DevNull
		}
		files = append(files, d.expand(f, r))
	}
	if len(files) == 0 {
		dir := filepath.Join(d.home, ".ssh")
		files = []string{filepath.Join(dir, "known_hosts"), filepath.Join(dir, "known_hosts2")}
	}
	return append(files, "/etc/ssh/ssh_known_hosts")
}

// expand replaces what OpenSSH replaces in the name of a file.
func (d *Dialer) expand(file string, r route) string {
	if file == "~" || strings.HasPrefix(file, "~/") {
		file = d.home + file[1:]
	}
	file = variable.Get().ReplaceAllStringFunc(file, func(v string) string { return os.Getenv(v[2 : len(v)-1]) })
	self, _ := os.Hostname()
	short, _, _ := strings.Cut(self, ".")
	return strings.NewReplacer("%%", "%", "%d", d.home, "%h", r.host, "%r", r.user, "%n", r.name, "%u", userName(),
		"%p", strconv.Itoa(r.port), "%k", cmp.Or(r.alias, r.host), "%l", self, "%L", short,
		"%i", strconv.Itoa(os.Getuid())).Replace(file)
}

// variable is one of the environment, as OpenSSH has them in names of files.
var variable = lazyregexp.New(`\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "root"
}

// address is where to connect.
func (r route) address() string { return net.JoinHostPort(r.host, strconv.Itoa(r.port)) }

// knownHostsName is the address that known_hosts is asked about: an alias stands there without a
// port.
func (r route) knownHostsName() string {
	if r.alias != "" {
		return net.JoinHostPort(r.alias, "22")
	}
	return r.address()
}

// String names the machine for its user.
func (r route) String() string {
	if r.name == r.host && r.port == 22 {
		return r.host
	}
	if r.name == r.host {
		return r.address()
	}
	return r.name + " (" + r.address() + ")"
}

// command is what a user types to get there with OpenSSH's client.
func (r route) command() string {
	port := ""
	if r.port != 22 {
		port = "-p " + strconv.Itoa(r.port) + " "
	}
	return "ssh " + port + r.user + "@" + r.name
}
