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
)

// route is how a machine is reached, after the configuration.
type route struct {
	name         string // as the user gave it
	user         string
	host         string
	port         int
	alias        string // what known_hosts calls it, "" for its address
	identities   []string
	certificates []string // files that are named
	agent        string   // socket, "" for none
	only         bool     // offer no other keys than those named
	methods      []string // the ways to be let in, in the order in which they are tried
	jumps        []Target
	proxy        string   // the command that gives the connection, "" for none
	known        []string // files of known hosts; new ones go to the first
	acceptNew    bool     // trust host keys that were never seen
	connectTime  time.Duration
}

// connectLimit bounds a connection; a machine that is up answers in milliseconds, one lost packet costs a second.
const connectLimit = 10 * time.Second

// route resolves a target.
func (d *Dialer) route(t Target) (route, error) {
	get := func(option string) string { return d.config.first(t.Host, option) }
	r := route{name: t.Host, user: cmp.Or(t.User, get("User"), userName()), port: t.Port, connectTime: connectLimit,
		host: strings.ToLower(cmp.Or(strings.ReplaceAll(get("HostName"), "%h", t.Host), t.Host)),
		only: strings.EqualFold(get("IdentitiesOnly"), "yes"), alias: strings.ToLower(get("HostKeyAlias"))}
	if port, err := strconv.Atoi(get("Port")); err == nil && r.port == 0 {
		r.port = port
	}
	r.port = cmp.Or(r.port, 22)
	if s, err := strconv.Atoi(get("ConnectTimeout")); err == nil && s > 0 {
		r.connectTime = time.Duration(s) * time.Second
	}
	r.identities, r.certificates = d.files("IdentityFile", r), d.files("CertificateFile", r)
	r.methods = d.methods(t.Host)
	r.agent = d.agentSocket(get("IdentityAgent"), r)
	r.known = d.knownFiles(get("UserKnownHostsFile"), r)
	switch strings.ToLower(get("StrictHostKeyChecking")) {
	case "accept-new", "no", "off": // the last two trust changed keys as well, which goes too far
		r.acceptNew = true
	}
	r.acceptNew = r.acceptNew || d.options.AcceptNew
	err := d.proxied(&r, t)
	return r, err
}

// files gives those that an option names, once or more often.
func (d *Dialer) files(option string, r route) (files []string) {
	for _, file := range d.config.every(r.name, option) {
		if !strings.EqualFold(file, "none") {
			files = append(files, d.expand(file, r))
		}
	}
	return files
}

// proxied finds out by way of what a machine is reached. With OpenSSH the first of both options counts, and a ProxyJump of none
// shuts out others of its kind only.
func (d *Dialer) proxied(r *route, t Target) (err error) {
	option, value := d.config.whichever(t.Host, "ProxyJump", "ProxyCommand")
	if option == "proxyjump" && strings.EqualFold(value, "none") {
		option, value = d.config.whichever(t.Host, "ProxyCommand")
	}
	switch {
	case option == "proxyjump":
		r.jumps, err = parseJumps(strings.Trim(value, `"`), t)
	case !strings.EqualFold(value, "none"):
		r.proxy = strings.NewReplacer("%%", "%", "%h", r.host, "%n", r.name, "%p", strconv.Itoa(r.port), "%r", r.user).Replace(value)
	}
	return err
}

// parseJumps reads a list of jump hosts.
func parseJumps(list string, t Target) ([]Target, error) {
	var jumps []Target
	for _, text := range strings.Split(list, ",") {
		jump, err := ParseTarget(strings.TrimSpace(text))
		if err != nil {
			return nil, &Problem{Cause: "the ProxyJump of " + t.Host + " cannot be read, " + err.Error(),
				Cure: "mend it in ~/.ssh/config"}
		}
		jumps = append(jumps, jump)
	}
	return jumps, nil
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
	return strings.NewReplacer("%%", "%", "%d", d.home, "%h", r.host, "%r", r.user, "%n", r.name, "%u", userName(),
		"%p", strconv.Itoa(r.port)).Replace(file)
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "root"
}

// address is where to connect.
func (r route) address() string { return net.JoinHostPort(r.host, strconv.Itoa(r.port)) }

// knownAs is the address that known_hosts is asked about: an alias stands there without a port.
func (r route) knownAs() string {
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
