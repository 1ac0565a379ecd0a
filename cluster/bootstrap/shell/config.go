package shell

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kevinburke/ssh_config"

	"mlfnode/grid/lazyregexp"
)

// config is what the configuration of OpenSSH's client says about machines.
type config interface {
	lookup(t Target) (settings, error)
}

// settings are the options for one machine, by their names in lower case. An option that is given
// more than once has several values. Of ProxyJump and ProxyCommand, which exclude each other, only
// the one that counts is there.
type settings map[string][]string

// first returns the first value of an option, "" for none.
func (s settings) first(option string) string {
	if values := s[strings.ToLower(option)]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// all returns all values of an option.
func (s settings) all(option string) []string { return s[strings.ToLower(option)] }

// loadConfig asks OpenSSH's client what it makes of the given file, or else of those of the user
// and the machine, so that both agree in everything. If there is no such client, or it does not
// answer, the files are read here.
func loadConfig(file, home string) (config, error) {
	if file != "" {
		if _, err := os.ReadFile(file); err != nil {
			return nil, err
		}
	}
	if program, err := exec.LookPath("ssh"); err == nil {
		return newClientConfig(program, file, home), nil
	}
	return readConfigFiles(file, home)
}

// fileConfig is read from the files themselves: the user's first, then the machine's.
type fileConfig struct{ files []*ssh_config.Config }

// readOptions are the options that a fileConfig looks for.
var readOptions = [...]string{
	"User", "HostName", "Port", "HostKeyAlias", "IdentityFile", "CertificateFile", "IdentitiesOnly", "IdentityAgent",
	"UserKnownHostsFile", "StrictHostKeyChecking", "ConnectTimeout", "PreferredAuthentications", "PubkeyAuthentication",
	"PasswordAuthentication", "AddressFamily", "BindAddress", "GSSAPIAuthentication", "HostbasedAuthentication",
	"PKCS11Provider", "ControlPath",
}

// lookup implements config.
func (c *fileConfig) lookup(t Target) (settings, error) {
	s := settings{}
	for _, option := range readOptions {
		name := strings.ToLower(option)
		for _, f := range c.files {
			values, _ := f.GetAll(t.Host, option)
			for _, v := range values {
				s[name] = append(s[name], strings.Trim(v, `"`))
			}
		}
	}
	if values := s["hostname"]; len(values) > 0 {
		values[0] = strings.NewReplacer("%%", "%", "%h", t.Host).Replace(values[0])
	}
	set := func(option, value string) {
		if option != "" {
			s[option] = []string{strings.Trim(value, `"`)}
		}
	}
	// The second is the old name of the first.
	if option, value := c.firstOf(t.Host, "KbdInteractiveAuthentication",
		"ChallengeResponseAuthentication"); option != "" {
		set("kbdinteractiveauthentication", value)
	}
	// The first of both counts, and a ProxyJump of none shuts out others of its kind only.
	option, value := c.firstOf(t.Host, "ProxyJump", "ProxyCommand")
	if option == "proxyjump" && strings.EqualFold(value, "none") {
		option, value = c.firstOf(t.Host, "ProxyCommand")
	}
	if option == "proxycommand" {
		s[option] = []string{value} // whose quotes are the shell's
	} else {
		set(option, value)
	}
	return s, nil
}

// systemConfig is where OpenSSH's client looks after the user's own file.
const systemConfig = "/etc/ssh/ssh_config"

// includeDepth is how deep OpenSSH lets files include one another.
const includeDepth = 16

// readConfigFiles reads the file named, or else the user's and the machine's where there are any.
func readConfigFiles(file, home string) (*fileConfig, error) {
	if file != "" {
		c, err := decodeConfig(file, filepath.Join(home, ".ssh"))
		if err != nil {
			return nil, err
		}
		return &fileConfig{files: []*ssh_config.Config{c}}, nil
	}
	all := &fileConfig{}
	for _, path := range []string{filepath.Join(home, ".ssh", "config"), systemConfig} {
		c, err := decodeConfig(path, filepath.Dir(path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		}
		all.files = append(all.files, c)
	}
	return all, nil
}

func decodeConfig(path, dir string) (*ssh_config.Config, error) {
	text, err := readConfig(path, dir, 0)
	if err != nil {
		return nil, err
	}
	c, err := ssh_config.DecodeBytes([]byte(text))
	if err != nil {
		return nil, problemf("fix the file; `ssh -G HOST` shows what ssh makes of it",
			"%s is not a configuration of ssh (%v)", path, err)
	}
	return c, nil
}

var directive = lazyregexp.New(`(?i)^\s*(host|match|include)(?:\s*=\s*|\s+)(.*?)\s*$`)

// readConfig returns the text of a file with those that it includes. It refuses Match lines, which
// the library can't evaluate as OpenSSH does.
func readConfig(path, dir string, depth int) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	block := "Host *"
	for line := range strings.Lines(string(data)) {
		word, rest := "", ""
		if m := directive.Get().FindStringSubmatch(line); m != nil {
			word, rest = strings.ToLower(m[1]), m[2]
		}
		switch word {
		case "host": // the library takes quotes for a part of the name
			line = strings.ReplaceAll(line, `"`, "")
			block = strings.TrimSpace(line)
		case "match":
			if block = strings.TrimSpace(line); !strings.EqualFold(rest, "all") {
				return "", problemf("install it (the package openssh-client), or write the block with Host",
					"%s has the line %q, which takes OpenSSH's client to weigh, and this machine has none", path, block)
			}
		case "include":
			if depth < includeDepth {
				text, err := readIncludes(rest, dir, depth+1)
				if err != nil {
					return "", err
				}
				// What follows the included text belongs to the block that was open before it.
				out.WriteString(text + "\n" + block + "\n")
			}
			continue
		}
		out.WriteString(strings.TrimSuffix(line, "\n") + "\n")
	}
	return out.String(), nil
}

// readIncludes returns the texts of the files that an Include names; as with OpenSSH, one that
// can't be read is skipped.
func readIncludes(patterns, dir string, depth int) (string, error) {
	var out strings.Builder
	for _, p := range strings.Fields(patterns) {
		p = strings.Trim(p, `"`)
		if home, err := os.UserHomeDir(); err == nil && strings.HasPrefix(p, "~/") {
			p = filepath.Join(home, p[2:])
		}
		if !filepath.IsAbs(p) {
			p = filepath.Join(dir, p)
		}
		paths, _ := filepath.Glob(p)
		for _, path := range paths {
			text, err := readConfig(path, dir, depth)
			if errors.As(err, new(*Problem)) {
				return "", err
			}
			out.WriteString(text + "\n")
		}
	}
	return out.String(), nil
}

// firstOf returns the first of options that exclude each other: its name in lower case, and its
// value as written.
func (c *fileConfig) firstOf(host string, options ...string) (option, value string) {
	for _, f := range c.files {
		for _, block := range f.Hosts {
			if !block.Matches(host) {
				continue
			}
			for _, node := range block.Nodes {
				line, ok := node.(*ssh_config.KV)
				if ok && slices.ContainsFunc(options, func(o string) bool { return strings.EqualFold(o, line.Key) }) {
					return strings.ToLower(line.Key), line.Value
				}
			}
		}
	}
	return "", ""
}
